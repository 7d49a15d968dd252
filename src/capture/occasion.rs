//! When a picture is to be described without being asked: at motion, at its time, and not too often. No clock inside.

use std::time::Duration;

use crate::media::CaptionTrigger;

/// The rules of one camera, and when they were followed last.
pub(super) struct Occasions {
    /// Describe pictures without being asked.
    pub(super) captions: bool,
    every: Option<Duration>,
    cooldown: Duration,
    /// When the schedule began, or its last picture.
    scheduled: Duration,
    captioned: Option<Duration>,
    /// Motion began and has not been described yet.
    motion_due: bool,
}

impl Occasions {
    /// The rules, from `now` on.
    pub(super) fn new(every_s: u32, cooldown_s: u32, captions: bool, now: Duration) -> Occasions {
        Occasions {
            captions,
            every: (every_s > 0).then(|| Duration::from_secs(u64::from(every_s))),
            cooldown: Duration::from_secs(u64::from(cooldown_s)),
            scheduled: now,
            captioned: None,
            motion_due: false,
        }
    }

    /// Motion began: one picture of it is to be described, later if the last one was too recently.
    pub(super) fn motion_started(&mut self) {
        self.motion_due = true;
    }

    /// Motion ended; what has not been described by now is past.
    pub(super) fn motion_ended(&mut self) {
        self.motion_due = false;
    }

    /// Why a picture taken now is to be described, if it is.
    pub(super) fn due(&self, now: Duration) -> Option<CaptionTrigger> {
        let cool = self
            .captioned
            .is_none_or(|last| now.saturating_sub(last) >= self.cooldown);
        let time = self
            .every
            .is_some_and(|every| now.saturating_sub(self.scheduled) >= every);
        match (self.captions && cool, self.motion_due, time) {
            (true, true, _) => Some(CaptionTrigger::Motion),
            (true, false, true) => Some(CaptionTrigger::Schedule),
            _ => None,
        }
    }

    /// A picture was sent for the reason that [`due`](Occasions::due) gave; it shows what the schedule wanted too.
    pub(super) fn captioned(&mut self, now: Duration) {
        self.captioned = Some(now);
        self.scheduled = now;
        self.motion_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn motion_is_described_once_and_waits_for_the_cool_down() {
        let mut occasions = Occasions::new(0, 30, true, at(0));
        assert_eq!(occasions.due(at(1000)), None);
        occasions.motion_started();
        assert_eq!(occasions.due(at(1001)), Some(CaptionTrigger::Motion));
        occasions.captioned(at(1001));
        assert_eq!(occasions.due(at(1100)), None, "the same motion");
        occasions.motion_ended();
        occasions.captioned(at(1100));
        occasions.motion_started();
        assert_eq!(occasions.due(at(1110)), None, "too soon");
        assert_eq!(occasions.due(at(1130)), Some(CaptionTrigger::Motion));
        occasions.motion_ended();
        assert_eq!(occasions.due(at(1140)), None, "past");
    }

    #[test]
    fn the_schedule_counts_from_the_last_picture() {
        let mut occasions = Occasions::new(60, 30, true, at(5));
        assert_eq!(occasions.due(at(64)), None);
        assert_eq!(occasions.due(at(65)), Some(CaptionTrigger::Schedule));
        occasions.captioned(at(65));
        occasions.motion_started();
        assert_eq!(occasions.due(at(95)), Some(CaptionTrigger::Motion));
        occasions.captioned(at(95));
        assert_eq!(occasions.due(at(154)), None);
        assert_eq!(occasions.due(at(155)), Some(CaptionTrigger::Schedule));
        occasions.captions = false;
        assert_eq!(occasions.due(at(155)), None);
    }
}
