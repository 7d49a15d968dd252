//! Requests from outside: questions, attached pictures, attached audio.

use std::time::Instant;

use serde_json::json;

use super::Task;
use crate::daemon::hearing;
use crate::daemon::job::NO_COMMAND;
use crate::features::speech_check::SpeechCheck;
use crate::pipeline::commands::generation_of;
use crate::pipeline::{
    Answer, EngineError, Generation, Grammar, Media, Message, Part, PictureOptions, Request,
};
use crate::report::{
    Ask, Attachment, ErrorBody, ErrorCode, Reply, ReportTiming, Transcribe, Wish, Wording,
};

/// Why there is no text.
const NO_SPEECH: &str = "no speech was heard";
/// Why a question about sound is refused: a model answers as if it had heard something.
const NO_SPEECH_TO_ASK_ABOUT: &str = "no speech was heard in the attached audio; to ask about other sounds, set required = false in [speech] of gemmad.toml";

impl Task<'_> {
    /// The engine's request for a question.
    pub(super) fn ask(&mut self, ask: &Ask) -> Result<Request, ErrorBody> {
        self.begun();
        let settings = std::sync::Arc::clone(&self.job.settings);
        let limits = &settings.config.limits;
        let mut user = Vec::new();
        if let Some(image) = &ask.image {
            let options = PictureOptions {
                soft_tokens: ask.soft_tokens,
                ..PictureOptions::default()
            };
            let image =
                Media::image(&image.0, &limits.image, options).map_err(super::invalid_image)?;
            user.push(Part::Media(image));
        }
        if let Some(audio) = &ask.audio {
            let clip = Media::clip(&audio.0, &limits.audio).map_err(super::invalid_audio)?;
            self.need_speech(&clip)?;
            user.push(Part::Media(clip));
        }
        user.push(Part::Text(ask.prompt.clone()));
        let limit = settings.max_tokens;
        let max_tokens = ask.max_tokens.map_or(limit, |asked| asked.min(limit));
        let mut generation = self.engine.default_generation(max_tokens);
        if let Some(temperature) = ask.temperature {
            generation.sampling.temperature = temperature;
        }
        if let Some(seed) = ask.seed {
            generation.seed = seed;
        }
        let invalid = |error: &dyn std::fmt::Display| ErrorBody {
            code: ErrorCode::Invalid,
            message: error.to_string(),
        };
        generation.grammar = match (&ask.schema, &ask.choices) {
            (Some(schema), _) => {
                Some(Grammar::json_schema(schema, &limits.grammar).map_err(|e| invalid(&e))?)
            }
            (None, Some(choices)) => {
                Some(Grammar::choices(choices, &limits.grammar).map_err(|e| invalid(&e))?)
            }
            (None, None) => None,
        };
        Ok(Request {
            messages: Message::with_instructions(ask.system.clone(), user),
            matformer: ask.matformer.clone().or_else(|| settings.matformer.clone()),
            thinking: ask.thinking,
            conversation: self.job.conversation(),
            generation,
        })
    }

    pub(super) fn describe(
        &mut self,
        image: &Attachment,
        wish: &Wish,
    ) -> Result<Request, ErrorBody> {
        self.begun();
        let usual = self.settings().config.tasks.describe.clone();
        self.picture(&image.0, &usual, None, wish)
    }

    /// The engine's request for attached audio; nothing where nobody speaks in it, which is told.
    pub(super) fn transcribe(
        &mut self,
        transcribe: &Transcribe,
    ) -> Option<Result<Request, ErrorBody>> {
        self.begun();
        let limits = &self.settings().config.limits.audio;
        let clip = Media::clip(&transcribe.audio.0, limits).map_err(super::invalid_audio);
        match clip {
            Ok(clip) if !self.holds_speech(&clip) => {
                self.nothing_said(self.job.queued_at);
                None
            }
            clip => Some(clip.and_then(|clip| self.transcript(transcribe, clip))),
        }
    }

    /// Nobody is asked about sound in which nobody speaks.
    pub(super) fn need_speech(&self, clip: &Media) -> Result<(), ErrorBody> {
        match self.holds_speech(clip) {
            true => Ok(()),
            false => Err(super::invalid_audio(NO_SPEECH_TO_ASK_ABOUT)),
        }
    }

    /// Whether somebody speaks in a clip.
    fn holds_speech(&self, clip: &Media) -> bool {
        match clip {
            Media::Clip(clip) => {
                SpeechCheck::holds_speech(&self.settings().config.speech, &clip.samples)
            }
            Media::Again(clip) => self.holds_speech(clip),
            Media::Image(..) => true,
        }
    }

    /// The engine's request for a sentence that may be a command.
    pub(super) fn recognize(&self, text: &str, speaker: &[String]) -> Result<Request, ErrorBody> {
        let settings = self.settings();
        let Some(commands) = &settings.commands else {
            return Err(ErrorBody::new(ErrorCode::NotFound, NO_COMMAND));
        };
        let here = commands.area_of(speaker);
        Ok(Request {
            messages: Message::with_instructions(
                commands.instructions().map(str::to_owned),
                vec![Part::Text(commands.prompt_for(text, here))],
            ),
            matformer: settings.matformer.clone(),
            thinking: None,
            conversation: None,
            generation: commands.generation(),
        })
    }

    /// The engine's request for a sentence that may be one of another board's commands.
    pub(super) fn worded(&self, wording: &Wording) -> Result<Request, ErrorBody> {
        let user = vec![Part::Text(wording.prompt.clone())];
        Ok(Request {
            messages: Message::with_instructions(wording.instructions.clone(), user),
            matformer: self.settings().matformer.clone(),
            thinking: None,
            conversation: None,
            generation: self
                .generation_of(wording)
                .map_err(|error| super::engine_error(&error))?,
        })
    }

    /// How the answer to what another board asks is chosen.
    pub(super) fn generation_of(&self, wording: &Wording) -> Result<Generation, EngineError> {
        let settings = self.settings();
        Ok(match &wording.commands {
            Some(schema) => {
                let limits = &settings.config.limits.grammar;
                generation_of(schema, wording.max_tokens, limits)?
            }
            None => {
                let most = wording.max_tokens.min(settings.max_tokens);
                self.engine.most_likely(most)
            }
        })
    }

    /// Which command a sentence is, told in the reply's details.
    pub(super) fn recognized(
        &self,
        speaker: &[String],
        answer: Result<Option<Answer>, ErrorBody>,
    ) -> Result<Reply, ErrorBody> {
        let since = self.job.queued_at;
        let (Some(commands), Ok(Some(answer))) = (&self.settings().commands, &answer) else {
            return self.reply(answer, since);
        };
        let read = commands.read(answer, commands.area_of(speaker));
        Ok(Reply {
            matformer: Some(answer.matformer.clone()),
            timing: Some(self.timing(&answer.timing, since)),
            details: hearing::details(read),
            ..Reply::default()
        })
    }

    /// Tells the asker that there is no text, since nobody spoke.
    pub(super) fn nothing_said(&self, since: Instant) {
        let latency_ms = since.elapsed().as_secs_f64() * 1e3;
        let reply = Reply {
            text: Some(String::new()),
            timing: Some(ReportTiming {
                queue_ms: self.queue_ms,
                latency_ms,
                ..ReportTiming::default()
            }),
            details: serde_json::Map::from_iter([("reason".to_owned(), json!(NO_SPEECH))]),
            ..Reply::default()
        };
        self.end(Ok(reply));
    }
}
