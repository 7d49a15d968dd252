//! A conformer block: two feed-forward halves around local attention and a light convolution.

use kernels::Pool;
use kernels::elementwise::scale_add;
use kernels::rms_norm::rms_norm_in_place;

use super::feed_forward::FeedForward;
use super::light_conv::LightConv;
use super::local_attention::{AttentionState, LocalAttention};
use super::{BlockNames, Scratch, Shape, Step};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::weights::{Mapped, WeightsError};

/// One block of the conformer. Frames are rows of `hidden_size`; `h` is the residual stream.
///
/// ```text
/// h += feed_forward_weight * feed_forward_start(h)
/// h += rms(attn_out(attn(rms(h; pre_attn_norm))); post_attn_norm)
/// h  = 0 where a frame is padding
/// h += light_conv(h)
/// h += feed_forward_weight * feed_forward_end(h)
/// h  = rms(h; out_norm)
/// ```
///
/// The reference clamps to ±`gradient_clipping` (1e10) in many places; f32 sums of normed values never come near, and the clamps
/// are left out.
///
/// Source: `Gemma3nAudioConformerBlock`, `Gemma4AudioLayer`.
#[derive(Debug)]
pub struct ConformerBlock {
    feed_forward_start: FeedForward,
    pre_attn_norm: Vec<f32>,
    attn: LocalAttention,
    attn_out: ClippedLinear,
    post_attn_norm: Vec<f32>,
    light_conv: LightConv,
    feed_forward_end: FeedForward,
    out_norm: Vec<f32>,
    feed_forward_weight: f32,
}

/// What a block remembers of a clip.
#[derive(Clone, Debug)]
pub struct BlockState {
    attention: AttentionState,
    /// The last `kernel_size - 1` gated frames of the light convolution.
    convolved: Vec<f32>,
}

impl ConformerBlock {
    /// Finds the tensors of one block in `weights`; `prefix` is what all their names begin with.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn load(
        pool: &Pool,
        weights: &Mapped,
        shape: &Shape,
        names: &BlockNames,
        prefix: &str,
    ) -> Result<ConformerBlock, WeightsError> {
        let width = shape.width;
        let name = |part: &str| format!("{prefix}.{part}");
        let vector = |part: &str| weights.vector(&format!("{prefix}.{part}.weight"), width);
        let feed_forward =
            |part: &str| FeedForward::load(weights, width, &name(part), names.matrix);
        Ok(ConformerBlock {
            feed_forward_start: feed_forward(names.feed_forward_start)?,
            pre_attn_norm: vector(names.pre_attn_norm)?,
            attn: LocalAttention::load(pool, weights, shape, names, prefix)?,
            attn_out: ClippedLinear::load(
                weights,
                &format!("{prefix}.{}{}", names.attn_out, names.matrix),
                width,
                width,
            )?,
            post_attn_norm: vector(names.post_attn_norm)?,
            light_conv: LightConv::load(weights, shape, &name(names.light_conv), names.matrix)?,
            feed_forward_end: feed_forward(names.feed_forward_end)?,
            out_norm: vector(names.out_norm)?,
            feed_forward_weight: shape.feed_forward_weight,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> BlockState {
        BlockState {
            attention: self.attn.start(),
            convolved: vec![0.0; (self.light_conv.kernel_size - 1) * self.out_norm.len()],
        }
    }

    /// The part that looks at other frames: up to and with the light convolution.
    ///
    /// `h` is `[padded.len(), hidden_size]`, the frames that follow those of the last call.
    pub fn mix(
        &self,
        step: &Step<'_>,
        state: &mut BlockState,
        scratch: &mut Scratch,
        padded: &[bool],
        h: &mut [f32],
    ) {
        let isa = step.pool.isa();
        self.feed_forward_start
            .add_to(step, scratch, self.feed_forward_weight, h);

        scratch.resize(h.len(), 0);
        step.norm_rows(h, &self.pre_attn_norm, &mut scratch.normed);
        self.attn.forward(
            step,
            &mut state.attention,
            &scratch.normed,
            padded,
            &mut scratch.out,
        );
        step.linear(self.attn_out, &scratch.out, &mut scratch.normed);
        for (h, out) in h
            .chunks_exact_mut(step.width)
            .zip(scratch.normed.chunks_exact_mut(step.width))
        {
            rms_norm_in_place(isa, out, Some(&self.post_attn_norm), step.eps);
            scale_add(isa, h, 1.0, out);
        }
        for (h, _) in h
            .chunks_exact_mut(step.width)
            .zip(padded)
            .filter(|(_, padded)| **padded)
        {
            h.fill(0.0);
        }
        self.light_conv
            .add_to(step, &mut state.convolved, scratch, h);
    }

    /// The rest, which treats each frame by itself: the second feed-forward half and the norm.
    pub fn finish(&self, step: &Step<'_>, scratch: &mut Scratch, h: &mut [f32]) {
        self.feed_forward_end
            .add_to(step, scratch, self.feed_forward_weight, h);
        for h in h.chunks_exact_mut(step.width) {
            rms_norm_in_place(step.pool.isa(), h, Some(&self.out_norm), step.eps);
        }
    }
}
