//! Where log lines go: to the journal with their fields when it listens, else to standard error for people; warnings and errors
//! also wait here for the loop, where they are to be published.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use super::clock;
use crate::config::Log;
use crate::guard::harmless;
use crate::guard::secret::without_secrets;
use crate::report::{LogLine, SCHEMA};

/// Lines that are published at once at most, and the time in which that many may come again.
const MAX_LINES: u32 = 20;
const REFILL: Duration = Duration::from_secs(60);
/// Most characters of a published line.
const MAX_CHARS: usize = 1024;

/// Lines that wait to be published.
static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    wanted: false,
    lines: VecDeque::new(),
    suppressed: 0,
    allowance: None,
});

struct Waiting {
    wanted: bool,
    lines: VecDeque<LogLine>,
    /// Lines that found no place since the last that did.
    suppressed: u64,
    /// How many lines may come, and when that was.
    allowance: Option<(f64, Instant)>,
}

impl Waiting {
    /// Keeps a line, if it may come.
    fn take(&mut self, now: Instant, line: impl FnOnce(u64) -> LogLine) {
        if !self.wanted {
            return;
        }
        let most = f64::from(MAX_LINES);
        let (left, since) = self.allowance.unwrap_or((most, now));
        let regained = now.saturating_duration_since(since).as_secs_f64() / REFILL.as_secs_f64();
        let left = (left + regained * most).min(most);
        if left < 1.0 {
            self.suppressed += 1;
            self.allowance = Some((left, now));
            return;
        }
        self.allowance = Some((left - 1.0, now));
        self.lines
            .push_back(line(std::mem::take(&mut self.suppressed)));
    }
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that came since the last time; at most some, however many there were.
pub(super) fn take_lines() -> VecDeque<LogLine> {
    std::mem::take(&mut waiting().lines)
}

/// Whether warnings and errors are kept for [`take_lines`].
pub(super) fn keep_lines(wanted: bool) {
    waiting().wanted = wanted;
}

/// A logger whose warnings and errors are also kept for the loop.
struct Tap<L>(L);

impl<L: log::Log> log::Log for Tap<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    /// Whoever wrote a line, no address in it keeps its user, password and query.
    fn log(&self, record: &Record<'_>) {
        if tells_bytes(record) || speaks_of_what_was_sent(record) {
            return;
        }
        let text = record.args().to_string();
        let text = without_secrets(&text);
        // Whatever speaks of devices, cameras, brokers and requests repeats what they said.
        let (args, fields) = (harmless::line(&text), fields(record));
        // The arguments live as long as this statement only.
        self.told(
            &record
                .to_builder()
                .args(format_args!("{args}"))
                .key_values(&fields.as_slice())
                .build(),
        );
    }

    fn flush(&self) {
        self.0.flush();
    }
}

impl<L: log::Log> Tap<L> {
    fn told(&self, record: &Record<'_>) {
        self.0.log(record);
        if record.level() <= Level::Warn {
            waiting().take(Instant::now(), |suppressed| line(record, suppressed));
        }
    }
}

/// What libraries trace are pieces of what goes over the network, passwords and all, which nothing could be taken out of.
fn tells_bytes(record: &Record<'_>) -> bool {
    record.level() == Level::Trace && crate_name(record) != Some(env!("CARGO_CRATE_NAME"))
}

/// A decoder calls sound that it cannot read an error; whoever sent it is told so, and nothing is wrong with the service.
fn speaks_of_what_was_sent(record: &Record<'_>) -> bool {
    let is_decoder = crate_name(record).is_some_and(|name| name.starts_with("symphonia"));
    is_decoder && log::max_level() < LevelFilter::Debug
}

fn crate_name<'r>(record: &Record<'r>) -> Option<&'r str> {
    record.module_path().and_then(|path| path.split(':').next())
}

/// A record's fields, each as a harmless text.
fn fields(record: &Record<'_>) -> Vec<(String, String)> {
    struct Fields(Vec<(String, String)>);
    impl<'kvs> VisitSource<'kvs> for Fields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            let value = value.to_string();
            let value = harmless::line(&without_secrets(&value)).into_owned();
            self.0.push((key.to_string(), value));
            Ok(())
        }
    }
    let mut fields = Fields(Vec::new());
    // The visitor has no errors.
    record.key_values().visit(&mut fields).ok();
    fields.0
}

