//! Samples to soft tokens, while they are being spoken.

use kernels::Pool;
use serde::Deserialize;

use crate::features::log_mel::{FRAME_SAMPLES, LogMel};
use crate::features::speech_split::MAX_PIECE_SAMPLES;
use crate::media::SAMPLE_RATE_HZ;
use crate::model::gemma3n::audio::{AudioTower, EncodeOptions, EncoderState};

/// What fills the places of a clip (`audio_soft_tokens_per_image`, 188) that its soft tokens do not.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
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
        "cannot encode {samples} samples of audio: expected at least {FRAME_SAMPLES} ({:.1} ms at {SAMPLE_RATE_HZ} Hz)",
        FRAME_SAMPLES as f64 * 1000.0 / f64::from(SAMPLE_RATE_HZ)
    )]
    TooShort {
        /// Samples that were pushed.
        samples: usize,
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
/// Soft tokens `[tokens, text_hidden_size]` are the same for any split of the samples, up to rounding (1e-5). Token `j` stands
/// for 160 ms and is final 92 ms after its start; it is given with the batch that it is in.
pub struct AudioStream {
    log_mel: LogMel,
    encoder: EncoderState,
    samples: usize,
    tokens: usize,
    frames: Vec<f32>,
}

impl AudioStream {
    /// A clip of which nothing has been heard yet; `batch_frames` as in [`EncodeOptions`].
    pub fn new(tower: &AudioTower, batch_frames: usize) -> AudioStream {
        AudioStream {
            log_mel: LogMel::new(tower.feature_size()),
            encoder: tower.start(EncodeOptions {
                batch_frames,
                valid_frames: None,
            }),
            samples: 0,
            tokens: 0,
            frames: Vec::new(),
        }
    }

    /// Hears 16 kHz mono `samples` and appends the soft tokens that have become final to `soft_tokens`.
    ///
    /// # Errors
    /// If the clip would be longer than 30 s; nothing of `samples` is then heard.
    pub fn push(
        &mut self,
        tower: &AudioTower,
        pool: &Pool,
        samples: &[f32],
        soft_tokens: &mut Vec<f32>,
    ) -> Result<(), AudioStreamError> {
        let total = self.samples + samples.len();
        if total > MAX_PIECE_SAMPLES {
            return Err(AudioStreamError::TooLong { samples: total });
        }
        self.samples = total;
        self.frames.clear();
        self.log_mel.push(samples, &mut self.frames);
        self.tokens += encode(
            tower,
            pool,
            &mut self.encoder,
            &self.frames,
            false,
            soft_tokens,
        );
        Ok(())
    }

    /// Ends the clip and appends the remaining soft tokens, then, with [`SoftTokenPadding::Reference`], the padding up to
    /// `soft_tokens_per_clip`. Returns how many tokens the clip has been given in all.
    ///
    /// # Errors
    /// If the clip is shorter than one frame (32 ms).
    pub fn finish(
        mut self,
        tower: &AudioTower,
        pool: &Pool,
        padding: SoftTokenPadding,
        soft_tokens_per_clip: usize,
        soft_tokens: &mut Vec<f32>,
    ) -> Result<usize, AudioStreamError> {
        if self.samples < FRAME_SAMPLES {
            return Err(AudioStreamError::TooShort {
                samples: self.samples,
            });
        }
        self.frames.clear();
        self.log_mel.finish(&mut self.frames);
        self.tokens += encode(
            tower,
            pool,
            &mut self.encoder,
            &self.frames,
            true,
            soft_tokens,
        );
        if padding == SoftTokenPadding::Reference {
            for _ in self.tokens..soft_tokens_per_clip {
                soft_tokens.extend_from_slice(tower.pad_embedding());
            }
            self.tokens = self.tokens.max(soft_tokens_per_clip);
        }
        Ok(self.tokens)
    }
}

/// Appends the soft tokens that `frames` complete and returns how many they are.
fn encode(
    tower: &AudioTower,
    pool: &Pool,
    encoder: &mut EncoderState,
    frames: &[f32],
    end: bool,
    soft_tokens: &mut Vec<f32>,
) -> usize {
    let mut encoded = Vec::new();
    let padded = tower.encode(pool, encoder, frames, end, &mut encoded);
    tower.embed(pool, &encoded, soft_tokens);
    padded.len()
}
