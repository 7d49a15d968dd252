//! The audio tower: log-mel frames to soft tokens, while they arrive.
//!
//! ```text
//! log-mel frames, 100 a second → subsample_conv → 25 frames a second → conformer blocks → output_proj → embed_audio
//! ```
//!
//! Only the two convolutions at the start look ahead, by three log-mel frames. Everything after looks back a bounded number of frames.
//! So a frame is final 40 ms after its start, and a clip is encoded by the same code whether it comes at once or in pieces: of `N`
//! samples, `floor((N - 1) / 640)` tokens are final, and the end of the clip gives one more at most (reference section 4.7). Frames are
//! gathered into batches, for every batch reads all the weights once. There is no padding: a clip has the tokens that were heard.

mod subsample_conv;

use std::f64::consts::{E, LN_2};
use std::sync::Arc;

use kernels::elementwise::add;
use kernels::{Pool, matmul};

pub use subsample_conv::{SubsampleConv, SubsampleState};

use self::subsample_conv::FRAMES_OF_MEL;
use super::config::AudioConfig;
use super::multimodal_embedder::MultimodalEmbedder;
use crate::media::{LogMelSpec, MelFloor};
use crate::model::conformer::{BlockNames, BlockState, ConformerBlock, Scratch, Shape, Step};
use crate::model::encoder::{AudioEncoder, AudioError, ClipEncoder};
use crate::model::weights::{Checkpoint, Group, Mapped, Tensor};

/// How sound is heard (reference section 4.1).
pub const LOG_MEL: LogMelSpec = LogMelSpec {
    bands: 128,
    window_samples: 320,
    hop_samples: 160,
    lead_samples: 160,
    fft_samples: 512,
    // The reference's padding makes no frame valid.
    pad_multiple_samples: 1,
    pre_emphasis: 0.0,
    min_frequency_hz: 0.0,
    max_frequency_hz: 8000.0,
    floor: MelFloor::Added(1e-3),
};

/// Where the tensors of a conformer block are.
const BLOCK_NAMES: BlockNames = BlockNames {
    feed_forward_start: "feed_forward1",
    pre_attn_norm: "norm_pre_attn",
    attn: "self_attn",
    relative_positions: "self_attn.relative_k_proj",
    attn_out: "self_attn.post",
    post_attn_norm: "norm_post_attn",
    light_conv: "lconv1d",
    feed_forward_end: "feed_forward2",
    out_norm: "norm_out",
    matrix: ".linear.weight",
};

/// The weights of the audio tower and of `embed_audio`, mapped as long as this lives.
///
/// Source: `Gemma4AudioModel`, `Gemma4MultimodalEmbedder`.
#[derive(Debug)]
pub struct AudioTower {
    weights: Arc<Mapped>,
    config: AudioConfig,
    subsample: SubsampleConv,
    blocks: Vec<ConformerBlock>,
    output_proj: Tensor,
    /// `[output_proj_dims]`
    output_bias: Vec<f32>,
    embedder: MultimodalEmbedder,
}

/// What the encoder remembers of a clip: of bounded size, however long the clip.
#[derive(Clone, Debug)]
pub struct EncoderState {
    batch_frames: usize,
    /// Log-mel frames that wait for a whole batch.
    log_mel: Vec<f32>,
    subsample: SubsampleState,
    blocks: Vec<BlockState>,
    h: Vec<f32>,
    scratch: Scratch,
}

