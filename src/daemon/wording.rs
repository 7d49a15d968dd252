//! What a model is asked about speech, and about sentences that may be commands: by the worker or, where there is none, by another board.

use std::sync::Arc;

use super::job::{Speaker, Utterance};
use super::settings::Settings;
use crate::capture::options::VoiceAnswer;
use crate::pipeline::EngineError;
use crate::pipeline::commands::CommandGrammar;
use crate::publish::mqtt;
use crate::report::{Manner, Wording};

impl Settings {
    /// The commands that an utterance is taken for without being written down first.
    pub(super) fn straight(&self, utterance: &Utterance) -> Option<&Arc<CommandGrammar>> {
        let Speaker::Microphone(id) = &utterance.speaker else {
            return None;
        };
        let microphone = self.microphone(id)?;
        let commands = self.commands.as_ref();
        commands.filter(|_| microphone.answer == VoiceAnswer::Command)
    }

    /// What stands before and behind what is said.
    ///
    /// # Errors
    /// The prompt for transcripts has wrong places.
    pub(super) fn around(
        &self,
        utterance: &Utterance,
    ) -> Result<(Option<String>, String), EngineError> {
        if let Some(commands) = self.straight(utterance) {
            let here = match &utterance.speaker {
                Speaker::Microphone(id) => self.area_of_microphone(commands, id),
                Speaker::Client { .. } => None,
            };
            let instructions = commands.instructions().map(str::to_owned);
            return Ok((instructions, commands.prompt(here)));
        }
        let language = match &utterance.speaker {
            Speaker::Microphone(id) => self
                .microphone(id)
                .map_or("", |microphone| &microphone.language),
            Speaker::Client { manner, .. } => match manner {
                Manner::Written(language) => language,
                Manner::Worded(asked) => {
                    return Ok((asked.instructions.clone(), asked.prompt.clone()));
                }
            },
        };
        Ok((None, self.config.tasks.transcribe(language)?))
    }

    /// The area of whoever speaks at a microphone: that of its device at Home Assistant.
    pub(super) fn area_of_microphone<'c>(
        &self,
        commands: &'c CommandGrammar,
        id: &str,
    ) -> Option<&'c str> {
        commands.area_of(&[mqtt::device_of_microphone(&self.config.mqtt, id)])
    }

    /// What another board is asked about what is said.
    ///
    /// # Errors
    /// As of [`Settings::around`].
    pub(super) fn wording(&self, utterance: &Utterance) -> Result<Wording, EngineError> {
        let (instructions, prompt) = self.around(utterance)?;
        let commands = self.straight(utterance);
        Ok(Wording {
            instructions,
            prompt,
            commands: commands.and_then(|commands| commands.schema()),
            max_tokens: commands.map_or(self.max_tokens, |commands| commands.max_tokens()),
            // What a microphone hears began with speech.
            unsure: matches!(utterance.speaker, Speaker::Client { .. }),
        })
    }
}

/// What another board is asked about a sentence; `here` is the speaker's area.
pub(super) fn of_sentence(commands: &CommandGrammar, text: &str, here: Option<&str>) -> Wording {
    Wording {
        instructions: commands.instructions().map(str::to_owned),
        prompt: commands.prompt_for(text, here),
        commands: commands.schema(),
        max_tokens: commands.max_tokens(),
        unsure: false,
    }
}
