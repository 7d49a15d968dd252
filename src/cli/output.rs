//! What a command found, for people or for machines. Nothing that is printed is harmful, whoever said it.

use std::io::{self, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::guard::harmless;

/// Standard output, the only way to it. A mark takes the place of what is harmful; lines and tabs stay.
pub(super) struct Out {
    stdout: StdoutLock<'static>,
    /// The beginning of a character whose end was not written yet.
    begun: Vec<u8>,
}

/// Takes standard output for as long as the value lives.
pub(super) fn out() -> Out {
    Out {
        stdout: std::io::stdout().lock(),
        begun: Vec::new(),
    }
}

/// Whether somebody looks.
pub(super) fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        let text = String::from_utf8_lossy(&text);
        self.stdout.write_all(harmless::text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// A report in one line of JSON that a terminal may show.
pub(super) fn json(report: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string(report).map_err(io::Error::other)?;
    Ok(harmless::json(&json).into_owned())
}

/// The same over several lines.
pub(super) fn pretty_json(report: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    Ok(harmless::json(&json).into_owned())
}

/// Prints a report on standard output: as JSON, or as `print` has it.
pub(super) fn publish<R: Serialize>(
    report: &R,
    as_json: bool,
    print: impl FnOnce(&R, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = out();
    if as_json {
        writeln!(out, "{}", pretty_json(report)?)?;
    } else {
        print(report, &mut out)?;
    }
    Ok(())
}
