//! How loud it is, for people who speak.

use std::io::Write;

use indicatif::ProgressBar;

use crate::cli::progress;
use crate::guard::harmless;

/// The meter: a line of a terminal, or lines of a pipe.
pub(in crate::cli) struct Meter {
    line: ProgressBar,
    id: String,
    doing: &'static str,
    dbfs: f32,
}

impl Meter {
    /// Begins to show that a microphone listens.
    pub(in crate::cli) fn new(id: &str) -> Meter {
        let mut meter = Meter {
            line: progress::of_state(),
            id: harmless::line(id).into_owned(),
            doing: "",
            dbfs: f32::NEG_INFINITY,
        };
        meter.says("listening");
        meter
    }

    /// Shows what happens.
    pub(in crate::cli) fn says(&mut self, doing: &'static str) {
        self.doing = doing;
        self.show(|meter| format!("{}: {doing}", meter.id));
    }

    /// Shows how loud it is, dB full scale.
    pub(in crate::cli) fn level(&mut self, dbfs: f32) {
        self.dbfs = dbfs;
        self.show(|meter| format!("{}: {dbfs:.1} dBFS", meter.id));
    }

    /// Takes the line away.
    pub(in crate::cli) fn clear(&self) {
        self.line.finish_and_clear();
    }

    fn show(&self, plain: impl FnOnce(&Meter) -> String) {
        if self.line.is_hidden() {
            // Who closed standard error wants no meter.
            writeln!(std::io::stderr().lock(), "{}", plain(self)).ok();
            return;
        }
        let (id, bar, dbfs, doing) = (&self.id, bar(self.dbfs), self.dbfs, self.doing);
        (self.line).set_message(format!("{id} [{bar}] {dbfs:>6.1} dBFS  {doing}"));
        self.line.tick();
    }
}

/// A level from the quietest room, -60 dB, to full scale.
fn bar(dbfs: f32) -> String {
    const WIDTH: usize = 30;
    const LEAST_DBFS: f32 = -60.0;
    let share = (1.0 - dbfs / LEAST_DBFS).clamp(0.0, 1.0);
    let full = (share * WIDTH as f32).round() as usize;
    format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_empty_in_silence_and_full_at_full_scale() {
        for (dbfs, full) in [
            (f32::NEG_INFINITY, 0),
            (-60.0, 0),
            (-30.0, 15),
            (0.0, 30),
            (6.0, 30),
        ] {
            let bar = bar(dbfs);
            assert_eq!((bar.len(), bar.matches('#').count()), (30, full), "{dbfs}");
        }
    }
}
