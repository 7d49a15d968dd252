//! A conformer block: two feed-forward halves around local attention and a light convolution.

use kernels::Pool;
use kernels::elementwise::{scale_add, sigmoid, silu};
use kernels::rms_norm::{rms_norm, rms_norm_in_place};

use super::local_attention::{AttentionState, LocalAttention};
use super::{AudioError, Step};
use crate::model::config::AudioConfig;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// One block of the conformer. Frames are rows of `hidden_size`; `h` is the residual stream.
///
/// ```text
/// h += residual_weight * ffw_layer_start(h)
/// h += rms(post(attn(rms(h; pre_attn_norm))); post_norm)
/// h  = 0 where a frame is padding
/// h += lconv1d(h)
/// h += residual_weight * ffw_layer_end(h)
/// h  = rms(h; norm)
/// ```
///
/// The reference clamps to ±`gradient_clipping` (1e10) in many places; f32 sums of normed values never come near, and the clamps
/// are left out.
///
/// Source: `Gemma3nAudioConformerBlock`.
#[derive(Debug)]
pub struct ConformerBlock {
    ffw_layer_start: FeedForward,
    pre_attn_norm: Vec<f32>,
    attn: LocalAttention,
    post: Tensor,
    post_norm: Vec<f32>,
    lconv1d: LightConv,
    ffw_layer_end: FeedForward,
    norm: Vec<f32>,
    residual_weight: f32,
}

/// What a block remembers of a clip.
#[derive(Debug)]
pub struct BlockState {
    attention: AttentionState,
    /// The last `kernel_size - 1` gated frames of the light convolution.
    convolved: Vec<f32>,
}

/// Buffers that every block uses in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    normed: Vec<f32>,
    wide: Vec<f32>,
    out: Vec<f32>,
}

