//! Whether there is speech in a stretch of sound at all: asked before a model is, which makes words of silence and noise, too.

use serde::Deserialize;

use super::speech_detect::{FRAME_SAMPLES, SETTLING_FRAMES, SpeechDetector};
use crate::media::{LONGEST_CLIP_S, SAMPLE_RATE_HZ};

/// `[speech]`: what counts as speech in sound that comes from elsewhere than the daemon's own microphones.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SpeechOptions {
    /// Sound without speech has no text, and the model is not asked for one.
    pub required: bool,
    /// Probability of speech from which a frame counts as speech, 0 to 1.
    pub threshold: f32,
    /// Shorter sounds are no speech, milliseconds.
    pub min_speech_ms: u32,
}

impl Default for SpeechOptions {
    fn default() -> SpeechOptions {
        SpeechOptions {
            required: true,
            threshold: 0.5,
            min_speech_ms: 100,
        }
    }
}

impl SpeechOptions {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        check_speech(self.threshold, self.min_speech_ms)
    }
}

/// Looks whether the values fit their keys that `[speech]` and `[microphone.speech]` have in common.
///
/// # Errors
/// The first that does not: which key, what stands there and what may.
pub fn check_speech(threshold: f32, min_speech_ms: u32) -> Result<(), String> {
    if !(threshold > 0.0 && threshold < 1.0) {
        return Err(format!(
            "speech.threshold is {threshold}; it must lie between 0 and 1"
        ));
    }
    let longest_ms = 1000 * LONGEST_CLIP_S;
    if min_speech_ms >= longest_ms {
        return Err(format!(
            "speech.min_speech_ms is {min_speech_ms}; it must be less than {longest_ms}, which is what the model hears at once"
        ));
    }
    Ok(())
}

/// The least that a model makes a frame of, 32 ms.
const SHORTEST_SAMPLES: usize = 513;

/// Samples that the detector hears before it is believed.
const SETTLING_SAMPLES: usize = SETTLING_FRAMES as usize * FRAME_SAMPLES;

/// Listens to 16 kHz mono sound, whole or as it comes, and tells whether somebody speaks in it.
///
/// Speech may begin with the first sample, where a microphone's detector is not yet to be believed. It is settled on the
/// beginning of the sound itself, backwards: noise is then as noisy before it as it is after.
pub struct SpeechCheck {
    required: bool,
    min_frames: u32,
    detector: SpeechDetector,
    /// The beginning until the detector is settled, then less than a frame.
    pending: Vec<f32>,
    settled: bool,
    found: bool,
    samples: usize,
}

impl SpeechCheck {
    /// A check at the start of a stretch of sound.
    pub fn new(options: &SpeechOptions) -> SpeechCheck {
        let frame_ms = FRAME_SAMPLES as u32 * 1000 / SAMPLE_RATE_HZ;
        SpeechCheck {
            required: options.required,
            min_frames: options.min_speech_ms.div_ceil(frame_ms).max(1),
            detector: SpeechDetector::new(options.threshold),
            pending: Vec::with_capacity(SETTLING_SAMPLES),
            settled: false,
            found: false,
            samples: 0,
        }
    }

    /// Whether there is speech in `samples`, 16 kHz mono, as a whole.
    pub fn holds_speech(options: &SpeechOptions, samples: &[f32]) -> bool {
        let mut check = SpeechCheck::new(options);
        check.push(samples);
        check.has_speech()
    }

    /// Listens to the next samples; how the sound is cut into pieces makes no difference.
    pub fn push(&mut self, mut samples: &[f32]) {
        self.samples += samples.len();
        while !samples.is_empty() && !self.found && self.required {
            let wanted = match self.settled {
                true => FRAME_SAMPLES,
                false => SETTLING_SAMPLES,
            };
            let room = wanted - self.pending.len();
            let (now, rest) = samples.split_at(room.min(samples.len()));
            self.pending.extend_from_slice(now);
            samples = rest;
            if self.pending.len() == wanted {
                self.judge();
            }
        }
    }

    /// Whether somebody spoke in what was pushed so far. Where speech is not required: whether it is long enough for the model to hear
    /// anything, [`SHORTEST_SAMPLES`].
    pub fn has_speech(&mut self) -> bool {
        if !self.settled {
            self.judge();
        }
        self.found || !self.required && self.samples >= SHORTEST_SAMPLES
    }

    /// Judges the frames that wait.
    fn judge(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !self.settled && !pending.is_empty() {
            self.settled = true;
            self.detector.settle_on(&pending);
        }
        let frames = pending.chunks_exact(FRAME_SAMPLES);
        let rest = frames.remainder().to_vec();
        for frame in frames {
            self.detector.is_likely(frame);
            let speaking = self.detector.speaking();
            self.found |= speaking.is_some_and(|now| now.voiced_frames >= self.min_frames);
        }
        self.pending = rest;
    }
}
