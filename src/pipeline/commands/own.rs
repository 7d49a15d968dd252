//! `[[command]]`: commands of one's own, with closed lists for their slots.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::CommandError;

/// `[[command]]`: something that may be said, with the values of its slots.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What the event calls it, such as `turn_on`; unique among the commands.
    pub name: String,
    /// Said to the model, to choose among the commands; may be left out.
    #[serde(default)]
    pub description: Option<String>,
    /// Slots in the order in which the model gives them.
    #[serde(default)]
    pub slots: Vec<Slot>,
}

/// `[[command.slots]]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its key in the event; unique within the command.
    pub name: String,
    /// The values that may come out: strings or whole numbers.
    pub values: Vec<SlotValue>,
    /// The command may come without it.
    #[serde(default)]
    pub optional: bool,
}

/// A value of a slot.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
pub enum SlotValue {
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

pub(super) fn wrong(place: String, reason: String) -> CommandError {
    CommandError::Value { place, reason }
}

pub(super) fn check_commands(commands: &[Command], name_key: &str) -> Result<(), CommandError> {
    let mut names = HashSet::new();
    for (at, command) in (1..).zip(commands) {
        let place = format!("command[{at}]");
        check_name(&format!("{place}.name"), &command.name, &mut names)?;
        // The name's key stands in the same object.
        let mut keys = HashSet::from([name_key]);
        for (at, slot) in (1..).zip(&command.slots) {
            let place = format!("{place}.slots[{at}]");
            check_name(&format!("{place}.name"), &slot.name, &mut keys)?;
            let place = format!("{place}.values");
            if slot.values.is_empty() {
                let reason = "is empty; a slot needs at least one value".to_owned();
                return Err(wrong(place, reason));
            }
            let mut seen = HashSet::new();
            if let Some(twice) = slot.values.iter().find(|value| !seen.insert(*value)) {
                return Err(wrong(place, format!("has {} twice", json_of(twice))));
            }
        }
    }
    Ok(())
}

fn check_name<'a>(
    place: &str,
    name: &'a str,
    taken: &mut HashSet<&'a str>,
) -> Result<(), CommandError> {
    if name.is_empty() {
        return Err(wrong(place.to_owned(), "is empty".to_owned()));
    }
    if !taken.insert(name) {
        let reason = format!("{name:?} is taken already; names must differ");
        return Err(wrong(place.to_owned(), reason));
    }
    Ok(())
}

/// What is likely to be said where commands are configured: their names, and the names and values of their slots.
pub(super) fn phrases(commands: &[Command]) -> Vec<String> {
    let mut phrases = Vec::new();
    for command in commands {
        phrases.push(command.name.clone());
        for slot in &command.slots {
            phrases.push(slot.name.clone());
            phrases.extend(slot.values.iter().filter_map(|value| match value {
                SlotValue::Text(text) => Some(text.clone()),
                SlotValue::Number(_) => None,
            }));
        }
    }
    phrases
}

fn json_of(value: &SlotValue) -> Value {
    match value {
        SlotValue::Number(number) => json!(number),
        SlotValue::Text(text) => json!(text),
    }
}

pub(super) fn schema_of(command: &Command, name_key: &str) -> Value {
    let mut properties = Map::new();
    properties.insert(name_key.to_owned(), json!({ "const": command.name }));
    let mut required = vec![name_key];
    for slot in &command.slots {
        let values: Vec<Value> = slot.values.iter().map(json_of).collect();
        properties.insert(slot.name.clone(), json!({ "enum": values }));
        if !slot.optional {
            required.push(&slot.name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A command as the model is told it: `- name(slot: a | b, slot?: 1 | 2): description`.
pub(super) fn line_of(command: &Command) -> String {
    let slots: Vec<String> = command
        .slots
        .iter()
        .map(|slot| {
            let values: Vec<String> = slot.values.iter().map(|v| json_of(v).to_string()).collect();
            let mark = if slot.optional { "?" } else { "" };
            format!("{}{mark}: {}", slot.name, values.join(" | "))
        })
        .collect();
    let description = command.description.as_deref().unwrap_or_default();
    let colon = if description.is_empty() { "" } else { ": " };
    let slots = slots.join(", ");
    format!("- {}({slots}){colon}{description}", command.name)
}

/// Bytes of the longest JSON that the grammar allows for a command.
pub(super) fn longest_bytes(command: &Command, name_key: &str) -> usize {
    let quoted = |text: &str| json!(text).to_string().len();
    // `{"key":"name"}`, and `,"slot":value` for each slot.
    let name = quoted(name_key) + quoted(&command.name) + "{:}".len();
    let slots = command.slots.iter().map(|slot| {
        let values = slot.values.iter().map(|v| json_of(v).to_string().len());
        quoted(&slot.name) + values.max().unwrap_or(0) + ",:".len()
    });
    name + slots.sum::<usize>()
}
