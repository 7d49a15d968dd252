//! What may be commanded: `[[command]]` as a prompt and a grammar, and an answer back as a command with its slots.
//!
//! The model writes compact JSON, `{"<name_key>":"<name>","<slot>":<value>,…}`, slots in the configured order. The grammar leaves
//! it nothing else to write, so that speech about something else becomes some command too; what tells them apart is how
//! probable the model found the configured commands ([`super::Answer::grammar_confidence`]).

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, FinishReason, Generation};
use crate::model::grammar::{Grammar, GrammarError, GrammarLimits};
use crate::model::sampler::Sampling;
use crate::report::CommandCall;

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

/// `[commands]`: how the model is asked for a command.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// Said before the speech or its transcript, so that it is read while nobody waits; `{commands}` becomes the list of commands
    /// and slots. Empty: nothing.
    pub instructions: String,
    /// The prompt behind the speech or its transcript; `{commands}` as above.
    pub prompt: String,
    /// The key of the command's name in the JSON that the model gives.
    pub name_key: String,
    /// Least share of the model's probability that the listed commands must have at every token of an answer, 0 to 1; speech
    /// below it is `not_understood`. On the demo model's held-out clips it is 0.95 or more for commands that are configured, and
    /// at most 0.0003 for those that are not (`tests/pipeline/commands.rs`). A model that knows nothing but commands finds one in
    /// everything: there it is 0.8 and more even for chat.
    pub min_confidence: f32,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            instructions: String::new(),
            prompt: "Which of these commands was that? Answer with one JSON object.\n{commands}"
                .to_owned(),
            name_key: "command".to_owned(),
            min_confidence: 0.5,
        }
    }
}

/// Commands that cannot be told apart, or that nobody can give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// One value is wrong.
    #[error("{place}: {reason}")]
    Value {
        /// The key, such as `command[2].slots[1].values`; counted from 1.
        place: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// All together are too much.
    #[error("[[command]]: as a grammar: {0}")]
    Grammar(#[from] GrammarError),
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Understanding {
    /// A command.
    Command {
        /// Its name and slots.
        call: CommandCall,
        /// How probable the model found the configured commands, 0 to 1.
        confidence: f32,
    },
    /// None of the commands.
    NotUnderstood {
        /// How probable the model found the configured commands, 0 to 1.
        confidence: f32,
        /// One line.
        reason: String,
    },
}

/// The configured commands, ready to ask for; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandGrammar {
    instructions: Option<String>,
    prompt: String,
    grammar: Grammar,
    name_key: String,
    min_confidence: f32,
    longest_bytes: usize,
}

impl CommandGrammar {
    /// Makes the prompt and the grammar of `commands`.
    ///
    /// # Errors
    /// There is no command, one of a name or value is empty or stands twice, a number is out of its range, or all together are
    /// larger than `limits` allow.
    pub fn new(
        commands: &[Command],
        options: &Commands,
        limits: &GrammarLimits,
    ) -> Result<CommandGrammar, CommandError> {
        check_options(options)?;
        check_commands(commands, &options.name_key)?;
        let objects: Vec<Value> = commands
            .iter()
            .map(|command| schema_of(command, &options.name_key))
            .collect();
        // Compact, so that there is one way to write a command.
        let schema = json!({ "x-guidance": { "whitespace_flexible": false }, "anyOf": objects });
        let listed: Vec<String> = commands.iter().map(line_of).collect();
        let longest = |command: &Command| longest_bytes(command, &options.name_key);
        let with_list = |text: &str| text.replace("{commands}", &listed.join("\n"));
        Ok(CommandGrammar {
            instructions: Some(with_list(&options.instructions)).filter(|text| !text.is_empty()),
            prompt: with_list(&options.prompt),
            grammar: Grammar::json_schema(&schema, limits)?.with_confidence(),
            name_key: options.name_key.clone(),
            min_confidence: options.min_confidence,
            longest_bytes: commands.iter().map(longest).max().unwrap_or(0),
        })
    }

    /// What stands before everything else.
    pub fn instructions(&self) -> Option<&str> {
        self.instructions.as_deref()
    }

    /// What stands behind a clip: the prompt of [`super::Engine::start_speech`].
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The user's message where the speech is known as text.
    pub fn prompt_for(&self, transcript: &str) -> String {
        format!("{transcript}\n{}", self.prompt)
    }

    /// How the answer is chosen: the likeliest command.
    pub fn generation(&self) -> Generation {
        Generation {
            sampling: Sampling::GREEDY,
            seed: 0,
            // A token has at least one byte.
            max_tokens: self.longest_bytes,
            stop: Vec::new(),
            grammar: Some(self.grammar.clone()),
            tools: None,
        }
    }

    /// What an answer to [`CommandGrammar::generation`] says.
    pub fn read(&self, answer: &Answer) -> Understanding {
        let confidence = answer.grammar_confidence.unwrap_or(0.0);
        let not_understood = |reason: String| Understanding::NotUnderstood { confidence, reason };
        if answer.finish != FinishReason::Stop {
            return not_understood(format!("the answer ended early: {:?}", answer.finish));
        }
        let Ok(mut slots) = serde_json::from_str::<Map<String, Value>>(&answer.text) else {
            return not_understood("the answer is no JSON object".to_owned());
        };
        let Some(Value::String(name)) = slots.shift_remove(&self.name_key) else {
            return not_understood(format!("the answer has no {:?}", self.name_key));
        };
        if confidence < self.min_confidence {
            return not_understood(format!(
                "no command fits: the nearest, {name:?}, has confidence {confidence:.2}, and \
                 commands.min_confidence is {}",
                self.min_confidence
            ));
        }
        let call = CommandCall { name, slots };
        Understanding::Command { call, confidence }
    }
}

fn wrong(place: String, reason: String) -> CommandError {
    CommandError::Value { place, reason }
}

fn check_options(options: &Commands) -> Result<(), CommandError> {
    if options.name_key.is_empty() {
        let reason = "is empty; it is the key of the command's name in the model's JSON";
        return Err(wrong("commands.name_key".to_owned(), reason.to_owned()));
    }
    if !(0.0..=1.0).contains(&options.min_confidence) {
        let reason = format!("is {}; expected 0 to 1", options.min_confidence);
        return Err(wrong("commands.min_confidence".to_owned(), reason));
    }
    Ok(())
}

fn check_commands(commands: &[Command], name_key: &str) -> Result<(), CommandError> {
    if commands.is_empty() {
        return Err(wrong("command".to_owned(), "there is none".to_owned()));
    }
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
pub fn phrases(commands: &[Command]) -> Vec<String> {
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

fn schema_of(command: &Command, name_key: &str) -> Value {
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
fn line_of(command: &Command) -> String {
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
fn longest_bytes(command: &Command, name_key: &str) -> usize {
    let quoted = |text: &str| json!(text).to_string().len();
    // `{"key":"name"}`, and `,"slot":value` for each slot.
    let name = quoted(name_key) + quoted(&command.name) + "{:}".len();
    let slots = command.slots.iter().map(|slot| {
        let values = slot.values.iter().map(|v| json_of(v).to_string().len());
        quoted(&slot.name) + values.max().unwrap_or(0) + ",:".len()
    });
    name + slots.sum::<usize>()
}
