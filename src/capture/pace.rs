//! How often a camera is asked for a picture.

use std::time::Duration;

/// When the next picture may be taken, on the watcher's clock.
pub(super) struct Pace {
    /// From one look for motion to the next.
    period: Duration,
    look_at: Duration,
    /// Nor is a picture taken before: the last one was damaged.
    rests_until: Duration,
}

impl Pace {
    /// `fps` looks a second, the first one now.
    pub(super) fn new(fps: f32, now: Duration) -> Pace {
        Pace {
            period: Duration::from_secs_f32(1.0 / fps),
            look_at: now,
            rests_until: now,
        }
    }

    /// Whether motion is to be looked for.
    pub(super) fn look(&self, now: Duration) -> bool {
        now >= self.look_at
    }

    /// Whether a picture may be taken, whatever it is for.
    pub(super) fn may_take(&self, now: Duration) -> bool {
        now >= self.rests_until
    }

    /// How long nothing is to be done.
    pub(super) fn until_look(&self, now: Duration) -> Duration {
        self.look_at.saturating_sub(now)
    }

    /// A picture was seen.
    pub(super) fn seen(&mut self, now: Duration) {
        self.look_at = (self.look_at + self.period).max(now);
    }

    /// A picture was damaged: another is not taken sooner than one is looked at.
    pub(super) fn damaged(&mut self, now: Duration) {
        self.look_at = now + self.period;
        self.rests_until = self.look_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pictures are taken in 10 s, asked for all the time, if each of them is damaged.
    fn damaged_in_10_s(fps: f32) -> usize {
        let mut pace = Pace::new(fps, Duration::ZERO);
        let clock = (0..10_000).map(Duration::from_millis);
        clock
            .filter(|&now| {
                let taken = pace.may_take(now);
                if taken {
                    pace.damaged(now);
                }
                taken
            })
            .count()
    }

    #[test]
    fn damaged_pictures_are_taken_no_faster_than_whole_ones() {
        assert_eq!(damaged_in_10_s(5.0), 50);
        assert_eq!(damaged_in_10_s(0.5), 5);
        // Nor is the time until then spent looking at the clock.
        let late = Duration::from_secs(20);
        let mut pace = Pace::new(0.1, Duration::ZERO);
        pace.damaged(late);
        assert_eq!(pace.until_look(late), Duration::from_secs(10));
        // A whole one may be followed at once, where somebody asks.
        let mut pace = Pace::new(0.1, Duration::ZERO);
        pace.seen(Duration::ZERO);
        assert!(pace.may_take(Duration::ZERO) && !pace.look(Duration::ZERO));
        assert_eq!(
            pace.until_look(Duration::from_secs(4)),
            Duration::from_secs(6)
        );
    }
}
