//! What may be commanded: `[[command]]`, and what Home Assistant calls the things at home, as a prompt and a grammar; and an answer back
//! as commands with their slots.
//!
//! | part | what |
//! | --- | --- |
//! | `own` | `[[command]]` |
//! | `home` `intents` `meaning` | the names of a home; the built-in commands, whose slots they are; what one of them means |
//! | `options` | `[commands]` and `[homeassistant]` |
//!
//! The model writes compact JSON, `{"<name_key>":"<name>","<slot>":<value>,…}`, slots in the configured order, or a list of such
//! objects where several commands were given. The grammar leaves it nothing else to write, so that speech about something else becomes some command too; what tells them apart is how
//! probable the model found the configured commands ([`super::Answer::grammar_confidence`]).

mod home;
mod intents;
mod meaning;
mod options;
mod own;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Answer, FinishReason, Generation};
use crate::model::grammar::{Grammar, GrammarError, GrammarLimits};
use crate::model::sampler::Sampling;
use crate::report::CommandCall;
use options::check_options;
use own::{check_commands, line_of, longest_bytes, schema_of, wrong};

pub use home::Home;
pub use intents::names as built_in;
pub use options::{Commands, HomeAssistant, NamesFrom};
pub use own::{Command, Slot, SlotValue};

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
    /// Commands, one at least.
    Commands {
        /// Their names and slots, in the order in which they were given.
        calls: Vec<CommandCall>,
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

/// The commands that there are, ready to ask for; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandGrammar {
    instructions: Option<String>,
    prompt: String,
    grammar: Grammar,
    name_key: String,
    min_confidence: f32,
    longest_bytes: usize,
    phrases: Vec<String>,
    home: Option<Arc<Home>>,
}

impl CommandGrammar {
    /// Makes the prompt and the grammar of `commands`, and of the built-in ones for a home.
    ///
    /// # Errors
    /// There is no command, one of a name or value is empty or stands twice, a number is out of its range, or all together are
    /// larger than `limits` allow.
    pub fn new(
        commands: &[Command],
        home: Option<(Arc<Home>, &HomeAssistant)>,
        options: &Commands,
        limits: &GrammarLimits,
    ) -> Result<CommandGrammar, CommandError> {
        check_options(options)?;
        check_commands(commands, &options.name_key)?;
        let name_key = &options.name_key;
        let mut objects: Vec<Value> = commands.iter().map(|c| schema_of(c, name_key)).collect();
        let mut defs = Map::new();
        let mut listed: Vec<String> = commands.iter().map(line_of).collect();
        let mut longest = commands
            .iter()
            .map(|c| longest_bytes(c, name_key))
            .max()
            .unwrap_or(0);
        let mut phrases = own::phrases(commands);
        let (mut instructions, mut prompt) = (options.instructions.clone(), options.prompt.clone());
        if let Some((home, texts)) = &home {
            check_key(commands, name_key)?;
            let (more, refer_to) = home.schemas(name_key);
            objects.extend(more);
            defs = refer_to;
            listed.extend(home.lines());
            phrases.extend(intents::names().map(str::to_owned));
            phrases.extend(home.all_names().cloned());
            longest = longest.max(home.longest_bytes() + name_key.len());
            instructions = texts.instructions.replace("{home}", &home.listed());
            prompt.clone_from(&texts.prompt);
        }
        if objects.is_empty() {
            return Err(wrong("command".to_owned(), "there is none".to_owned()));
        }
        let with_list = |text: &str| text.replace("{commands}", &listed.join("\n"));
        let grammar = Grammar::json_schema(&several(objects, defs, options.most), limits)?;
        Ok(CommandGrammar {
            instructions: Some(with_list(&instructions)).filter(|text| !text.is_empty()),
            prompt: with_list(&prompt),
            grammar: grammar.with_confidence(),
            name_key: name_key.clone(),
            min_confidence: options.min_confidence,
            longest_bytes: (longest + 1) * options.most + 1,
            phrases,
            home: home.map(|(home, _)| home),
        })
    }

    /// Words that are likely in what is said and in an answer: names of commands and of their slots, values, what things at home are called.
    pub fn phrases(&self) -> impl Iterator<Item = &str> {
        self.phrases.iter().map(String::as_str)
    }

    /// What stands before everything else.
    pub fn instructions(&self) -> Option<&str> {
        self.instructions.as_deref()
    }

    /// The area of whoever speaks, by ids of what hears them.
    pub fn area_of(&self, speaker: &[String]) -> Option<&str> {
        self.home.as_ref()?.area_of(speaker)
    }

    /// What stands behind a clip: the prompt of [`super::Engine::start_speech`]. `here` is the speaker's area.
    pub fn prompt(&self, here: Option<&str>) -> String {
        let here = here.filter(|_| self.home.is_some());
        let here = here.map(|area| format!("The speaker is in {}.\n", json!(area)));
        format!("{}{}", here.unwrap_or_default(), self.prompt)
    }

