//! Commands as intents of Home Assistant.

use serde_json::{Map, Value, json};

use super::framing::{Event, Version};

/// Said to clients that would do the first of several commands, and not tell that they left the others.
const ONE_AT_A_TIME: &str = "One command at a time, please.";

/// What is said of what was done, by Home Assistant where it says nothing itself; in every language.
const DONE: &str = "OK";
/// A template of Home Assistant's: how what was asked about is.
const STATES: &str = "{% for found in query.matched + query.unmatched %}{{ found.name }}: {{ found.state_with_unit }}. {% endfor %}";

/// What a sentence is, from the details of its answer: an intent, several of them where the client knows how to take them, or none.
pub(super) fn events(details: &Map<String, Value>, version: Version) -> Vec<Event> {
    let commands = details.get("commands").and_then(Value::as_array);
    let not_recognized = |text: Value| vec![Event::new("not-recognized", json!({ "text": text }))];
    match commands.map(Vec::as_slice) {
        None | Some([]) => not_recognized(details.get("reason").cloned().unwrap_or_default()),
        Some([command]) => vec![intent(command, version)],
        Some(_) if version < Version::SEVERAL_INTENTS => not_recognized(json!(ONE_AT_A_TIME)),
        Some(commands) => {
            let start = Event::new("intents-start", json!({}));
            let stop = Event::new("intents-stop", json!({}));
            let intents = commands.iter().map(|command| intent(command, version));
            std::iter::once(start)
                .chain(intents)
                .chain([stop])
                .collect()
        }
    }
}

fn intent(command: &Value, version: Version) -> Event {
    let slots = command.get("slots").and_then(Value::as_object);
    let mut slots = slots.cloned().unwrap_or_default();
    // Home Assistant takes an entity's id for its name: two of one name are told apart so.
    let entities = command.get("entities").and_then(Value::as_array);
    if let (Some([entity]), Some(name)) = (entities.map(Vec::as_slice), slots.get_mut("name")) {
        *name = entity.clone();
        slots.shift_remove("area");
    }
    let entity = |(name, value)| json!({ "name": name, "value": value });
    let entities: Vec<Value> = slots.into_iter().map(entity).collect();
    let mut data = json!({ "name": command.get("name"), "entities": entities });
    let name = command
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let reply = match name {
        "HassGetState" if version >= Version::ENDS_SPEECH => Some(STATES),
        "HassGetState" => None,
        name => name.starts_with("Hass").then_some(DONE),
    };
    if let Some(reply) = reply {
        data["text"] = json!(reply);
    }
    Event::new("intent", data)
}
