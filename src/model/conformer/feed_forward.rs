//! A feed-forward half of a conformer block.

use kernels::elementwise::{scale_add, silu};
use kernels::rms_norm::rms_norm_in_place;

use super::{Scratch, Step};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::weights::{Mapped, WeightsError};

/// `rms(W2 silu(W1 rms(x; pre_layer_norm)); post_layer_norm)`, four times as wide inside.
///
/// Source: `Gemma3nAudioConformerFeedForward`, `Gemma4AudioFeedForward`.
#[derive(Debug)]
pub(super) struct FeedForward {
    pre_layer_norm: Vec<f32>,
    ffw_layer_1: ClippedLinear,
    ffw_layer_2: ClippedLinear,
    post_layer_norm: Vec<f32>,
}

impl FeedForward {
    pub(super) fn load(
        weights: &Mapped,
        width: usize,
        prefix: &str,
        matrix: &str,
    ) -> Result<FeedForward, WeightsError> {
        let linear = |part: &str, rows: usize, cols: usize| {
            ClippedLinear::load(weights, &format!("{prefix}.{part}{matrix}"), rows, cols)
        };
        Ok(FeedForward {
            pre_layer_norm: weights.vector(&format!("{prefix}.pre_layer_norm.weight"), width)?,
            ffw_layer_1: linear("ffw_layer_1", 4 * width, width)?,
            ffw_layer_2: linear("ffw_layer_2", width, 4 * width)?,
            post_layer_norm: weights.vector(&format!("{prefix}.post_layer_norm.weight"), width)?,
        })
    }

    pub(super) fn add_to(
        &self,
        step: &Step<'_>,
        scratch: &mut Scratch,
        weight: f32,
        h: &mut [f32],
    ) {
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