    /// The user's message where the speech is known as text.
    pub fn prompt_for(&self, transcript: &str, here: Option<&str>) -> String {
        format!("{transcript}\n{}", self.prompt(here))
    }

    /// How the answer is chosen: the likeliest command.
    pub fn generation(&self) -> Generation {
        likeliest(self.grammar.clone(), self.max_tokens())
    }

    /// The JSON schema that an answer fits.
    pub fn schema(&self) -> Option<Value> {
        self.grammar.schema()
    }

    /// Tokens of an answer at most: each has at least one byte.
    pub fn max_tokens(&self) -> usize {
        self.longest_bytes
    }

    /// What an answer to [`CommandGrammar::generation`] says; `here` is the speaker's area.
    pub fn read(&self, answer: &Answer, here: Option<&str>) -> Understanding {
        let (text, finish) = (&answer.text, answer.finish.name());
        self.understand(text, finish, answer.grammar_confidence, here)
    }

    /// The same of an answer whose parts are known: its text, the name of the reason why it ended, and how probable the commands were.
    pub fn understand(
        &self,
        text: &str,
        finish: &str,
        confidence: Option<f32>,
        here: Option<&str>,
    ) -> Understanding {
        let confidence = confidence.unwrap_or(0.0);
        let calls = match finish == FinishReason::Stop.name() {
            true => self.calls(text, confidence, here),
            false => Err(format!("the answer ended early: {finish}")),
        };
        match calls {
            Ok(calls) => Understanding::Commands { calls, confidence },
            Err(reason) => Understanding::NotUnderstood { confidence, reason },
        }
    }

    fn calls(
        &self,
        text: &str,
        confidence: f32,
        here: Option<&str>,
    ) -> Result<Vec<CommandCall>, String> {
        let objects = match serde_json::from_str(text) {
            Ok(Value::Array(objects)) => objects,
            Ok(object) => vec![object],
            Err(_) => Vec::new(),
        };
        let mut named = Vec::new();
        for object in objects {
            let Value::Object(mut slots) = object else {
                return Err("the answer is no JSON object".to_owned());
            };
            let Some(Value::String(name)) = slots.shift_remove(&self.name_key) else {
                return Err(format!("the answer has no {:?}", self.name_key));
            };
            named.push((name, slots));
        }
        let Some((first, _)) = named.first() else {
            return Err("the answer is no JSON object".to_owned());
        };
        if confidence < self.min_confidence {
            return Err(format!(
                "no command fits: the nearest, {first:?}, has confidence {confidence:.2}, and \
                 commands.min_confidence is {}",
                self.min_confidence
            ));
        }
        let call = |(name, slots)| match &self.home {
            Some(home) => home.call(name, slots, here),
            None => Ok(CommandCall {
                name,
                slots,
                entities: Vec::new(),
            }),
        };
        named.into_iter().map(call).collect()
    }
}

/// The likeliest commands of a schema that is a board's own ([`CommandGrammar::schema`]).
///
/// # Errors
/// The schema is larger than `limits` allow.
pub fn generation_of(
    schema: &Value,
    max_tokens: usize,
    limits: &GrammarLimits,
) -> Result<Generation, GrammarError> {
    let grammar = Grammar::json_schema(schema, limits)?;
    Ok(likeliest(grammar.with_confidence(), max_tokens))
}

fn likeliest(grammar: Grammar, max_tokens: usize) -> Generation {
    Generation {
        sampling: Sampling::GREEDY,
        seed: 0,
        max_tokens,
        stop: Vec::new(),
        grammar: Some(grammar),
        tools: None,
    }
}

/// A command, or a list of up to `most`; compact, so that there is one way to write them.
fn several(objects: Vec<Value>, mut defs: Map<String, Value>, most: usize) -> Value {
    let compact = json!({ "whitespace_flexible": false });
    let mut any = json!({ "anyOf": objects });
    if most > 1 {
        defs.insert("command".to_owned(), any);
        let one = json!({ "$ref": "#/$defs/command" });
        let list = json!({ "type": "array", "items": one, "minItems": 2, "maxItems": most });
        any = json!({ "anyOf": [one, list] });
    }
    any["x-guidance"] = compact;
    if !defs.is_empty() {
        any["$defs"] = Value::Object(defs);
    }
    any
}

/// Whether one's own commands, and the key of their names, leave the built-in ones theirs.
fn check_key(commands: &[Command], name_key: &str) -> Result<(), CommandError> {
    if intents::SLOTS.contains(&name_key) {
        let reason = format!(
            "is {name_key:?}, which is a slot of the built-in commands (homeassistant.names): name it otherwise"
        );
        return Err(wrong("commands.name_key".to_owned(), reason));
    }
    for (at, command) in (1..).zip(commands) {
        if intents::names().any(|name| name == command.name) {
            let reason = format!(
                "is {:?}, a built-in command (homeassistant.names): name it otherwise",
                command.name
            );
            return Err(wrong(format!("command[{at}].name"), reason));
        }
    }
    Ok(())
}
