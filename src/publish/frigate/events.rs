//! Which of Frigate's events are described. It knows no broker and no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::frigate::{FrigateOptions, Moment};
use crate::guard::harmless;
use crate::report::FrigateEvent;

/// Ids that are known to be described, so that a message that comes again is not.
const KNOWN: usize = 1024;
/// Longest id, bytes; Frigate's have 24.
const MAX_ID_BYTES: usize = 64;
/// Longest label or zone, characters.
const MAX_NAME_CHARS: usize = 64;
/// Zones that are told at most.
const MAX_ZONES: usize = 16;

/// A message of `frigate/events`, as far as it matters.
#[derive(Deserialize)]
struct Message {
    r#type: String,
    after: Tracked,
}

#[derive(Deserialize)]
struct Tracked {
    id: String,
    camera: String,
    label: String,
    /// A name, or a name and how sure that is.
    #[serde(default)]
    sub_label: Value,
    #[serde(default)]
    top_score: Option<f32>,
    #[serde(default)]
    false_positive: Option<bool>,
    #[serde(default)]
    stationary: Option<bool>,
    #[serde(default)]
    has_snapshot: Option<bool>,
    #[serde(default)]
    entered_zones: Vec<String>,
}

/// What becomes of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is described.
    Describe(FrigateEvent),
    /// It would be, but its camera was described only just now.
    TooSoon,
    /// It is none of those that are wanted.
    Other,
}

/// What was described, and when.
pub(super) struct Gate {
    options: FrigateOptions,
    known: VecDeque<String>,
    last: HashMap<String, Instant>,
}

impl Gate {
    pub(super) fn new(options: &FrigateOptions) -> Gate {
        Gate {
            options: options.clone(),
            known: VecDeque::new(),
            last: HashMap::new(),
        }
    }

    /// # Errors
    /// It is no message of Frigate's; in words.
    pub(super) fn judge(&mut self, payload: &[u8], now: Instant) -> Result<Verdict, String> {
        let Message { r#type, after } =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if after.id.is_empty() || after.id.len() > MAX_ID_BYTES || !after.id.chars().all(fits) {
            return Err(format!(
                "its id is none of Frigate's: {}",
                harmless::short(&after.id)
            ));
        }
        let options = &self.options;
        let among = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        let in_zone = options.zones.is_empty()
            || after
                .entered_zones
                .iter()
                .any(|zone| options.zones.contains(zone));
        let its_moment = match options.on {
            Moment::End => r#type == "end",
            Moment::FirstSnapshot => true,
        };
        let is = |flag: Option<bool>| flag.unwrap_or(false);
        let wanted = options.cameras.contains(&after.camera)
            && among(&options.labels, &after.label)
            && in_zone
            && its_moment
            && is(after.has_snapshot)
            && !is(after.false_positive)
            && !is(after.stationary)
            && !self.known.contains(&after.id);
        if !wanted {
            return Ok(Verdict::Other);
        }
        let cooldown = Duration::from_secs(u64::from(options.cooldown_s));
        let last = self.last.get(&after.camera);
        let is_soon = last.is_some_and(|last| now.saturating_duration_since(*last) < cooldown);
        self.known.push_back(after.id.clone());
        if self.known.len() > KNOWN {
            self.known.pop_front();
        }
        if is_soon {
            return Ok(Verdict::TooSoon);
        }
        self.last.insert(after.camera.clone(), now);
        let sub_label = match &after.sub_label {
            Value::Array(pair) => pair.first().and_then(Value::as_str),
            value => value.as_str(),
        };
        Ok(Verdict::Describe(FrigateEvent {
            id: after.id,
            camera: after.camera,
            label: name(&after.label),
            sub_label: sub_label.map(name),
            zones: after
                .entered_zones
                .iter()
                .take(MAX_ZONES)
                .map(|zone| name(zone))
                .collect(),
            score: after
                .top_score
                .filter(|score| score.is_finite())
                .unwrap_or_default(),
        }))
    }

    /// What is asked about a picture of an event.
    pub(super) fn prompt(&self, event: &FrigateEvent) -> String {
        let spoken = |name: &str| name.replace('_', " ");
        (self.options.prompt)
            .replace("{label}", &spoken(&event.label))
            .replace(
                "{sub_label}",
                &spoken(event.sub_label.as_deref().unwrap_or_default()),
            )
            .replace("{camera}", &spoken(&event.camera))
            .replace("{zones}", &spoken(&event.zones.join(", ")))
    }
}

/// A name as it may stand in a prompt: short, on one line, and without what only a terminal obeys.
fn name(text: &str) -> String {
    harmless::line(text).chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gate(text: &str) -> Gate {
        let options = format!("enabled = true\ncameras = [\"door\", \"yard\"]\n{text}");
        Gate::new(&toml::from_str(&options).unwrap())
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

    fn is_described(gate: &mut Gate, payload: &[u8], now: Instant) -> bool {
        matches!(gate.judge(payload, now).unwrap(), Verdict::Describe(_))
    }

    #[test]
    fn what_is_over_is_described_once_and_the_rest_is_not() {
        let now = Instant::now();
        let mut gate = gate("cooldown_s = 0");
        for kind in ["new", "update"] {
            assert!(!is_described(&mut gate, &message(kind, "1.0-a", &[]), now));
        }
        let described = gate
            .judge(
                &message("end", "1.0-a", &[("sub_label", json!(["Ann\u{1b}", 0.9]))]),
                now,
            )
            .unwrap();
        let Verdict::Describe(event) = described else {
            panic!("{described:?}");
        };
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
        assert!(!is_described(
            &mut bell,
            &message("new", "1", &[("has_snapshot", json!(false))]),
            now
        ));
        assert!(is_described(&mut bell, &message("update", "1", &[]), now));
        assert!(!is_described(&mut bell, &message("update", "1", &[]), now));
        let soon = now + Duration::from_secs(29);
        assert_eq!(
            bell.judge(&message("update", "2", &[]), soon).unwrap(),
            Verdict::TooSoon
        );
        assert!(is_described(
            &mut bell,
            &message("update", "3", &[("camera", json!("yard"))]),
            soon
        ));
        assert!(is_described(
            &mut bell,
            &message("update", "4", &[]),
            now + Duration::from_secs(30)
        ));
    }

    #[test]
    fn what_is_no_message_of_frigate_is_said() {
        let mut gate = gate("");
        let now = Instant::now();
        for payload in [
            &b""[..],
            b"{}",
            b"[1]",
            &message("end", "../../x", &[]),
            &message("end", "", &[]),
            &message("end", "1", &[("id", json!(7))]),
        ] {
            assert!(gate.judge(payload, now).is_err());
        }
    }

    #[test]
    fn a_prompt_names_what_was_seen() {
        let gate = gate("prompt = \"{label}|{sub_label}|{camera}|{zones}\"");
        let event = FrigateEvent {
            id: "1".to_owned(),
            camera: "front_door".to_owned(),
            label: "license_plate".to_owned(),
            sub_label: None,
            zones: vec!["porch".to_owned(), "front_yard".to_owned()],
            score: 0.5,
        };
        assert_eq!(
            gate.prompt(&event),
            "license plate||front door|porch, front yard"
        );
    }
}
