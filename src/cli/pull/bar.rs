//! How far a pull is: a bar on a terminal, a line a minute elsewhere, or JSON.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar};
use serde::Serialize;

use super::super::failure::note;
use super::super::{output, progress};

/// Where nobody looks all the time.
const EVERY: Duration = Duration::from_secs(60);

/// Told from everywhere, one thread.
pub(super) struct Bar {
    json: bool,
    bar: RefCell<ProgressBar>,
    started: Instant,
    told: Cell<Instant>,
    fetched_bytes: Cell<u64>,
    /// What an earlier run had done when this one began.
    before: Cell<Option<u64>>,
}

/// The documented keys of a line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Note {
        text: &'a str,
    },
    Progress {
        done_bytes: u64,
        total_bytes: u64,
        fetched_bytes: u64,
        fetched_bytes_per_s: u64,
    },
}

impl Bar {
    pub(super) fn new(json: bool) -> Bar {
        let now = Instant::now();
        Bar {
            json,
            bar: RefCell::new(ProgressBar::hidden()),
            started: now,
            told: Cell::new(now),
            fetched_bytes: Cell::new(0),
            before: Cell::new(None),
        }
    }

    /// A line for people.
    pub(super) fn note(&self, text: &str) {
        match self.json {
            true => print(&Event::Note { text }),
            false => self.bar.borrow().suspend(|| note(text)),
        }
    }

    /// So many more bytes came from the network.
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.set(self.fetched_bytes() + bytes);
    }

    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.get()
    }

    /// So much of the pack is there.
    pub(super) fn packed(&self, done: u64, total: u64) {
        self.begin("pulling");
        let rate = self.rate();
        {
            let bar = self.bar.borrow();
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("pulling at {}/s", HumanBytes(rate)));
        }
        let before = self.before.get().unwrap_or(done);
        self.before.set(Some(before));
        if std::io::stderr().is_terminal() && !self.json || self.told.get().elapsed() < EVERY {
            return;
        }
        self.told.set(Instant::now());
        if self.json {
            print(&Event::Progress {
                done_bytes: done,
                total_bytes: total,
                fetched_bytes: self.fetched_bytes(),
                fetched_bytes_per_s: rate,
            });
            return;
        }
        let share = done.saturating_sub(before) as f64 / total.saturating_sub(before).max(1) as f64;
        let seconds = self.started.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64((seconds / share.max(1e-6) - seconds).clamp(0.0, 1e7));
        note(&format!(
            "{} of {}, {}/s from the network, {} left",
            HumanBytes(done),
            HumanBytes(total),
            HumanBytes(rate),
            HumanDuration(left)
        ));
    }

    /// So much of the pack was read again.
    pub(super) fn verified(&self, done: u64, total: u64) {
        self.begin("verifying");
        let bar = self.bar.borrow();
        bar.set_length(total);
        bar.set_position(done);
    }

    pub(super) fn clear(&self) {
        self.bar.replace(ProgressBar::hidden()).finish_and_clear();
    }

    fn begin(&self, message: &'static str) {
        let is_hidden = self.bar.borrow().length().is_none();
        if is_hidden && !self.json {
            self.bar.replace(progress::of_bytes(message));
        }
    }

    fn rate(&self) -> u64 {
        let seconds = self.started.elapsed().as_secs_f64().max(0.1);
        (self.fetched_bytes() as f64 / seconds) as u64
    }
}

/// A reader that has gone ends nothing: the pack is what counts.
fn print(event: &Event<'_>) {
    if let Ok(line) = output::json(event) {
        let mut out = output::out();
        writeln!(out, "{line}").and_then(|()| out.flush()).ok();
    }
}
