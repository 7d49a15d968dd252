//! Which of Frigate's events are described, and when. It knows no broker and no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::events::Message;
use crate::frigate::{FrigateOptions, Moment};
use crate::report::FrigateEvent;

/// Ids that are known to be described, so that a message that comes again is not.
const KNOWN: usize = 1024;

/// What becomes of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is described; one that waited for that is not, since this is newer.
    Describe {
        /// That one.
        instead_of: Option<FrigateEvent>,
    },
    /// It would be, but its camera is described only just now.
    TooSoon,
    /// It is none of those that are wanted.
    Other,
}

/// What was last described of a camera.
struct Last {
    id: String,
    at: Instant,
    /// What came too soon after it: it is described where nothing comes of that.
    spare: Option<FrigateEvent>,
}

/// What is described, what was, and what waits for it, by camera.
#[derive(Default)]
pub(super) struct Gate {
    options: FrigateOptions,
    known: VecDeque<String>,
    last: HashMap<String, Last>,
    waiting: HashMap<String, FrigateEvent>,
    /// Those whose pictures are fetched.
    fetched: HashMap<String, FrigateEvent>,
}

impl Gate {
    /// The options from now on. What was being fetched waits again, unless something newer does.
    pub(super) fn reopen(&mut self, options: &FrigateOptions) {
        self.options = options.clone();
        for (camera, event) in self.fetched.drain() {
            self.waiting.entry(camera).or_insert(event);
        }
        self.waiting
            .retain(|camera, _| options.cameras.contains(camera));
    }

    /// # Errors
    /// It is no message of Frigate's; in words.
    pub(super) fn judge(&mut self, payload: &[u8], now: Instant) -> Result<Verdict, String> {
        let message = Message::read(payload)?;
        let Some(event) = message.wanted(&self.options) else {
            return Ok(Verdict::Other);
        };
        if self.known.contains(&event.id) {
            return Ok(Verdict::Other);
        }
        let cooldown = Duration::from_secs(u64::from(self.options.cooldown_s));
        if let Some(last) = self.last.get_mut(&event.camera)
            && now.saturating_duration_since(last.at) < cooldown
        {
            // One that goes on may still be there when the time is over.
            let goes_on = self.options.on == Moment::FirstSnapshot;
            let id = event.id.clone();
            last.spare = Some(event);
            if !goes_on {
                self.know(id);
            }
            return Ok(Verdict::TooSoon);
        }
        let instead_of = self.admit(event, now);
        Ok(Verdict::Describe { instead_of })
    }

    /// It is described next; whatever waited at its camera is not.
    fn admit(&mut self, event: FrigateEvent, now: Instant) -> Option<FrigateEvent> {
        self.know(event.id.clone());
        let last = Last {
            id: event.id.clone(),
            at: now,
            spare: None,
        };
        self.last.insert(event.camera.clone(), last);
        self.waiting.insert(event.camera.clone(), event)
    }

    fn know(&mut self, id: String) {
        self.known.push_back(id);
        if self.known.len() > KNOWN {
            self.known.pop_front();
        }
    }

    /// What is to be fetched now, of cameras that are not busy.
    pub(super) fn begin(&mut self, is_busy: impl Fn(&str) -> bool) -> Vec<FrigateEvent> {
        let free = self.waiting.keys().filter(|camera| !is_busy(camera));
        let free: Vec<String> = free.cloned().collect();
        let mut begun = Vec::new();
        for camera in free {
            if let Some(event) = self.waiting.remove(&camera) {
                self.fetched.insert(camera, event.clone());
                begun.push(event);
            }
        }
        begun
    }

    /// Its picture is with the daemon, or cannot be had.
    pub(super) fn is_fetched(&mut self, event: &FrigateEvent) {
        if (self.fetched.get(&event.camera)).is_some_and(|fetched| fetched.id == event.id) {
            self.fetched.remove(&event.camera);
        }
    }

    /// It has its description.
    pub(super) fn described(&mut self, event: &FrigateEvent) {
        if let Some(last) = self.last_of(event) {
            last.spare = None;
        }
    }