/// A query sees `attention_context_left` frames, its own included: 13 in the released checkpoints, as in Google's own code and in
/// Gemma 3n. transformers, and so the reference's goldens, sees one less; a config.json that says 12 gives that (reference section 4.4).
fn block_shape(config: &AudioConfig) -> Shape {
    Shape {
        width: config.hidden_size,
        heads: config.num_attention_heads,
        context_frames: config.attention_context_left,
        // softplus(1) / ln 2
        key_scale: (E.ln_1p() / LN_2) as f32,
        logit_cap: config.attention_logit_cap,
        conv_kernel: config.conv_kernel_size,
        feed_forward_weight: config.residual_weight,
    }
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
            LOG_MEL.bands,
            &format!("{prefix}.subsample_conv_projection"),
        )?;
        let shape = block_shape(config);
        let blocks = (0..config.num_hidden_layers)
            .map(|i| {
                let prefix = format!("{prefix}.layers.{i}");
                ConformerBlock::load(pool, &weights, &shape, &BLOCK_NAMES, &prefix)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (width, out) = (config.hidden_size, config.output_proj_dims);
        let output_proj = weights.matrix(&format!("{prefix}.output_proj.weight"), out, width)?;
        let output_bias = weights.vector(&format!("{prefix}.output_proj.bias"), out)?;
        let embedder = MultimodalEmbedder::load(
            &weights,
            "model.embed_audio",
            out,
            text_hidden_size,
            config.rms_norm_eps,
        )?;
        Ok(AudioTower {
            weights,
            config: config.clone(),
            subsample,
            blocks,
            output_proj,
            output_bias,
            embedder,
        })
    }

    /// The mapped weights.
    pub fn weights(&self) -> &Mapped {
        &self.weights
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

    /// The state at the start of a clip, of which so many 40 ms frames are encoded together.
    pub fn start(&self, batch_frames: usize) -> EncoderState {
        EncoderState {
            batch_frames: batch_frames.max(1),
            log_mel: Vec::new(),
            subsample: self.subsample.start(),
            blocks: self.blocks.iter().map(ConformerBlock::start).collect(),
            h: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Takes `log_mel` `[frames, bands]` and appends the encoder's output, `[tokens, output_proj_dims]`, to `encoded`, as far as whole
    /// batches have become final; with `end`, all that remains.
    pub fn encode(
        &self,
        pool: &Pool,
        state: &mut EncoderState,
        log_mel: &[f32],
        end: bool,
        encoded: &mut Vec<f32>,
    ) {
        let batch = state.batch_frames * FRAMES_OF_MEL * LOG_MEL.bands;
        state.log_mel.extend_from_slice(log_mel);
        let mut waiting = std::mem::take(&mut state.log_mel);
        let whole = waiting.len() / batch * batch;
        for log_mel in waiting[..whole].chunks_exact(batch) {
            self.encode_batch(pool, state, log_mel, false, encoded);
        }
        waiting.drain(..whole);
        if end {
            self.encode_batch(pool, state, &waiting, true, encoded);
            waiting.clear();
        }
        state.log_mel = waiting;
    }

    fn encode_batch(
        &self,
        pool: &Pool,
        state: &mut EncoderState,
        log_mel: &[f32],
        end: bool,
        encoded: &mut Vec<f32>,
    ) {
        let EncoderState {
            subsample,
            blocks,
            h,
            scratch,
            ..
        } = state;
        h.clear();
        self.subsample
            .push(pool, &self.weights, subsample, log_mel, end, h);
        let frames = h.len() / self.config.hidden_size;
        if frames == 0 {
            return;
        }
        let (step, none_padded) = (self.step(pool), vec![false; frames]);
        for (block, state) in self.blocks.iter().zip(blocks) {
            block.mix(&step, state, scratch, &none_padded, h);
            block.finish(&step, scratch, h);
        }
        let (start, projection) = (encoded.len(), self.output_proj);
        encoded.resize(start + frames * projection.rows, 0.0);
        let out = &mut encoded[start..];
        matmul::matmul(pool, self.weights.view(projection), h, frames, out);
        for row in out.chunks_exact_mut(projection.rows) {
            add(pool.isa(), row, &self.output_bias);
        }
    }

    /// Appends the soft tokens `[tokens, text_hidden_size]` of the encoder's output `[tokens, output_proj_dims]`, which is normed in
    /// place.
    pub fn embed(&self, pool: &Pool, encoded: &mut [f32], soft_tokens: &mut Vec<f32>) {
        self.embedder
            .soft(pool, &self.weights, encoded, soft_tokens);
    }
}

impl AudioEncoder for AudioTower {
    fn log_mel(&self) -> LogMelSpec {
        LOG_MEL
    }

    fn weights(&self) -> &Mapped {
        &self.weights
    }

    fn begin(self: Arc<Self>, batch_frames: usize) -> Box<dyn ClipEncoder> {
        Box::new(Clip {
            state: self.start(batch_frames),
            tower: self,
        })
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
        self.tower
            .encode(pool, &mut self.state, log_mel, end, &mut encoded);
        self.tower.embed(pool, &mut encoded, soft_tokens);
        encoded.len() / self.tower.output_proj.rows
    }

    fn fork(&self) -> Box<dyn ClipEncoder> {
        Box::new(self.clone())
    }
}
