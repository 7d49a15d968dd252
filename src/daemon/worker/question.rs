//! Requests from outside: questions, attached pictures, attached audio.

use std::time::Instant;

use serde_json::json;

use super::{Task, engine_error};
use crate::features::speech_check::SpeechCheck;
use crate::pipeline::commands::Understanding;
use crate::pipeline::{Answer, Grammar, Media, Message, Part, Request};
use crate::report::{
    Action, Ask, Describe, ErrorBody, ErrorCode, JobState, Reply, ReportTiming, Request as Asked,
    Transcribe,
};

/// Why there is no text.
const NO_SPEECH: &str = "no speech was heard";
/// Why a question about sound is refused: a model answers as if it had heard something.
const NO_SPEECH_TO_ASK_ABOUT: &str = "no speech was heard in the attached audio; to ask about other sounds, set required = false in [speech] of gemmad.toml";

impl Task<'_> {
    pub(super) fn ask(&mut self, asked: &Asked, ask: &Ask) {
        let since = self.job.queued_at;
        self.tell(asked.update(JobState::Running, Ok(Reply::default())));
        let result = self.question(ask).and_then(|request| {
            let answer = match ask.stream {
                true => self.stream(&request, asked),
                false => self.answer(&request),
            };
            answer.map_err(|error| engine_error(&error))
        });
        self.conclude(asked, result, since);
    }

    /// The engine's request for a question.
    fn question(&mut self, ask: &Ask) -> Result<Request, ErrorBody> {
        let settings = std::sync::Arc::clone(&self.job.settings);
        let limits = &settings.config.limits;
        let mut user = Vec::new();
        if let Some(image) = &ask.image {
            let image = Media::image(&image.0, &limits.image).map_err(super::invalid_image)?;
            user.push(Part::Media(image));
        }
        if let Some(audio) = &ask.audio {
            let clip = Media::clip(&audio.0, &limits.audio).map_err(super::invalid_audio)?;
            if !self.holds_speech(&clip) {
                return Err(super::invalid_audio(NO_SPEECH_TO_ASK_ABOUT));
            }
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
            (Some(_), Some(_)) => {
                return Err(invalid(
                    &"schema and choices exclude each other: give one of them",
                ));
            }
            (Some(schema), None) => {
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
            conversation: ask.conversation.clone(),
            generation,
        })
    }

    pub(super) fn describe(&mut self, asked: &Asked, describe: &Describe) {
        let since = self.job.queued_at;
        self.tell(asked.update(JobState::Running, Ok(Reply::default())));
        let prompt = describe
            .prompt
            .clone()
            .unwrap_or_else(|| self.settings().config.tasks.describe.clone());
        let image = describe.image.as_ref().map_or(&[][..], |image| &image.0);
        let result = self.describe_picture(
            image,
            &prompt,
            describe.matformer.clone(),
            describe.max_tokens,
        );
        self.conclude(asked, result, since);
    }

    pub(super) fn transcribe(&mut self, asked: &Asked, transcribe: &Transcribe) {
        let since = self.job.queued_at;
        self.tell(asked.update(JobState::Running, Ok(Reply::default())));
        let audio = transcribe.audio.as_ref().map_or(&[][..], |audio| &audio.0);
        match Media::clip(audio, &self.settings().config.limits.audio) {
            Ok(clip) if !self.holds_speech(&clip) => self.nothing_said(asked, since),
            Ok(clip) => {
                let result = self.transcript(transcribe, clip);
                self.conclude(asked, result, since);
            }
            Err(error) => self.conclude(asked, Err(super::invalid_audio(error)), since),
        }
    }

    /// Whether somebody speaks in a clip.
    fn holds_speech(&self, clip: &Media) -> bool {
        match clip {
            Media::Clip(clip) => {
                SpeechCheck::holds_speech(&self.settings().config.speech, &clip.samples)
            }
            Media::Image(_) => true,
        }
    }

    fn transcript(
        &mut self,
        transcribe: &Transcribe,
        clip: Media,
    ) -> Result<Option<Answer>, ErrorBody> {
        let settings = std::sync::Arc::clone(&self.job.settings);
        let language = transcribe.language.as_deref().unwrap_or("English");
        let prompt = settings
            .config
            .tasks
            .transcribe(language)
            .map_err(|error| ErrorBody {
                code: ErrorCode::Failed,
                message: error.to_string(),
            })?;
        let limit = settings.max_tokens;
        let max_tokens = transcribe
            .max_tokens
            .map_or(limit, |asked| asked.min(limit));
        let request = Request {
            messages: Message::user(vec![Part::Media(clip), Part::Text(prompt)]),
            matformer: transcribe
                .matformer
                .clone()
                .or_else(|| settings.matformer.clone()),
            conversation: None,
            generation: self.engine.most_likely(max_tokens),
        };
        self.answer(&request).map_err(|error| engine_error(&error))
    }

    /// Which command a sentence is, told in the reply's details.
    pub(super) fn recognize(&mut self, asked: &Asked, text: &str) {
        let since = self.job.queued_at;
        let settings = std::sync::Arc::clone(&self.job.settings);
        let Some(commands) = &settings.commands else {
            let error = ErrorBody {
                code: ErrorCode::NotFound,
                message: "no command is configured: add [[command]] to gemmad.toml".to_owned(),
            };
            self.answered(asked, None, Some(error), ReportTiming::default());
            return;
        };
        let request = Request {
            messages: Message::with_instructions(
                commands.instructions().map(str::to_owned),
                vec![Part::Text(commands.prompt_for(text))],
            ),
            matformer: settings.matformer.clone(),
            conversation: None,
            generation: commands.generation(),
        };
        match self.answer(&request) {
            Ok(Some(answer)) => {
                let timing = self.timing(&answer.timing, since);
                let details = match commands.read(&answer) {
                    Understanding::Command { call, confidence } => json!({
                        "command": { "name": call.name, "slots": call.slots },
                        "confidence": confidence,
                    }),
                    Understanding::NotUnderstood { confidence, reason } => {
                        json!({ "reason": reason, "confidence": confidence })
                    }
                };
                let reply = Reply {
                    matformer: Some(answer.matformer),
                    timing: Some(timing),
                    details: details.as_object().cloned().unwrap_or_default(),
                    ..Reply::default()
                };
                self.tell(asked.update(JobState::Done, Ok(reply)));
            }
            result => self.conclude(asked, result.map_err(|e| engine_error(&e)), since),
        }
    }

    /// Tells the asker that there is no text, since nobody spoke.
    pub(super) fn nothing_said(&self, asked: &Asked, since: Instant) {
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
        self.tell(asked.update(JobState::Done, Ok(reply)));
    }

    pub(super) fn conclude(
        &mut self,
        asked: &Asked,
        result: Result<Option<Answer>, ErrorBody>,
        since: Instant,
    ) {
        let (answer, error) = match result {
            Ok(None) => (None, Some(self.broken_off())),
            Ok(answer) => (answer, None),
            Err(error) => (None, Some(error)),
        };
        let timing = answer
            .as_ref()
            .map_or_else(ReportTiming::default, |answer| {
                self.timing(&answer.timing, since)
            });
        self.answered(asked, answer, error, timing);
    }

    /// Tells the asker how it ended.
    pub(super) fn answered(
        &self,
        asked: &Asked,
        answer: Option<Answer>,
        error: Option<ErrorBody>,
        timing: ReportTiming,
    ) {
        let report = match (answer, error) {
            (Some(answer), _) => asked.update(
                JobState::Done,
                Ok(Reply {
                    text: Some(answer.text),
                    finish: Some(answer.finish.name().to_owned()),
                    conversation: match &asked.action {
                        Action::Ask(ask) => ask.conversation.clone(),
                        _ => None,
                    },
                    resumed: answer.resumed,
                    matformer: Some(answer.matformer),
                    timing: Some(timing),
                    details: Default::default(),
                }),
            ),
            (None, error) => {
                let error = error.unwrap_or_else(|| self.job.too_late());
                let state = match error.code {
                    ErrorCode::Cancelled => JobState::Cancelled,
                    _ => JobState::Failed,
                };
                asked.update(state, Err(error))
            }
        };
        self.tell(report);
    }
}
