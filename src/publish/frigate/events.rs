//! Frigate's messages, as far as they matter: what is wanted of them, and what is asked about a picture. It knows no broker and no clock.

use serde::Deserialize;
use serde_json::Value;

use crate::frigate::{FrigateOptions, Moment};
use crate::guard::harmless;
use crate::report::FrigateEvent;

/// Longest id, bytes; Frigate's have 24.
const MAX_ID_BYTES: usize = 64;
/// Longest label or zone, characters.
const MAX_NAME_CHARS: usize = 64;
/// Zones that are told at most.
const MAX_ZONES: usize = 16;

/// A message of `frigate/events`.
#[derive(Deserialize)]
pub(super) struct Message {
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

impl Message {
    /// # Errors
    /// It is no message of Frigate's; in words.
    pub(super) fn read(payload: &[u8]) -> Result<Message, String> {
        let message: Message =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let id = &message.after.id;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        match !id.is_empty() && id.len() <= MAX_ID_BYTES && id.chars().all(fits) {
            true => Ok(message),
            false => Err(format!(
                "its id is none of Frigate's: {}",
                harmless::short(id)
            )),
        }
    }

    /// What it tells of, where that is wanted and has a picture.
    pub(super) fn wanted(self, options: &FrigateOptions) -> Option<FrigateEvent> {
        let Message { r#type, after } = self;
        let among = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        let mut zones = after.entered_zones.iter();
        let in_zone = options.zones.is_empty() || zones.any(|zone| options.zones.contains(zone));
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
            && !is(after.stationary);
        if !wanted {
            return None;
        }
        let sub_label = match &after.sub_label {
            Value::Array(pair) => pair.first().and_then(Value::as_str),
            value => value.as_str(),
        };
        let zones = after.entered_zones.iter().take(MAX_ZONES);
        Some(FrigateEvent {
            id: after.id,
            camera: after.camera,
            label: name(&after.label),
            sub_label: sub_label.map(name),
            zones: zones.map(|zone| name(zone)).collect(),
            score: after
                .top_score
                .filter(|score| score.is_finite())
                .unwrap_or_default(),
        })
    }
}

/// A name as it may stand in a prompt: short, on one line, and without what only a terminal obeys.
fn name(text: &str) -> String {
    harmless::line(text).chars().take(MAX_NAME_CHARS).collect()
}

/// What is asked about a picture of an event. Names come from outside: what looks like a placeholder in one is left as it is.
pub(super) fn prompt(options: &FrigateOptions, event: &FrigateEvent) -> String {
    let values = [
        ("{label}", event.label.clone()),
        ("{sub_label}", event.sub_label.clone().unwrap_or_default()),
        ("{camera}", event.camera.clone()),
        ("{zones}", event.zones.join(", ")),
    ];
    let mut prompt = String::new();
    let mut rest = options.prompt.as_str();
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        prompt.push_str(before);
        let filled = values
            .iter()
            .find_map(|(key, value)| Some((value, from.strip_prefix(key)?)));
        rest = match filled {
            Some((value, behind)) => {
                prompt.push_str(&value.replace('_', " "));
                behind
            }
            None => {
                prompt.push('{');
                &from[1..]
            }
        };
    }
    prompt + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_message_of_frigate_is_said() {
        let with = |id: Value| {
            let after = json!({"id": id, "camera": "door", "label": "person"});
            json!({"type": "end", "after": after}).to_string()
        };
        for payload in ["", "{}", "[1]"] {
            assert!(Message::read(payload.as_bytes()).is_err());
        }
        for id in [json!("../../x"), json!(""), json!(7), json!("1".repeat(65))] {
            assert!(Message::read(with(id).as_bytes()).is_err());
        }
        assert!(Message::read(with(json!("1764527000.5-a_b")).as_bytes()).is_ok());
    }

    #[test]
    fn a_prompt_names_what_was_seen() {
        let asked = |prompt: &str, label: &str| {
            let options = FrigateOptions {
                prompt: prompt.to_owned(),
                ..FrigateOptions::default()
            };
            let event = FrigateEvent {
                id: "1".to_owned(),
                camera: "front_door".to_owned(),
                label: label.to_owned(),
                sub_label: None,
                zones: vec!["porch".to_owned(), "front_yard".to_owned()],
                score: 0.5,
            };
            super::prompt(&options, &event)
        };
        assert_eq!(
            asked("{label}|{sub_label}|{camera}|{zones}", "license_plate"),
            "license plate||front door|porch, front yard"
        );
        assert_eq!(
            asked("{{label} at {camera}, {\"a\": {}}{", "{camera}{zones}"),
            "{{camera}{zones} at front door, {\"a\": {}}{",
            "what is filled in is not looked at again"
        );
    }
}
