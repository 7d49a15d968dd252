//! An utterance: encoded and prefilled while it is spoken, then answered as text, as a command, or as both.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{Outcome, Task};
use crate::config::{Microphone, Trigger, VoiceAnswer};
use crate::daemon::clock;
use crate::pipeline::commands::{CommandGrammar, Understanding};
use crate::pipeline::{Answer, EngineError, Request, Speech, UserPart};
use crate::report::{
    CommandCall, Dictation, EventType, Heard, Report, ReportTiming, Request as Asked, SCHEMA,
    SpeechFeed, VoiceEvent,
};

/// How long the worker waits for sound before it shows that it is still alive.
const FEED_WAIT: Duration = Duration::from_millis(100);

/// Samples a second of what the microphones give.
const SAMPLE_RATE_HZ: f64 = 16_000.0;

/// An utterance as far as it is known.
struct Utterance {
    samples: usize,
    truncated: bool,
    ended_at: Instant,
}

/// What came of it.
struct Understood {
    event_type: EventType,
    text: Option<String>,
    command: Option<CommandCall>,
    confidence: Option<f32>,
    reason: Option<String>,
    matformer: String,
    timing: ReportTiming,
}

impl Task<'_> {
    pub(super) fn speech(&mut self, microphone: &str, feed: &SpeechFeed) -> Outcome {
        let Some(config) = self.settings().microphone(microphone).cloned() else {
            return Outcome::Reported; // it was taken out of the configuration while somebody spoke
        };
        let mut utterance = Utterance {
            samples: 0,
            truncated: false,
            ended_at: Instant::now(),
        };
        let understood = match self.hear(&config, feed, &mut utterance) {
            Ok(None) => return Outcome::Reported,
            Ok(Some(understood)) => understood,
            // The daemon stops, and says so by itself.
            Err(EngineError::Cancelled) if !self.job.ticket.is_late() => return Outcome::Reported,
            Err(error) => {
                log::warn!(source = microphone; "cannot answer to speech: {error}");
                Understood {
                    event_type: EventType::Rejected,
                    text: None,
                    command: None,
                    confidence: None,
                    reason: Some(self.in_words(&error)),
                    matformer: self.settings().matformer.clone().unwrap_or_default(),
                    timing: ReportTiming::default(),
                }
            }
        };
        log::info!(
            source = microphone, job_id = self.job.id.as_str(), EVENT = understood.event_type.name();
            "heard {:.1} s of speech: {}", utterance.samples as f64 / SAMPLE_RATE_HZ, understood.event_type.name()
        );
        if self.settings().config.log.content {
            log::debug!(source = microphone; "heard: {:?} {:?}", understood.text, understood.command);
        }
        self.tell(Report::Voice(Box::new(VoiceEvent {
            schema: SCHEMA,
            id: self.job.id.clone(),
            event_type: understood.event_type,
            ts: clock::now(),
            clock_synced: clock::is_synced(),
            source: microphone.to_owned(),
            language: config.language.clone(),
            text: understood.text,
            command: understood.command,
            confidence: understood.confidence,
            audio_s: utterance.samples as f64 / SAMPLE_RATE_HZ,
            truncated: utterance.truncated,
            reason: understood.reason,
            model: self.model.to_owned(),
            matformer: understood.matformer,
            timing: understood.timing,
        })));
        Outcome::Reported
    }

    /// Speech of a client of the Wyoming server: its transcript.
    pub(super) fn dictate(&mut self, asked: &Asked, dictation: &Dictation) -> Outcome {
        let mut utterance = Utterance {
            samples: 0,
            truncated: false,
            ended_at: Instant::now(),
        };
        let result = self
            .written_down(dictation, &mut utterance)
            .or_else(|error| match error {
                EngineError::Cancelled => Ok(None),
                error => Err(super::engine_error(&error)),
            });
        log::info!(
            job_id = self.job.id.as_str();
            "heard {:.1} s of a client's speech", utterance.samples as f64 / SAMPLE_RATE_HZ
        );
        self.conclude(asked, result, utterance.ended_at)
    }

    fn written_down(
        &mut self,
        dictation: &Dictation,
        utterance: &mut Utterance,
    ) -> Result<Option<Answer>, EngineError> {
        let settings = std::sync::Arc::clone(&self.job.settings);
        let prompt = settings.config.tasks.transcribe(&dictation.language)?;
        let matformer = settings.matformer.as_deref();
        let Some(speech) = self.listen((None, &prompt), matformer, &dictation.feed, utterance)?
        else {
            // The client went, and waits for nothing.
            self.job.ticket.cancel();
            return Ok(None);
        };
        let patience = Duration::from_secs(settings.config.queue.deadline_s.into());
        self.job.ticket.set_deadline(utterance.ended_at + patience);
        let generation = self.engine.most_likely(settings.max_tokens);
        let mut on_text = |_: &str| ControlFlow::Continue(());
        super::whole(self.engine.finish_speech(speech, &generation, &mut on_text))
    }

    /// Encodes and prefills what is heard while it is spoken; `None` where it was no speech.
    fn listen(
        &mut self,
        (system, prompt): (Option<&str>, &str),
        matformer: Option<&str>,
        feed: &SpeechFeed,
        utterance: &mut Utterance,
    ) -> Result<Option<Speech>, EngineError> {
        let mut speech = self.engine.start_speech(system, prompt, matformer)?;
        loop {
            self.heartbeat.beat();
            if self.job.ticket.is_over() {
                return Err(EngineError::Cancelled);
            }
            match feed.next(FEED_WAIT) {
                Heard::Silence => {}
                Heard::Samples(samples) => {
                    utterance.samples += samples.len();
                    self.engine.hear(&mut speech, &samples)?;
                }
                Heard::Cancelled => return Ok(None),
                Heard::Ended {
                    truncated,
                    ended_at,
                } => {
                    utterance.truncated = truncated;
                    utterance.ended_at = ended_at;
                    return Ok(Some(speech));
                }
            }
        }
    }

    fn in_words(&self, error: &EngineError) -> String {
        match error {
            EngineError::Cancelled => super::timed_out().message,
            error => error.to_string(),
        }
    }

    /// `None` where it was no speech.
    fn hear(
        &mut self,
        config: &Microphone,
        feed: &SpeechFeed,
        utterance: &mut Utterance,
    ) -> Result<Option<Understood>, EngineError> {
        let settings = std::sync::Arc::clone(&self.job.settings);
        let commands = settings.commands.as_ref();
        let straight = commands.filter(|_| config.answer == VoiceAnswer::Command);
        let (system, prompt) = match straight {
            Some(commands) => (commands.instructions(), commands.prompt().to_owned()),
            None => (None, settings.config.tasks.transcribe(&config.language)?),
        };
        let matformer = settings.matformer.as_deref();
        let Some(speech) = self.listen((system, &prompt), matformer, feed, utterance)? else {
            return Ok(None);
        };
        let generation = match straight {
            Some(commands) => commands.generation(),
            None => self.engine.most_likely(settings.max_tokens),
        };
        let mut on_text = |_: &str| ControlFlow::Continue(());
        let answer = self.engine.finish_speech(speech, &generation, &mut on_text);
        let answer = super::whole(answer)?.ok_or(EngineError::Cancelled)?;
        let timing = self.timing(&answer.timing, utterance.ended_at);
        if let Some(commands) = straight {
            return Ok(Some(understood(commands, answer, None, timing)));
        }
        let heard = answer.text.trim().to_owned();
        let said = match config.trigger {
            Trigger::WakePhrase => match after_wake_phrase(&heard, &config.wake_phrases) {
                Some(rest) => rest.to_owned(),
                // What was not meant for the daemon is not published.
                None => {
                    let mut rejected = Understood::of(EventType::Rejected, answer, timing);
                    rejected.reason = Some("no wake phrase".to_owned());
                    return Ok(Some(rejected));
                }
            },
            Trigger::Voice | Trigger::PushToTalk => heard,
        };
        let Some(commands) = commands.filter(|_| config.answer == VoiceAnswer::Both) else {
            let mut transcript = Understood::of(EventType::Transcript, answer, timing);
            transcript.text = Some(said);
            return Ok(Some(transcript));
        };
        let request = Request {
            system: commands.instructions().map(str::to_owned),
            user: vec![UserPart::Text(commands.prompt_for(&said))],
            matformer: settings.matformer.clone(),
            conversation: None,
            generation: commands.generation(),
        };
        let second = self.answer(&request)?.ok_or(EngineError::Cancelled)?;
        let mut both = self.timing(&second.timing, utterance.ended_at);
        both.load_ms += timing.load_ms;
        both.encode_ms += timing.encode_ms;
        both.prefill_ms += timing.prefill_ms;
        both.decode_ms += timing.decode_ms;
        both.prompt_tokens += timing.prompt_tokens;
        both.tokens += timing.tokens;
        Ok(Some(understood(commands, second, Some(said), both)))
    }
}

