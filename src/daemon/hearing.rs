//! An utterance on its way through the model.

use serde_json::{Map, Value, json};

use crate::features::speech_check::SpeechCheck;
use crate::pipeline::commands::Understanding;
use crate::pipeline::{Answer, EngineError, Lessons, Speech};
use crate::report::{CommandCall, EventType, ReportTiming};

/// What a reply's details call the probability of the commands.
const CONFIDENCE: &str = "confidence";

/// What a sentence was taken for, as a reply's details tell it.
pub(super) fn details(read: Understanding) -> Map<String, Value> {
    let (key, value, confidence) = match read {
        Understanding::Commands { calls, confidence } => ("commands", json!(calls), confidence),
        Understanding::NotUnderstood { confidence, reason } => {
            ("reason", json!(reason), confidence)
        }
    };
    let mut details = told(Some(confidence));
    details.insert(key.to_owned(), value);
    details
}

/// How probable the commands were, as a reply's details tell it where it is asked.
pub(super) fn told(confidence: Option<f32>) -> Map<String, Value> {
    let told = confidence.map(|confidence| (CONFIDENCE.to_owned(), confidence.into()));
    told.into_iter().collect()
}

/// The same, read.
pub(super) fn confidence(details: &Map<String, Value>) -> Option<f32> {
    details
        .get(CONFIDENCE)?
        .as_f64()
        .map(|confidence| confidence as f32)
}

/// What has been made of an utterance so far.
pub(super) struct Hearing {
    pub(super) speech: Speech,
    /// Whether somebody speaks in a client's sound at all; that of a microphone began with speech.
    pub(super) check: Option<SpeechCheck>,
    pub(super) samples: usize,
    /// What it comes to where nobody goes on.
    pub(super) early: Option<Early>,
}

/// The answer to an utterance that has paused, as if it had ended.
pub(super) struct Early {
    /// Samples that were heard for it and are not taken: where it goes on, they are heard with what follows.
    pub(super) rest: usize,
    pub(super) outcome: Result<Outcome, EngineError>,
    /// What it teaches where it counts.
    pub(super) lessons: Lessons,
}

/// What comes of an utterance.
pub(super) enum Outcome {
    /// A client's: its words.
    Answered(Box<Answer>),
    /// Somebody's at a microphone: what it means there.
    Understood(Box<Understood>),
}

/// What an utterance at a microphone means.
pub(super) struct Understood {
    pub(super) event_type: EventType,
    pub(super) text: Option<String>,
    pub(super) commands: Vec<CommandCall>,
    pub(super) confidence: Option<f32>,
    pub(super) reason: Option<String>,
    pub(super) matformer: String,
    /// Its latency is known when it is told.
    pub(super) timing: ReportTiming,
}

impl Understood {
    /// Nothing but that an answer came.
    pub(super) fn of(event_type: EventType, slice: String, timing: ReportTiming) -> Understood {
        Understood {
            event_type,
            text: None,
            commands: Vec::new(),
            confidence: None,
            reason: None,
            matformer: slice,
            timing,
        }
    }

    /// The commands that it was taken for, by the slice of that name; `text` is what was heard, where it was written down first.
    pub(super) fn taken_for(
        read: Understanding,
        text: Option<String>,
        slice: String,
        timing: ReportTiming,
    ) -> Understood {
        let mut understood = Understood::of(EventType::NotUnderstood, slice, timing);
        understood.text = text;
        match read {
            Understanding::Commands { calls, confidence } => {
                understood.event_type = EventType::Command;
                understood.commands = calls;
                understood.confidence = Some(confidence);
            }
            Understanding::NotUnderstood { confidence, reason } => {
                understood.confidence = Some(confidence);
                understood.reason = Some(reason);
            }
        }
        understood
    }

    /// It was not worked on, or not meant for the board.
    pub(super) fn rejected(reason: String, slice: String, timing: ReportTiming) -> Understood {
        Understood {
            reason: Some(reason),
            ..Understood::of(EventType::Rejected, slice, timing)
        }
    }
}

/// What the second of two answers took, with the first.
pub(super) fn both(first: &ReportTiming, second: ReportTiming) -> ReportTiming {
    ReportTiming {
        load_ms: first.load_ms + second.load_ms,
        encode_ms: first.encode_ms + second.encode_ms,
        prefill_ms: first.prefill_ms + second.prefill_ms,
        decode_ms: first.decode_ms + second.decode_ms,
        prompt_tokens: first.prompt_tokens + second.prompt_tokens,
        tokens: first.tokens + second.tokens,
        passes: first.passes + second.passes,
        ..second
    }
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hearing({} samples)", self.samples)
    }
}

impl Hearing {
    /// Samples heard.
    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.speech.bytes()
    }
}
