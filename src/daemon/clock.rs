//! Wall-clock time as it is published.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

/// RFC 3339 with milliseconds and the offset of local time.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_else(|_| Timestamp::now());
    let time = time.round(Unit::Millisecond).unwrap_or(time);
    let offset = TimeZone::system().to_offset(time);
    time.display_with_offset(offset).to_string()
}

/// The wall-clock time, as it is published.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// Whether something is known to have set the clock since the board was switched on: boards without a battery start in the past.
///
/// Known of systemd-timesyncd by its mark, and of a hardware clock that the kernel began with. The kernel's own answer
/// (`adjtimex`) is not to be had in the service's sandbox, which denies everything about clocks; so a board without a hardware
/// clock whose time another program keeps counts as not set.
pub(super) fn is_synced() -> bool {
    is_set(Path::new("/"))
}

/// As [`is_synced`], on the board whose files lie below `root`.
fn is_set(root: &Path) -> bool {
    let by_network = root.join("run/systemd/timesync/synchronized").exists();
    let clocks = std::fs::read_dir(root.join("sys/class/rtc"));
    let by_hardware = clocks.is_ok_and(|clocks| {
        clocks.flatten().any(|clock| {
            std::fs::read_to_string(clock.path().join("hctosys")).is_ok_and(|set| set.trim() == "1")
        })
    });
    by_network || by_hardware
}

/// How long ago a time was that another board published; nothing where it is none.
pub(super) fn since(time: &str) -> Option<Duration> {
    let then: Timestamp = time.parse().ok()?;
    let past = Timestamp::now().duration_since(then);
    Some(Duration::try_from(past).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_has_its_age() {
        let ago = SystemTime::now() - Duration::from_secs(7);
        let age = since(&rfc3339(ago)).unwrap();
        assert!((7..60).contains(&age.as_secs()), "{age:?}");
        let to_come = SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(since(&rfc3339(to_come)), Some(Duration::ZERO));
        assert_eq!(since("yesterday"), None);
    }

    #[test]
    fn the_clock_is_set_where_somebody_says_so() {
        let board = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = board.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(!is_set(board.path()));
        write("sys/class/rtc/rtc0/hctosys", "0\n");
        write("sys/class/rtc/rtc0/date", "2026-11-26\n");
        write("run/systemd/timesync/x", "");
        assert!(!is_set(board.path()), "nobody has set it yet");
        write("sys/class/rtc/rtc1/hctosys", "1\n");
        assert!(is_set(board.path()));
        std::fs::remove_dir_all(board.path().join("sys")).unwrap();
        write("run/systemd/timesync/synchronized", "");
        assert!(is_set(board.path()));
    }

    #[test]
    fn times_are_rfc_3339_with_an_offset() {
        let text =
            rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_120));
        let time: jiff::Timestamp = text.parse().unwrap();
        assert_eq!(time.as_millisecond(), 1_700_000_000_120);
        assert!(
            text.contains(".12") && text.as_bytes()[text.len() - 3] == b':',
            "{text}"
        );
    }
}