/// The command that an answer is.
fn understood(
    commands: &CommandGrammar,
    answer: Answer,
    text: Option<String>,
    timing: ReportTiming,
) -> Understood {
    let read = commands.read(&answer);
    let mut understood = Understood::of(EventType::NotUnderstood, answer, timing);
    understood.text = text;
    match read {
        Understanding::Command { call, confidence } => {
            understood.event_type = EventType::Command;
            understood.command = Some(crate::report::CommandCall {
                name: call.name,
                slots: call.slots,
            });
            understood.confidence = Some(confidence);
        }
        Understanding::NotUnderstood { confidence, reason } => {
            understood.confidence = Some(confidence);
            understood.reason = Some(reason);
        }
    }
    understood
}

impl Understood {
    fn of(event_type: EventType, answer: Answer, timing: ReportTiming) -> Understood {
        Understood {
            event_type,
            text: None,
            command: None,
            confidence: None,
            reason: None,
            matformer: answer.matformer,
            timing,
        }
    }
}

/// What was said after one of the phrases; case and punctuation do not count. `None` where it begins with none of them.
fn after_wake_phrase<'a>(heard: &'a str, phrases: &[String]) -> Option<&'a str> {
    phrases
        .iter()
        .find_map(|phrase| after_phrase(heard, phrase))
}