impl ConformerBlock {
    /// Finds the tensors of one block in `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn load(
        pool: &Pool,
        weights: &Mapped,
        config: &AudioConfig,
        prefix: &str,
    ) -> Result<ConformerBlock, AudioError> {
        let width = config.hidden_size;
        let vector = |name: &str| weights.vector(&format!("{prefix}.{name}.weight"), width);
        Ok(ConformerBlock {
            ffw_layer_start: FeedForward::load(
                weights,
                width,
                &format!("{prefix}.ffw_layer_start"),
            )?,
            pre_attn_norm: vector("attention.pre_attn_norm")?,
            attn: LocalAttention::load(pool, weights, config, &format!("{prefix}.attention.attn"))?,
            post: weights.matrix(&format!("{prefix}.attention.post.weight"), width, width)?,
            post_norm: vector("attention.post_norm")?,
            lconv1d: LightConv::load(weights, config, &format!("{prefix}.lconv1d"))?,
            ffw_layer_end: FeedForward::load(weights, width, &format!("{prefix}.ffw_layer_end"))?,
            norm: vector("norm")?,
            residual_weight: config.conf_residual_weight,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> BlockState {
        BlockState {
            attention: self.attn.start(),
            convolved: vec![0.0; (self.lconv1d.kernel_size - 1) * self.norm.len()],
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
        self.ffw_layer_start
            .add_to(step, scratch, self.residual_weight, h);

        scratch.resize(h.len(), 0);
        step.norm_rows(h, &self.pre_attn_norm, &mut scratch.normed);
        self.attn.forward(
            step,
            &mut state.attention,
            &scratch.normed,
            padded,
            &mut scratch.out,
        );
        step.linear(self.post, &scratch.out, &mut scratch.normed);
        for (h, out) in h
            .chunks_exact_mut(step.width)
            .zip(scratch.normed.chunks_exact_mut(step.width))
        {
            rms_norm_in_place(isa, out, Some(&self.post_norm), step.eps);
            scale_add(isa, h, 1.0, out);
        }
        for (h, _) in h
            .chunks_exact_mut(step.width)
            .zip(padded)
            .filter(|(_, padded)| **padded)
        {
            h.fill(0.0);
        }
        self.lconv1d.add_to(step, &mut state.convolved, scratch, h);
    }

    /// The rest, which treats each frame by itself: the second feed-forward half and the norm.
    pub fn finish(&self, step: &Step<'_>, scratch: &mut Scratch, h: &mut [f32]) {
        self.ffw_layer_end
            .add_to(step, scratch, self.residual_weight, h);
        for h in h.chunks_exact_mut(step.width) {
            rms_norm_in_place(step.pool.isa(), h, Some(&self.norm), step.eps);
        }
    }
}

/// `rms(W2 silu(W1 rms(x; pre_layer_norm)); post_layer_norm)`, four times as wide inside.
///
/// Source: `Gemma3nAudioConformerFeedForward`.
#[derive(Debug)]
struct FeedForward {
    pre_layer_norm: Vec<f32>,
    ffw_layer_1: Tensor,
    ffw_layer_2: Tensor,
    post_layer_norm: Vec<f32>,
}

impl FeedForward {
    fn load(weights: &Mapped, width: usize, prefix: &str) -> Result<FeedForward, WeightsError> {
        Ok(FeedForward {
            pre_layer_norm: weights.vector(&format!("{prefix}.pre_layer_norm.weight"), width)?,
            ffw_layer_1: weights.matrix(
                &format!("{prefix}.ffw_layer_1.weight"),
                4 * width,
                width,
            )?,
            ffw_layer_2: weights.matrix(
                &format!("{prefix}.ffw_layer_2.weight"),
                width,
                4 * width,
            )?,
            post_layer_norm: weights.vector(&format!("{prefix}.post_layer_norm.weight"), width)?,
        })
    }

    fn add_to(&self, step: &Step<'_>, scratch: &mut Scratch, weight: f32, h: &mut [f32]) {
        let isa = step.pool.isa();
        scratch.resize(h.len(), 4);
        step.norm_rows(h, &self.pre_layer_norm, &mut scratch.normed);
        step.linear(self.ffw_layer_1, &scratch.normed, &mut scratch.wide);
        step.pool
            .for_each_row_mut(&mut scratch.wide, 4 * step.width, &|_, row| silu(isa, row));
        step.linear(self.ffw_layer_2, &scratch.wide, &mut scratch.out);
        for (h, out) in h
            .chunks_exact_mut(step.width)
            .zip(scratch.out.chunks_exact_mut(step.width))
        {
            rms_norm_in_place(isa, out, Some(&self.post_layer_norm), step.eps);
            scale_add(isa, h, weight, out);
        }
    }
}

/// The light convolution: gate, look a few frames back in each channel, norm, project.
///
/// ```text
/// g_t = a * sigmoid(b)                        [a; b] = linear_start rms(h_t; pre_layer_norm)
/// c_t = sum_j depthwise_conv1d[j] * g_{t - (kernel_size - 1) + j}     by channel
/// out = linear_end silu(rms(c_t; conv_norm))
/// ```
///
/// Source: `Gemma3nAudioConformerLightConv1d`.
#[derive(Debug)]
struct LightConv {
    pre_layer_norm: Vec<f32>,
    linear_start: Tensor,
    /// `[kernel_size, hidden_size]`
    taps: Vec<f32>,
    kernel_size: usize,
    conv_norm: Vec<f32>,
    linear_end: Tensor,
}

impl LightConv {
    fn load(
        weights: &Mapped,
        config: &AudioConfig,
        prefix: &str,
    ) -> Result<LightConv, WeightsError> {
        let (width, kernel_size) = (config.hidden_size, config.conf_conv_kernel_size);
        let by_channel = weights.vector(
            &format!("{prefix}.depthwise_conv1d.weight"),
            width * kernel_size,
        )?;
        let taps = (0..kernel_size)
            .flat_map(|j| by_channel.iter().skip(j).step_by(kernel_size))
            .copied()
            .collect();
        Ok(LightConv {
            pre_layer_norm: weights.vector(&format!("{prefix}.pre_layer_norm.weight"), width)?,
            linear_start: weights.matrix(
                &format!("{prefix}.linear_start.weight"),
                2 * width,
                width,
            )?,
            taps,
            kernel_size,
            conv_norm: weights.vector(&format!("{prefix}.conv_norm.weight"), width)?,
            linear_end: weights.matrix(&format!("{prefix}.linear_end.weight"), width, width)?,
        })
    }

    fn add_to(&self, step: &Step<'_>, gated: &mut Vec<f32>, scratch: &mut Scratch, h: &mut [f32]) {
        let (isa, width) = (step.pool.isa(), step.width);
        scratch.resize(h.len(), 2);
        step.norm_rows(h, &self.pre_layer_norm, &mut scratch.normed);
        step.linear(self.linear_start, &scratch.normed, &mut scratch.wide);
        for row in scratch.wide.chunks_exact_mut(2 * width) {
            let (value, gate) = row.split_at_mut(width);
            sigmoid(isa, gate);
            gated.extend(
                value
                    .iter()
                    .zip(gate.iter())
                    .map(|(value, gate)| value * gate),
            );
        }
        for (t, out) in scratch.normed.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            for (tap, frame) in self
                .taps
                .chunks_exact(width)
                .zip(gated[t * width..].chunks_exact(width))
            {
                for ((out, tap), x) in out.iter_mut().zip(tap).zip(frame) {
                    *out += tap * x;
                }
            }
            rms_norm_in_place(isa, out, Some(&self.conv_norm), step.eps);
            silu(isa, out);
        }
        gated.drain(..h.len());
        step.linear(self.linear_end, &scratch.normed, &mut scratch.out);
        scale_add(isa, h, 1.0, &scratch.out);
    }
}

impl Scratch {
    /// Makes room for frames of `len` values in all, and for inner rows `times` as wide.
    fn resize(&mut self, len: usize, times: usize) {
        self.normed.resize(len, 0.0);
        self.out.resize(len, 0.0);
        self.wide.resize(len * times, 0.0);
    }
}

impl Step<'_> {
    /// `out = w x` for every frame.
    pub(super) fn linear(&self, w: Tensor, x: &[f32], out: &mut [f32]) {
        kernels::matmul::matmul_in_any_order(
            self.pool,
            self.weights.view(w),
            x,
            x.len() / w.cols,
            out,
        );
    }

    /// `out = rms(x; weight)` for every frame.
    fn norm_rows(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        for (x, out) in x
            .chunks_exact(self.width)
            .zip(out.chunks_exact_mut(self.width))
        {
            rms_norm(self.pool.isa(), x, Some(weight), self.eps, out);
        }
    }
}
