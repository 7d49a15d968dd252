//! Samples to soft tokens, while they are being spoken.

use std::sync::Arc;

use kernels::Pool;
use serde::{Deserialize, Serialize};

use super::batches::FRAME_MS;
use crate::features::log_mel::LogMel;
use crate::features::speech_split::MAX_PIECE_SAMPLES;
use crate::media::SAMPLE_RATE_HZ;
use crate::model::encoder::{AudioEncoder, ClipEncoder};

/// What fills the places of a clip (`audio_soft_tokens_per_image`, 188) that its soft tokens do not; of no use where the family fills
/// none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftTokenPadding {
    /// The embedding of the last audio id, as the reference does: every clip then costs the same prefill.
    #[default]
    Reference,
    /// Nothing: a clip has only the soft tokens that were heard.
    None,
}

/// Why a clip gives no soft tokens.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum AudioStreamError {
    /// There is less than one frame.
    #[error(
        "cannot encode {samples} samples of audio: expected at least {least} ({:.1} ms at {SAMPLE_RATE_HZ} Hz)",
        *least as f64 * 1000.0 / f64::from(SAMPLE_RATE_HZ)
    )]
    TooShort {
        /// Samples that were pushed.
        samples: usize,
        /// Samples of one frame.
        least: usize,
    },
    /// The model hears 30 s at once.
    #[error(
        "cannot encode {samples} samples of audio as one clip: expected at most {MAX_PIECE_SAMPLES} ({} s at {SAMPLE_RATE_HZ} Hz); split it at a pause",
        MAX_PIECE_SAMPLES / SAMPLE_RATE_HZ as usize
    )]
    TooLong {
        /// Samples that would have been pushed.
        samples: usize,
    },
}

/// One clip of at most 30 s, encoded as it comes.
///
/// Soft tokens `[tokens, text width]` are the same for any split of the samples, up to rounding (1e-5). A token is given with the
/// batch that it is in, once it is final.
#[derive(Clone)]
pub struct AudioStream {
    log_mel: LogMel,
    /// Samples that make a first log-mel frame.
    least_samples: usize,
    encoder: Arc<dyn AudioEncoder>,
    clip: Box<dyn ClipEncoder>,
    batch_frames: usize,
    bands: usize,
    /// Log-mel frames of one of the encoder's.
    mel_frames: usize,
    /// Log-mel frames that wait for a whole batch.
    waiting: usize,
    samples: usize,
    tokens: usize,
    frames: Vec<f32>,
}

impl AudioStream {
    /// A clip of which nothing has been heard yet; `batch_frames` as in [`AudioEncoder::begin`].
    pub fn new(encoder: Arc<dyn AudioEncoder>, batch_frames: usize) -> AudioStream {
        let spec = encoder.log_mel();
        let frame_samples = FRAME_MS * SAMPLE_RATE_HZ as usize / 1000;
        AudioStream {
            log_mel: LogMel::new(spec),
            least_samples: spec.least_samples(),
            clip: Arc::clone(&encoder).begin(batch_frames),
            batch_frames: batch_frames.max(1),
            bands: spec.bands,
            mel_frames: frame_samples / spec.hop_samples,
            waiting: 0,
            encoder,
            samples: 0,
            tokens: 0,
            frames: Vec::new(),
        }
    }

    /// Hears 16 kHz mono `samples` and appends the soft tokens that have become final to `soft_tokens`. Returns how many batches
    /// were encoded.
    ///
    /// # Errors
    /// If the clip would be longer than 30 s; nothing of `samples` is then heard.
    pub fn push(
        &mut self,
        pool: &Pool,
        samples: &[f32],
        soft_tokens: &mut Vec<f32>,
    ) -> Result<usize, AudioStreamError> {
        let total = self.samples + samples.len();
        if total > MAX_PIECE_SAMPLES {
            return Err(AudioStreamError::TooLong { samples: total });
        }
        self.samples = total;
        self.frames.clear();
        self.log_mel.push(samples, &mut self.frames);
        self.tokens += self.clip.push(pool, &self.frames, false, soft_tokens);
        self.waiting += self.frames.len() / self.bands;
        let batch = self.batch_frames * self.mel_frames;
        let batches = self.waiting / batch;
        self.waiting %= batch;
        Ok(batches)
    }

    /// The encoder's frames that a batch has.
    pub fn batch_frames(&self) -> usize {
        self.batch_frames
    }

    /// The encoder's frames that are left to be encoded at the end.
    pub fn waiting_frames(&self) -> usize {
        self.waiting.div_ceil(self.mel_frames)
    }

    /// Ends the clip and appends the remaining soft tokens, then padding up to `padded_tokens` where the family pads. Returns how
    /// many tokens the clip has been given in all.
    ///
    /// # Errors
    /// If the clip is shorter than one frame.
    pub fn finish(
        mut self,
        pool: &Pool,
        padded_tokens: usize,
        soft_tokens: &mut Vec<f32>,
    ) -> Result<usize, AudioStreamError> {
        if self.samples < self.least_samples {
            return Err(AudioStreamError::TooShort {
                samples: self.samples,
                least: self.least_samples,
            });
        }
        self.frames.clear();
        self.log_mel.finish(&mut self.frames);
        self.tokens += self.clip.push(pool, &self.frames, true, soft_tokens);
        if let Some(row) = self.encoder.padding_row() {
            for _ in self.tokens..padded_tokens {
                soft_tokens.extend_from_slice(row);
            }
            self.tokens = self.tokens.max(padded_tokens);
        }
        Ok(self.tokens)
    }
}
