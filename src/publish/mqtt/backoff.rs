//! How long to wait before the next connection. It knows no clock: it is told how long a connection held.

use std::time::Duration;

/// First pause; it doubles with every try that comes to nothing.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one, and the pauses begin anew. A broker that refuses after all, by its access list,
/// does so sooner; one that restarts every ten seconds holds longer.
const HELD: Duration = Duration::from_secs(5);
/// First and longest pause while another process takes the connection from us: every try takes it from that one.
const CONTESTED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// A connection that ends sooner is a short one.
const SHORT: Duration = Duration::from_secs(60);
/// So many short ones in a row are no accident.
const MANY: u32 = 5;

/// The pauses.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    contested: bool,
    /// Connections in a row that ended soon.
    short: u32,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff {
            next: FIRST,
            contested: false,
            short: 0,
        }
    }

    /// The pause after a connection that held for some time, or was none. `spread`, from 0 to 1, adds up to a quarter, so that boards
    /// do not come back in step.
    pub(super) fn lost(&mut self, held: Option<Duration>, spread: f64) -> Duration {
        match held {
            Some(held) if held < SHORT => self.short += 1,
            Some(_) => self.short = 0,
            // Between two connections of a broker that restarts, there are tries that fail.
            None => {}
        }
        if !self.contested && held.is_some_and(|held| held >= HELD) {
            self.next = FIRST;
        }
        let longest = if self.contested { CONTESTED.1 } else { LONGEST };
        let pause = self.next;
        self.next = (pause * 2).min(longest);
        pause + pause.mul_f64(spread.clamp(0.0, 1.0) / 4.0)
    }

    /// Another process takes the connection from us, or does so no more.
    pub(super) fn contest(&mut self, contested: bool) {
        if contested != self.contested {
            self.contested = contested;
            self.next = if contested { CONTESTED.0 } else { FIRST };
        }
    }

    /// Whether this was one short connection too many; tells it again after as many more.
    pub(super) fn is_flapping(&self) -> bool {
        self.short > 0 && self.short.is_multiple_of(MANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of an hour in which there is a connection to a broker that restarts every `every` and is away for `away` each time,
    /// and the number of tries.
    fn share(every: Duration, away: Duration) -> (f64, usize) {
        let (every, away, hour) = (every.as_secs_f64(), away.as_secs_f64(), 3600.0);
        let (mut backoff, mut now, mut connected, mut tries) = (Backoff::new(), 0.0, 0.0, 0);
        while now < hour {
            tries += 1;
            let since_restart = now % every;
            let held = if since_restart < away {
                None
            } else {
                let end = (now - since_restart + every).min(hour);
                connected += end - now;
                let held = Duration::from_secs_f64(end - now);
                now = end;
                Some(held)
            };
            now += backoff.lost(held, 0.5).as_secs_f64();
        }
        (connected / hour, tries)
    }

    #[test]
    fn a_broker_that_restarts_again_and_again_is_there_most_of_the_time() {
        for (every, least) in [(10, 0.80), (20, 0.90), (40, 0.95)] {
            let (share, tries) = share(Duration::from_secs(every), Duration::from_secs(1));
            println!(
                "every {every} s: connected {:.1} %, {tries} tries",
                100.0 * share
            );
            assert!(share > least, "every {every} s: {share}");
        }
        // One that comes back at once is missed for the first pause only.
        let (share, _) = share(Duration::from_secs(10), Duration::from_millis(100));
        assert!(share > 0.93, "{share}");
    }

    #[test]
    fn what_does_not_hold_is_tried_ever_less() {
        let second = Duration::from_secs(1);
        for held in [None, Some(second)] {
            let mut backoff = Backoff::new();
            let pauses: Vec<_> = (0..9).map(|_| backoff.lost(held, 0.0)).collect();
            let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
            assert_eq!(pauses, expected.map(Duration::from_millis), "{held:?}");
            assert_eq!(backoff.lost(None, 1.0), LONGEST.mul_f64(1.25));
            // After a good one, all is well again.
            assert_eq!(backoff.lost(Some(10 * second), 0.0), FIRST);
        }
    }

    #[test]
    fn whoever_is_pushed_off_waits_however_long_it_held() {
        let mut backoff = Backoff::new();
        let minute = Some(Duration::from_secs(60));
        backoff.lost(minute, 0.0);
        backoff.contest(true);
        let pauses: Vec<_> = (0..5)
            .map(|_| backoff.lost(minute, 0.0).as_secs())
            .collect();
        assert_eq!(pauses, [60, 120, 240, 480, 600]);
        backoff.contest(true);
        assert_eq!(backoff.lost(minute, 0.0), CONTESTED.1);
        backoff.contest(false);
        assert_eq!(backoff.lost(minute, 0.0), FIRST);
    }

    #[test]
    fn many_short_connections_are_told_of() {
        let mut backoff = Backoff::new();
        let short = Some(Duration::from_secs(20));
        let told: Vec<_> = (1..=11)
            .filter(|_| {
                backoff.lost(None, 0.0);
                backoff.lost(short, 0.0);
                backoff.is_flapping()
            })
            .collect();
        assert_eq!(told, [5, 10]);
        backoff.lost(Some(SHORT), 0.0);
        assert!(!backoff.is_flapping());
    }
}
