//! How long nobody has spoken any more, in sound that comes while it is spoken: whoever hears it knows from that when the speaker is done.

use super::speech_detect::{FRAME_SAMPLES, SETTLING_FRAMES, SpeechDetector};

/// Samples that the detector hears before it is believed.
const SETTLING_SAMPLES: usize = SETTLING_FRAMES as usize * FRAME_SAMPLES;

/// Listens to 16 kHz mono sound as it comes.
///
/// As [`SpeechCheck`](super::speech_check::SpeechCheck), it is settled on the beginning of the sound itself: the first word may be its
/// first sample.
pub struct SpeechTurn {
    detector: SpeechDetector,
    /// The beginning until the detector is settled, then less than a frame.
    pending: Vec<f32>,
    settled: bool,
    spoke: bool,
    /// Samples since speech, or since the beginning where nobody has spoken yet.
    silence: usize,
}

impl SpeechTurn {
    /// At the start of a stretch of sound; `threshold` is the probability from which a frame is likely speech, 0 to 1.
    pub fn new(threshold: f32) -> SpeechTurn {
        SpeechTurn {
            detector: SpeechDetector::new(threshold),
            pending: Vec::with_capacity(SETTLING_SAMPLES),
            settled: false,
            spoke: false,
            silence: 0,
        }
    }

    /// Hears the next samples; whether there is speech among what was judged of them. How the sound is cut into pieces makes no
    /// difference.
    pub fn push(&mut self, samples: &[f32]) -> bool {
        self.pending.extend_from_slice(samples);
        if !self.settled {
            if self.pending.len() < SETTLING_SAMPLES {
                return false;
            }
            self.settled = true;
            self.detector.settle_on(&self.pending[..SETTLING_SAMPLES]);
        }
        let mut speech = false;
        let frames = self.pending.chunks_exact(FRAME_SAMPLES);
        let rest = frames.remainder().to_vec();
        for frame in frames {
            let likely = self.detector.is_likely(frame);
            self.silence += FRAME_SAMPLES;
            if likely && self.detector.speaking().is_some() {
                (speech, self.spoke, self.silence) = (true, true, 0);
            }
        }
        self.pending = rest;
        speech
    }

    /// Whether anybody has spoken.
    pub fn spoke(&self) -> bool {
        self.spoke
    }

    /// Samples since the last that was speech; since the beginning where nobody has spoken yet.
    pub fn silence(&self) -> usize {
        self.silence
    }
}
