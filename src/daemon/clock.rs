//! Wall-clock time as it is published.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

/// RFC 3339 with milliseconds and the offset of local time.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_else(|_| Timestamp::now());
    let time = time.round(Unit::Millisecond).unwrap_or(time);
    let offset = TimeZone::system().to_offset(time);
    time.display_with_offset(offset).to_string()
}

/// Now.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// Whether the clock has been set since the board was switched on: boards without a battery start in the past.
///
/// Told by systemd-timesyncd's mark; where another program keeps the time, by a clock that stands after this program was
/// made, which a board without a battery does not reach by itself.
pub(super) fn is_synced() -> bool {
    const MADE: u64 = 1_790_000_000; // September 2026
    let after_made = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .is_ok_and(|since| since.as_secs() > MADE);
    let timesyncd = std::path::Path::new("/run/systemd/timesync");
    if timesyncd.is_dir() {
        return timesyncd.join("synchronized").exists();
    }
    after_made
}

#[cfg(test)]
mod tests {
    use super::*;

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
