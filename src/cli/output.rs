//! What a command found, for people or for machines.

use std::io::Write;

use serde::Serialize;

use super::failure::Failure;

/// What was said or seen may be anything, also what a terminal would obey: the text without that.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Prints a report on standard output: as JSON, or as `print` has it.
pub(super) fn publish<R: Serialize>(
    report: &R,
    json: bool,
    print: impl FnOnce(&R, &mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        let json = serde_json::to_string_pretty(report).map_err(std::io::Error::other)?;
        writeln!(out, "{json}")?;
    } else {
        print(report, &mut out)?;
    }
    Ok(())
}
