//! The audio tower: log-mel frames to soft tokens, while they arrive.
//!
//! ```text
//! log-mel frames, 100 a second → subsample_conv → 25 frames a second → conformer blocks → every 4th frame → embed_audio
//! ```
//!
//! Only the two convolutions at the start look ahead, by 60 ms. Everything after looks back a bounded number of frames. So a
//! frame whose input is complete never changes, and a clip is encoded by the same code whether it comes at once or in pieces.
//! Frames are gathered into batches, for every batch reads all the weights once.

mod cumulative_group_norm;
mod subsample_conv;

use std::sync::Arc;

use kernels::Pool;

pub use subsample_conv::{SubsampleConv, SubsampleState};

use super::config::AudioConfig;
use super::multimodal_embedder::{EmbedderShape, MultimodalEmbedder};
use crate::media::{LogMelSpec, MelFloor};
use crate::model::conformer::{BlockNames, BlockState, ConformerBlock, Scratch, Shape, Step};
use crate::model::encoder::{AudioEncoder, AudioError, ClipEncoder};
use crate::model::weights::{Checkpoint, Group, Mapped};

/// The weights of the audio tower and of `embed_audio`, mapped as long as this lives.
///
/// Source: `Gemma3nAudioEncoder`, `Gemma3nMultimodalEmbedder`.
#[derive(Debug)]
pub struct AudioTower {
    weights: Arc<Mapped>,
    config: AudioConfig,
    subsample: SubsampleConv,
    blocks: Vec<ConformerBlock>,
    embedder: MultimodalEmbedder,
    pad_embedding: Vec<f32>,
}

/// How a clip is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeOptions {
    /// 40 ms frames that are gathered before they are encoded: more read the weights less often, fewer give tokens sooner.
    pub batch_frames: usize,
    /// Log-mel frames of the clip; those after are padding, as in a batch of clips of unequal length. None: all are the clip's.
    pub valid_frames: Option<usize>,
}

impl Default for EncodeOptions {
    /// Half a second a batch: 12 frames, which are 3 soft tokens.
    fn default() -> EncodeOptions {
        EncodeOptions {
            batch_frames: 12,
            valid_frames: None,
        }
    }
}

/// What the encoder remembers of a clip: of bounded size, however long the clip.
#[derive(Clone, Debug)]
pub struct EncoderState {
    options: EncodeOptions,
    /// Log-mel frames that wait for a whole batch.
    log_mel: Vec<f32>,
    subsample: SubsampleState,
    blocks: Vec<BlockState>,
    /// 40 ms frames encoded so far.
    frames: usize,
    h: Vec<f32>,
    padded: Vec<bool>,
    scratch: Scratch,
}

/// Where the tensors of a conformer block are.
const BLOCK_NAMES: BlockNames = BlockNames {
    feed_forward_start: "ffw_layer_start",
    pre_attn_norm: "attention.pre_attn_norm",
    attn: "attention.attn",
    relative_positions: "attention.attn.relative_position_embedding.pos_proj",
    attn_out: "attention.post",
    post_attn_norm: "attention.post_norm",
    light_conv: "lconv1d",
    feed_forward_end: "ffw_layer_end",
    out_norm: "norm",
    matrix: ".weight",
};

/// More frames than any checkpoint lets a query see; it bounds what a config can make us allocate.
const MAX_CONTEXT_FRAMES: usize = 4096;

fn block_shape(config: &AudioConfig) -> Result<Shape, AudioError> {
    let context_frames = config.conf_attention_context_left;
    if context_frames > MAX_CONTEXT_FRAMES {
        return Err(AudioError::Config {
            key: "conf_attention_context_left",
            reason: format!("{context_frames} frames, expected at most {MAX_CONTEXT_FRAMES}"),
        });
    }
    Ok(Shape {
        width: config.hidden_size,
        heads: config.conf_num_attention_heads,
        context_frames,
        key_scale: 1.0,
        logit_cap: config.conf_attention_logit_cap,
        conv_kernel: config.conf_conv_kernel_size,
        feed_forward_weight: config.conf_residual_weight,
    })
}

