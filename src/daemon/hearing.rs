//! An utterance on its way through the model.

use crate::features::speech_check::SpeechCheck;
use crate::pipeline::{Answer, EngineError, Lessons, Speech};
use crate::report::{CommandCall, EventType, ReportTiming};

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
    pub(super) fn of(event_type: EventType, answer: Answer, timing: ReportTiming) -> Understood {
        Understood {
            event_type,
            text: None,
            commands: Vec::new(),
            confidence: None,
            reason: None,
            matformer: answer.matformer,
            timing,
        }
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