fn after_phrase<'a>(heard: &'a str, phrase: &str) -> Option<&'a str> {
    let counts = |c: &char| c.is_alphanumeric();
    let mut wanted = phrase.chars().filter(counts).flat_map(char::to_lowercase);
    let mut next = wanted.next();
    for (at, c) in heard.char_indices() {
        if next.is_none() {
            // The phrase has ended; it counts only where its last word has, too.
            let rest = &heard[at..];
            return (!c.is_alphanumeric())
                .then(|| rest.trim_start_matches(|c: char| !c.is_alphanumeric()));
        }
        if !c.is_alphanumeric() {
            continue;
        }
        for lower in c.to_lowercase() {
            if next != Some(lower) {
                return None;
            }
            next = wanted.next();
        }
    }
    next.is_none().then_some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_phrases_are_compared_without_case_and_punctuation() {
        let phrases = ["hey house".to_owned(), "Computer".to_owned()];
        let rest = |heard| after_wake_phrase(heard, &phrases);
        assert_eq!(
            rest("Hey, House! Turn on the light."),
            Some("Turn on the light.")
        );
        assert_eq!(rest("computer, lights off"), Some("lights off"));
        assert_eq!(rest("Hey house"), Some(""));
        assert_eq!(rest("Computers are fun."), None);
        assert_eq!(rest("Turn on the light."), None);
        assert_eq!(rest("Hey"), None);
    }
}