    /// Nothing came of it: what came too soon after it is described in its place, or whatever comes next.
    pub(super) fn failed(&mut self, event: &FrigateEvent, now: Instant) {
        let Some(last) = self.last_of(event) else {
            return;
        };
        let spare = last.spare.take();
        self.last.remove(&event.camera);
        if let Some(spare) = spare {
            self.admit(spare, now);
        }
    }

    fn last_of(&mut self, event: &FrigateEvent) -> Option<&mut Last> {
        let last = self.last.get_mut(&event.camera);
        last.filter(|last| last.id == event.id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn options(text: &str) -> FrigateOptions {
        let options = format!("enabled = true\ncameras = [\"door\", \"yard\"]\n{text}");
        toml::from_str(&options).unwrap()
    }

    fn gate(text: &str) -> Gate {
        let mut gate = Gate::default();
        gate.reopen(&options(text));
        gate
    }

    /// A message in the shape that Frigate 0.16 publishes.
    fn message(kind: &str, id: &str, more: &[(&str, Value)]) -> Vec<u8> {
        let mut after = json!({
            "id": id, "camera": "door", "frame_time": 1_764_527_000.5, "snapshot": {"frame_time": 1_764_526_999.1},
            "label": "person", "sub_label": null, "top_score": 0.84, "false_positive": false, "start_time": 1_764_526_990.0,
            "end_time": null, "score": 0.8, "box": [424, 500, 536, 712], "area": 23744, "ratio": 0.5, "region": [264, 450, 667, 853],
            "current_zones": [], "entered_zones": ["porch"], "thumbnail": null, "has_snapshot": true, "has_clip": false,
            "active": true, "stationary": false, "motionless_count": 0, "position_changes": 2, "attributes": {}, "current_attributes": []
        });
        for (key, value) in more {
            after[*key] = value.clone();
        }
        json!({"type": kind, "before": after, "after": after})
            .to_string()
            .into_bytes()
    }

    /// What is begun because of a message, no camera being busy.
    fn begun(gate: &mut Gate, payload: &[u8], now: Instant) -> Option<FrigateEvent> {
        gate.judge(payload, now).unwrap();
        next(gate)
    }

    fn next(gate: &mut Gate) -> Option<FrigateEvent> {
        gate.begin(|_| false).pop()
    }

    fn is_described(gate: &mut Gate, payload: &[u8], now: Instant) -> bool {
        begun(gate, payload, now).is_some()
    }

    #[test]
    fn what_is_over_is_described_once_and_the_rest_is_not() {
        let now = Instant::now();
        let mut gate = gate("cooldown_s = 0");
        for kind in ["new", "update"] {
            assert!(!is_described(&mut gate, &message(kind, "1.0-a", &[]), now));
        }
        let ended = message("end", "1.0-a", &[("sub_label", json!(["Ann\u{1b}", 0.9]))]);
        let event = begun(&mut gate, &ended, now).unwrap();
        assert_eq!(
            (
                event.id.as_str(),
                event.camera.as_str(),
                event.label.as_str()
            ),
            ("1.0-a", "door", "person")
        );
        assert_eq!(
            (event.zones.clone(), event.score),
            (vec!["porch".to_owned()], 0.84)
        );
        assert!(event.sub_label.unwrap().starts_with("Ann"));
        assert!(
            !is_described(&mut gate, &message("end", "1.0-a", &[]), now),
            "it came again"
        );
        for other in [
            ("false_positive", json!(true)),
            ("stationary", json!(true)),
            ("has_snapshot", json!(false)),
            ("label", json!("cat")),
            ("camera", json!("garage")),
        ] {
            assert!(!is_described(
                &mut gate,
                &message("end", "2.0-b", &[other]),
                now
            ));
        }
    }

    #[test]
    fn zones_first_snapshots_and_cool_downs() {
        let now = Instant::now();
        let mut zoned = gate("zones = [\"street\"]\nlabels = []");
        assert!(!is_described(&mut zoned, &message("end", "1", &[]), now));
        let there = [
            ("entered_zones", json!(["porch", "street"])),
            ("label", json!("cat")),
        ];
        assert!(is_described(&mut zoned, &message("end", "2", &there), now));
        let mut bell = gate("on = \"first_snapshot\"\ncooldown_s = 30");
        let early = [("has_snapshot", json!(false))];
        assert!(!is_described(&mut bell, &message("new", "1", &early), now));
        assert!(is_described(&mut bell, &message("update", "1", &[]), now));
        assert!(!is_described(&mut bell, &message("update", "1", &[]), now));
        let soon = now + Duration::from_secs(29);
        assert_eq!(
            bell.judge(&message("update", "2", &[]), soon).unwrap(),
            Verdict::TooSoon
        );
        let yard = message("update", "3", &[("camera", json!("yard"))]);
        assert!(is_described(&mut bell, &yard, soon));
        assert!(
            is_described(
                &mut bell,
                &message("update", "2", &[]),
                now + Duration::from_secs(30)
            ),
            "it goes on when the time is over"
        );
    }

    #[test]
    fn the_newest_waits_for_a_camera_that_is_busy() {
        let (now, mut gate) = (Instant::now(), gate("cooldown_s = 0"));
        for id in ["1", "2"] {
            gate.judge(&message("end", id, &[]), now).unwrap();
            assert!(gate.begin(|camera| camera == "door").is_empty());
        }
        let newest = gate.judge(&message("end", "3", &[]), now).unwrap();
        let Verdict::Describe {
            instead_of: Some(older),
        } = newest
        else {
            panic!("{newest:?}");
        };
        assert_eq!(older.id, "2");
        assert_eq!(next(&mut gate).unwrap().id, "3");
    }

    #[test]
    fn what_came_too_soon_is_described_where_nothing_came_of_what_it_was_too_soon_for() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        for (on, comes_again) in [("end", false), ("first_snapshot", true)] {
            let mut gate = gate(&format!("cooldown_s = 30\non = \"{on}\""));
            let first = begun(&mut gate, &message("end", "1", &[]), start).unwrap();
            for id in ["2", "3"] {
                assert!(!is_described(
                    &mut gate,
                    &message("end", id, &[]),
                    after(10)
                ));
            }
            gate.is_fetched(&first);
            gate.failed(&first, after(60));
            let instead = next(&mut gate).unwrap();
            assert_eq!(instead.id, "3", "{on}: the newest");
            // Its time has begun anew, and it is described once.
            let again = gate.judge(&message("end", "3", &[]), after(61)).unwrap();
            assert_eq!(again, Verdict::Other);
            let soon = gate.judge(&message("end", "4", &[]), after(89)).unwrap();
            assert_eq!(soon, Verdict::TooSoon);
            // What was described needs nothing in its place.
            gate.described(&instead);
            gate.failed(&first, after(90));
            gate.failed(&instead, after(90));
            assert_eq!(next(&mut gate), None);
            assert_eq!(
                is_described(&mut gate, &message("end", "4", &[]), after(91)),
                comes_again
            );
        }
    }

    #[test]
    fn opened_anew_it_knows_what_was_and_goes_on_with_what_waits() {
        let (now, mut gate) = (Instant::now(), gate("cooldown_s = 30"));
        let event = begun(&mut gate, &message("end", "1", &[]), now).unwrap();
        gate.reopen(&options("cooldown_s = 30"));
        assert_eq!(next(&mut gate), Some(event.clone()), "it was being fetched");
        gate.is_fetched(&event);
        gate.reopen(&options("cooldown_s = 30"));
        assert_eq!(next(&mut gate), None, "the daemon has it");
        let judged = |gate: &mut Gate, id| gate.judge(&message("end", id, &[]), now).unwrap();
        assert_eq!(judged(&mut gate, "1"), Verdict::Other);
        assert_eq!(judged(&mut gate, "2"), Verdict::TooSoon);
        let yard = [("camera", json!("yard"))];
        gate.judge(&message("end", "5", &yard), now).unwrap();
        gate.reopen(&FrigateOptions {
            cameras: vec!["door".to_owned()],
            ..options("")
        });
        assert_eq!(next(&mut gate), None, "that camera is gone");
    }
}