impl AudioTower {
    /// Maps the audio group of `checkpoint` and finds every tensor in it.
    ///
    /// # Errors
    /// If the group is absent or damaged, or does not fit `config`.
    pub fn load(
        checkpoint: &Checkpoint,
        config: &AudioConfig,
        text_hidden_size: usize,
        pool: &Pool,
    ) -> Result<AudioTower, AudioError> {
        let weights = checkpoint.load(Group::Audio)?;
        let prefix = "model.audio_tower";
        let subsample = SubsampleConv::load(
            &weights,
            config,
            &format!("{prefix}.subsample_conv_projection"),
        )?;
        let shape = block_shape(config)?;
        let blocks = (0..config.conf_num_hidden_layers)
            .map(|i| {
                let prefix = format!("{prefix}.conformer.{i}");
                ConformerBlock::load(pool, &weights, &shape, &BLOCK_NAMES, &prefix)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let embedder = MultimodalEmbedder::load(
            &weights,
            EmbedderShape {
                prefix: "model.embed_audio",
                multimodal_hidden_size: config.hidden_size,
                text_hidden_size,
                vocab_size: config.vocab_size,
                vocab_offset: config.vocab_offset,
                rms_norm_eps: config.rms_norm_eps,
            },
        )?;
        let pad_id = u32::try_from(config.vocab_offset + config.vocab_size - 1).ok();
        let pad_embedding = pad_id
            .and_then(|id| embedder.hard(pool, &weights, id))
            .ok_or_else(|| AudioError::Config {
                key: "vocab_offset",
                reason: "the last audio id is no 32-bit number".into(),
            })?;
        Ok(AudioTower {
            weights,
            config: config.clone(),
            subsample,
            blocks,
            embedder,
            pad_embedding,
        })
    }

    /// The mapped weights.
    pub fn weights(&self) -> &Mapped {
        &self.weights
    }

    /// The row `[text_hidden_size]` that fills the unused places of a clip: the last audio id, through the hard path.
    pub fn pad_embedding(&self) -> &[f32] {
        &self.pad_embedding
    }

    /// The row `[text_hidden_size]` of an audio id that is not a soft token, such as `<end_of_audio>`; None for any other id.
    pub fn hard_embedding(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        self.embedder.hard(pool, &self.weights, id)
    }

    /// The sub-sampling convolutions.
    pub fn subsample(&self) -> &SubsampleConv {
        &self.subsample
    }

    /// The conformer blocks in order.
    pub fn blocks(&self) -> &[ConformerBlock] {
        &self.blocks
    }

    /// Width of the text model, and so of a soft token.
    pub fn text_hidden_size(&self) -> usize {
        self.embedder.text_hidden_size()
    }

    /// Who computes with what, for the parts of the tower.
    pub fn step<'a>(&'a self, pool: &'a Pool) -> Step<'a> {
        Step {
            pool,
            weights: &self.weights,
            width: self.config.hidden_size,
            eps: self.config.rms_norm_eps,
        }
    }

    /// The state at the start of a clip.
    pub fn start(&self, options: EncodeOptions) -> EncoderState {
        EncoderState {
            options: EncodeOptions {
                batch_frames: options.batch_frames.max(1),
                ..options
            },
            log_mel: Vec::new(),
            subsample: self.subsample.start(),
            blocks: self.blocks.iter().map(ConformerBlock::start).collect(),
            frames: 0,
            h: Vec::new(),
            padded: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Takes `log_mel` `[frames, feature_size]` and appends the encoder's output, `[tokens, hidden_size]`, to `encoded`, as far
    /// as whole batches have become final; with `end`, all that remains. Padding is appended as zeros.
    ///
    /// Returns, for each row appended, whether it is padding.
    pub fn encode(
        &self,
        pool: &Pool,
        state: &mut EncoderState,
        log_mel: &[f32],
        end: bool,
        encoded: &mut Vec<f32>,
    ) -> Vec<bool> {
        let batch =
            state.options.batch_frames * self.subsample.time_stride() * self.config.input_feat_size;
        state.log_mel.extend_from_slice(log_mel);
        let mut padded = Vec::new();
        let mut start = 0;
        while state.log_mel.len() - start >= batch {
            self.encode_batch(
                pool,
                state,
                start..start + batch,
                false,
                encoded,
                &mut padded,
            );
            start += batch;
        }
        if end {
            self.encode_batch(
                pool,
                state,
                start..state.log_mel.len(),
                true,
                encoded,
                &mut padded,
            );
            start = state.log_mel.len();
        }
        state.log_mel.drain(..start);
        padded
    }

    /// Appends the soft tokens `[tokens, text_hidden_size]` of the encoder's output `[tokens, hidden_size]`.
    pub fn embed(&self, pool: &Pool, encoded: &[f32], soft_tokens: &mut Vec<f32>) {
        self.embedder
            .soft(pool, &self.weights, encoded, soft_tokens);
    }

    fn encode_batch(
        &self,
        pool: &Pool,
        state: &mut EncoderState,
        log_mel: std::ops::Range<usize>,
        end: bool,
        encoded: &mut Vec<f32>,
        padded_out: &mut Vec<bool>,
    ) {
        let (width, step) = (self.config.hidden_size, self.step(pool));
        let EncoderState {
            h, padded, scratch, ..
        } = state;
        h.clear();
        self.subsample.push(
            pool,
            &self.weights,
            &mut state.subsample,
            &state.log_mel[log_mel],
            end,
            h,
        );
        let frames = h.len() / width;
        let first = state.frames;
        state.frames += frames;
        let valid = state.options.valid_frames.unwrap_or(usize::MAX);
        padded.clear();
        padded.extend((first..first + frames).map(|t| t * self.subsample.time_stride() >= valid));
        if frames == 0 {
            return;
        }
        for (i, (block, block_state)) in self.blocks.iter().zip(&mut state.blocks).enumerate() {
            block.mix(&step, block_state, scratch, padded, h);
            // Only every n-th frame leaves the tower, and what remains to be done treats each by itself.
            if i + 1 == self.blocks.len() {
                keep_every(self.config.conf_reduction_factor, first, width, h, padded);
            }
            block.finish(&step, scratch, h);
        }
        for (row, _) in h
            .chunks_exact_mut(width)
            .zip(padded.iter())
            .filter(|(_, padded)| **padded)
        {
            row.fill(0.0);
        }
        encoded.extend_from_slice(h);
        padded_out.extend_from_slice(padded);
    }
}

/// How sound is heard.
pub fn log_mel(config: &AudioConfig) -> LogMelSpec {
    LogMelSpec {
        bands: config.input_feat_size,
        window_samples: 512,
        hop_samples: 160,
        lead_samples: 0,
        fft_samples: 1024,
        pad_multiple_samples: 128,
        pre_emphasis: 0.97,
        min_frequency_hz: 125.0,
        max_frequency_hz: 7600.0,
        floor: MelFloor::Least(1e-5),
    }
}

impl AudioEncoder for AudioTower {
    fn log_mel(&self) -> LogMelSpec {
        log_mel(&self.config)
    }

    fn weights(&self) -> &Mapped {
        &self.weights
    }

    fn begin(self: Arc<Self>, batch_frames: usize) -> Box<dyn ClipEncoder> {
        let options = EncodeOptions {
            batch_frames,
            valid_frames: None,
        };
        Box::new(Clip {
            state: self.start(options),
            tower: self,
        })
    }

    fn padding_row(&self) -> Option<&[f32]> {
        Some(&self.pad_embedding)
    }

    fn embedding_of(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        self.hard_embedding(pool, id)
    }
}

/// A clip on its way.
#[derive(Clone)]
struct Clip {
    tower: Arc<AudioTower>,
    state: EncoderState,
}

impl ClipEncoder for Clip {
    fn push(
        &mut self,
        pool: &Pool,
        log_mel: &[f32],
        end: bool,
        soft_tokens: &mut Vec<f32>,
    ) -> usize {
        let mut encoded = Vec::new();
        let padded = self
            .tower
            .encode(pool, &mut self.state, log_mel, end, &mut encoded);
        self.tower.embed(pool, &encoded, soft_tokens);
        padded.len()
    }

    fn fork(&self) -> Box<dyn ClipEncoder> {
        Box::new(self.clone())
    }
}

/// Keeps the frames whose number, counted from `first`, is a multiple of `factor`.
fn keep_every(factor: usize, first: usize, width: usize, h: &mut Vec<f32>, padded: &mut Vec<bool>) {
    let mut kept = 0;
    for t in (0..padded.len()).filter(|t| (first + t).is_multiple_of(factor)) {
        h.copy_within(t * width..(t + 1) * width, kept * width);
        padded[kept] = padded[t];
        kept += 1;
    }
    h.truncate(kept * width);
    padded.truncate(kept);
}
