//! The gated feed-forward network, a few hundred patches at a time.
//!
//! Source: reference section 3.3; `Gemma4VisionMLP`.

use kernels::{elementwise, gelu};

use super::{CHUNK, Loader};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::decoder::{Compute, RmsNorm};
use crate::model::weights::WeightsError;

/// `x += rms(down(gelu(gate u) up u))`, `u` being the normed patch.
pub(super) struct FeedForward {
    hidden: usize,
    width: usize,
    pre_norm: RmsNorm,
    gate: ClippedLinear,
    up: ClippedLinear,
    down: ClippedLinear,
    post_norm: RmsNorm,
}

impl FeedForward {
    pub(super) fn load(loader: &Loader<'_>) -> Result<FeedForward, WeightsError> {
        let (hidden, width) = (loader.config.hidden_size, loader.config.intermediate_size);
        Ok(FeedForward {
            hidden,
            width,
            pre_norm: loader.norm("pre_feedforward_layernorm", hidden)?,
            gate: loader.linear("mlp.gate_proj", width, hidden)?,
            up: loader.linear("mlp.up_proj", width, hidden)?,
            down: loader.linear("mlp.down_proj", hidden, width)?,
            post_norm: loader.norm("post_feedforward_layernorm", hidden)?,
        })
    }

    /// Adds to the patches `x` `[patches, hidden]`.
    pub(super) fn add_to(&self, compute: Compute<'_>, x: &mut [f32], between: &mut dyn FnMut()) {
        let Compute { pool, weights } = compute;
        let patches = CHUNK.min(x.len() / self.hidden);
        let mut out = vec![0.0; patches * self.hidden];
        let mut gate = vec![0.0; patches * self.width];
        let mut up = gate.clone();
        for x in x.chunks_mut(CHUNK * self.hidden) {
            let len = x.len() / self.hidden * self.width;
            let (gate, up, out) = (&mut gate[..len], &mut up[..len], &mut out[..x.len()]);
            out.copy_from_slice(x);
            self.pre_norm.rows(pool, out, self.hidden);
            self.gate.forward(pool, weights, out, gate);
            self.up.forward(pool, weights, out, up);
            pool.for_each_row_mut(gate, self.width, &|patch, gate| {
                gelu::gelu_tanh_mul(pool.isa(), gate, &up[patch * self.width..][..self.width]);
            });
            self.down.forward(pool, weights, gate, out);
            self.post_norm.rows(pool, out, self.hidden);
            elementwise::add(compute.isa(), x, out);
            between();
        }
    }
}