fn line(record: &Record<'_>, suppressed: u64) -> LogLine {
    let source = record.key_values().get(Key::from_str("source"));
    LogLine {
        schema: SCHEMA,
        ts: clock::now(),
        level: if record.level() == Level::Error {
            "error"
        } else {
            "warn"
        },
        target: record.target().to_owned(),
        source: source.map(|source| source.to_string()),
        message: record.args().to_string().chars().take(MAX_CHARS).collect(),
        suppressed,
    }
}

/// Installs the logger of this process.
///
/// # Errors
/// An unknown level, or a logger that is installed already.
pub fn install(config: &Log) -> Result<(), String> {
    let level = level(config)?;
    let installed = if connected_to_journal() {
        let journal =
            JournalLog::new().map_err(|error| format!("cannot reach the journal: {error}"))?;
        let journal = journal
            .with_syslog_identifier("gemmad".to_owned())
            .with_extra_fields([("VERSION", env!("CARGO_PKG_VERSION"))]);
        log::set_boxed_logger(Box::new(Tap(journal)))
    } else {
        let lines = env_logger::Builder::new()
            .filter_level(LevelFilter::Trace) // the level below decides
            .build();
        log::set_boxed_logger(Box::new(Tap(lines)))
    };
    installed.map_err(|error| error.to_string())?;
    log::set_max_level(level);
    keep_lines(config.publish);
    Ok(())
}

/// The level that a configuration asks for.
pub(super) fn level(config: &Log) -> Result<LevelFilter, String> {
    LevelFilter::from_str(&config.level).map_err(|_| {
        format!(
            "[log] level = {:?}: it must be one of off, error, warn, info, debug, trace",
            config.level
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it is given.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl log::Log for Recorder {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            let source = record.key_values().get(Key::from_str("source"));
            let line = format!("{} {}", source.unwrap(), record.args());
            self.0.lock().unwrap().push(line);
        }

        fn flush(&self) {}
    }

    /// The journal and standard error get the same, and so does the broker.
    #[test]
    fn a_line_is_one_line_and_harmless() {
        let all: Vec<char> = (0..=0x1_0000)
            .filter_map(char::from_u32)
            .filter(|&c| harmless::is_harmful(c))
            .collect();
        let tap = Tap(Recorder::default());
        for &c in &all {
            let (said, fields) = (format!("it said a{c}b"), [("source", format!("ha{c}ll"))]);
            log::Log::log(
                &tap,
                &Record::builder()
                    .level(Level::Info)
                    .args(format_args!("{said}"))
                    .key_values(&fields.as_slice())
                    .build(),
            );
        }
        let lines = tap.0.0.lock().unwrap();
        assert_eq!(lines.len(), all.len());
        for line in lines.iter() {
            assert!(!line.contains(harmless::is_harmful), "{line:?}");
            assert!(line.starts_with("ha") && line.contains("it said a") && line.ends_with('b'));
        }
    }

    #[test]
    fn what_a_decoder_thinks_of_what_was_sent_is_no_error_of_the_service() {
        let tap = Tap(Recorder::default());
        let fields = [("source", "http")];
        for path in ["symphonia_core::formats::probe", "gemmad::daemon"] {
            log::Log::log(
                &tap,
                &Record::builder()
                    .level(Level::Error)
                    .module_path(Some(path))
                    .args(format_args!("{path}"))
                    .key_values(&fields.as_slice())
                    .build(),
            );
        }
        assert_eq!(*tap.0.0.lock().unwrap(), ["http gemmad::daemon"]);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut waiting = Waiting {
            wanted: true,
            lines: VecDeque::new(),
            suppressed: 0,
            allowance: None,
        };
        let made = |suppressed| {
            let record = Record::builder()
                .level(Level::Error)
                .target("mqtt")
                .args(format_args!("it broke"))
                .build();
            line(&record, suppressed)
        };
        let start = Instant::now();
        for _ in 0..50 {
            waiting.take(start, made);
        }
        assert_eq!(waiting.lines.len(), MAX_LINES as usize);
        waiting.take(start + REFILL / MAX_LINES + Duration::from_millis(1), made);
        let last = waiting.lines.pop_back().unwrap();
        assert_eq!((last.suppressed, last.level), (30, "error"));
        assert_eq!(
            (last.target.as_str(), last.message.as_str()),
            ("mqtt", "it broke")
        );
        waiting.lines.clear();
        for _ in 0..50 {
            waiting.take(start + 3 * REFILL, made);
        }
        assert_eq!(waiting.lines.len(), MAX_LINES as usize);
    }
}
