//! `[commands]` and `[homeassistant]`: how the model is asked for a command, and what it knows of the home.

use serde::Deserialize;

use super::CommandError;
use super::own::wrong;

/// More commands nobody gives in a sentence.
const MOST_COMMANDS: usize = 8;

/// `[homeassistant]`: built-in commands for what Home Assistant has.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HomeAssistant {
    /// Where the names of devices, areas and floors come from.
    pub names: NamesFrom,
    /// Entities that are known at most, 1 to 2000; every one makes the prompt longer.
    pub max_entities: usize,
    /// Said before the speech or its transcript, in the place of `commands.instructions`; `{commands}` becomes the list of commands,
    /// `{home}` that of the things at home.
    pub instructions: String,
    /// The prompt behind the speech or its transcript, in the place of `commands.prompt`.
    pub prompt: String,
}

/// `homeassistant.names`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NamesFrom {
    /// There are none.
    #[default]
    Off,
    /// A retained message on `BASE/NODE/names`.
    Mqtt,
}

impl Default for HomeAssistant {
    fn default() -> HomeAssistant {
        HomeAssistant {
            names: NamesFrom::Off,
            max_entities: 250,
            instructions: "You control a home. What can be commanded:\n{commands}\nWhat there is:\n{home}"
                .to_owned(),
            prompt: "Which command was that? Answer with one JSON object, or a list of them for several commands."
                .to_owned(),
        }
    }
}

impl HomeAssistant {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MOST_ENTITIES).contains(&self.max_entities) {
            return Err(format!(
                "homeassistant.max_entities is {}; expected 1 to {MOST_ENTITIES}",
                self.max_entities
            ));
        }
        Ok(())
    }
}

/// No prompt has room for more.
const MOST_ENTITIES: usize = 2000;

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
    /// Commands in one sentence at most, 1 to 8.
    pub most: usize,
    /// Least share of the model's probability that the listed commands must have at every token of an answer, 0 to 1; speech
    /// below it is `not_understood`. On the demo model's held-out clips it is 0.95 or more for commands that are configured, and
    /// at most 0.0003 for those that are not (`tests/pipeline/commands.rs`). A model that knows nothing but commands finds one in
    /// everything: there it is 0.8 and more even for chat.
    pub min_confidence: f32,
    /// Publish a command in the pause behind it, without waiting whether somebody goes on: what they say then is lost. Off unless told
    /// otherwise: "turn off the light" is a whole command before "in the kitchen" follows, and before "no, wait".
    pub publish_early: bool,
    /// Least confidence of a command that is published so, 0 to 1.
    pub early_confidence: f32,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            instructions: String::new(),
            prompt: "Which of these commands was that? Answer with one JSON object, or a list of them for several commands.\n{commands}"
                .to_owned(),
            name_key: "command".to_owned(),
            most: 4,
            min_confidence: 0.5,
            publish_early: false,
            early_confidence: 0.95,
        }
    }
}

pub(super) fn check_options(options: &Commands) -> Result<(), CommandError> {
    if options.name_key.is_empty() {
        let reason = "is empty; it is the key of the command's name in the model's JSON";
        return Err(wrong("commands.name_key".to_owned(), reason.to_owned()));
    }
    if !(1..=MOST_COMMANDS).contains(&options.most) {
        let reason = format!("is {}; expected 1 to {MOST_COMMANDS}", options.most);
        return Err(wrong("commands.most".to_owned(), reason));
    }
    for (key, confidence) in [
        ("min_confidence", options.min_confidence),
        ("early_confidence", options.early_confidence),
    ] {
        if !(0.0..=1.0).contains(&confidence) {
            let reason = format!("is {confidence}; expected 0 to 1");
            return Err(wrong(format!("commands.{key}"), reason));
        }
    }
    Ok(())
}
