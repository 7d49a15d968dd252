//! What audio encoders are made of: strided convolutions over log-mel frames, and conformer blocks that look back a bounded number of frames.
//!
//! Which of it an encoder has, of which sizes and by which names, its family says.

mod block;
mod feed_forward;
mod light_conv;
mod local_attention;
mod strided_conv;

use kernels::Pool;
use kernels::rms_norm::rms_norm;

pub use block::{BlockState, ConformerBlock};
pub use local_attention::{AttentionState, LocalAttention};
pub use strided_conv::{ConvShape, ConvState, FREQUENCY_PADDING, StridedConv};

use super::clipped_linear::ClippedLinear;
use super::weights::Mapped;

/// Sizes of a conformer block.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Values in a frame.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key frames that a query sees, itself included.
    pub context_frames: usize,
    /// Soft cap on attention logits.
    pub logit_cap: f32,
    /// What the products of queries and keys are multiplied with; those of queries and relative positions are not.
    pub key_scale: f32,
    /// Taps of the light convolution.
    pub conv_kernel: usize,
    /// Weight of a feed-forward half's residual.
    pub feed_forward_weight: f32,
}

/// What the names of a block's tensors begin with, behind the prefix of the block: families differ in them.
#[derive(Clone, Copy, Debug)]
pub struct BlockNames {
    /// The first feed-forward half.
    pub feed_forward_start: &'static str,
    /// The norm in front of attention.
    pub pre_attn_norm: &'static str,
    /// Attention: its three projections and `per_dim_scale`.
    pub attn: &'static str,
    /// The projection of relative positions.
    pub relative_positions: &'static str,
    /// The projection behind attention.
    pub attn_out: &'static str,
    /// The norm behind that.
    pub post_attn_norm: &'static str,
    /// The light convolution.
    pub light_conv: &'static str,
    /// The second feed-forward half.
    pub feed_forward_end: &'static str,
    /// The norm at the end.
    pub out_norm: &'static str,
    /// What the name of a matrix has behind that of its layer; bounds may stand beside it ([`ClippedLinear`]).
    pub matrix: &'static str,
}

/// What one pass over some frames needs to know.
pub struct Step<'a> {
    /// Who computes.
    pub pool: &'a Pool,
    /// The group that the tensors are in.
    pub weights: &'a Mapped,
    /// Values in a frame.
    pub width: usize,
    /// Epsilon of the norms.
    pub eps: f32,
}

/// Buffers that every block uses in turn.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    normed: Vec<f32>,
    wide: Vec<f32>,
    out: Vec<f32>,
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
    fn linear(&self, w: ClippedLinear, x: &[f32], out: &mut [f32]) {
        w.forward(self.pool, self.weights, x, out);
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
