//! An utterance on its way through the model.

use crate::features::speech_check::SpeechCheck;
use crate::pipeline::Speech;

/// What has been made of an utterance so far.
pub(super) struct Hearing {
    pub(super) speech: Speech,
    /// Whether somebody speaks in a client's sound at all; that of a microphone began with speech.
    pub(super) check: Option<SpeechCheck>,
    pub(super) samples: usize,
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
