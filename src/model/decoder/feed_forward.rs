//! The gated feed-forward network.
//!
//! Source: reference section 2.6.

use kernels::{Inputs, Matrix};

use super::{Compute, Loader};
use crate::model::weights::{Mapped, Stretch, Tensor, WeightsError};

/// One layer's gate, up and down projections.
#[derive(Debug)]
pub struct FeedForward {
    pub(crate) gate: Tensor,
    pub(crate) up: Tensor,
    /// Column segments that end at the widths of slices; a checkpoint in the published layout has one.
    pub(crate) down: Vec<Tensor>,
}

/// Scratch that a token needs: gates, ups, and a segment's share of the output.
pub(crate) fn scratch_width(ffn_width: usize, d: usize) -> usize {
    2 * ffn_width + d
}

impl FeedForward {
    pub(crate) fn load(
        loader: &Loader<'_>,
        ffn_width: usize,
        d: usize,
    ) -> Result<FeedForward, WeightsError> {
        Ok(FeedForward {
            gate: loader.matrix("mlp.gate_proj.weight", ffn_width, d)?,
            up: loader.matrix("mlp.up_proj.weight", ffn_width, d)?,
            down: loader.column_segments("mlp.down_proj.weight", d, ffn_width)?,
        })
    }

    /// `out = down(gelu(gate x) · up x)` with the first `width` neurons.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | at least \[T, [`scratch_width`]\] |
    pub(crate) fn forward(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        width: usize,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let (gate, rest) = scratch.split_at_mut(x.tokens() * width);
        let up = &mut rest[..x.tokens() * width];
        let [w_gate, w_up] = [self.gate, self.up].map(|w| first_rows(compute, w, width));
        kernels::matmul::gelu_gated(compute.pool, w_gate, w_up, x, gate, up);
        self.project_down(compute, x.tokens(), width, gate, rest, out);
    }

    /// `out = down · activations` for \[T, `width`\] activations, summed over the segments that the slice reaches.
    ///
    /// `scratch` is as long as `activations` and `out` together.
    pub(crate) fn project_down(
        &self,
        compute: Compute<'_>,
        t: usize,
        width: usize,
        activations: &[f32],
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let (own, part) = scratch.split_at_mut(t * width);
        let mut start = 0;
        for &segment in &self.down {
            let cols = segment.cols.min(width - start);
            if cols == 0 {
                break;
            }
            let mut input = activations;
            if cols < width {
                // The segment's part of every token, side by side.
                let own = &mut own[..t * cols];
                let rows = own.chunks_exact_mut(cols);
                for (own, row) in rows.zip(activations.chunks_exact(width)) {
                    own.copy_from_slice(&row[start..start + cols]);
                }
                input = own;
            }
            let matrix = compute.weights.view(segment).columns(0..cols);
            if start == 0 {
                kernels::matmul::matmul(compute.pool, matrix, input, t, out);
            } else {
                let part = &mut part[..out.len()];
                kernels::matmul::matmul(compute.pool, matrix, input, t, part);
                kernels::elementwise::add(compute.isa(), out, part);
            }
            start += cols;
        }
    }

    /// Whether the first `width` neurons can be run alone: the weights are not quantised, or stored so that they can be cut
    /// there.
    pub(crate) fn serves(&self, width: usize) -> bool {
        let mut start = 0;
        let cuts_down = self.down.iter().any(|segment| {
            let inside = start < width && width < start + segment.cols;
            start += segment.cols;
            inside && !segment.has_any_columns()
        });
        !cuts_down && self.gate.has_rows(width) && self.up.has_rows(width)
    }

    /// Weights of the neurons behind the first `width`, which a slice of that width does not read.
    pub(crate) fn unused(&self, weights: &Mapped, width: usize, out: &mut Vec<Stretch>) {
        out.extend(weights.behind(self.gate, width));
        out.extend(weights.behind(self.up, width));
        let mut start = 0;
        for &segment in &self.down {
            if segment.stored_by_column() {
                out.extend(weights.behind(segment, width.saturating_sub(start)));
            } else if start >= width {
                out.extend(weights.behind(segment, 0));
            }
            start += segment.cols;
        }
    }
}

/// The weights of the first `width` neurons.
pub(crate) fn first_rows(compute: Compute<'_>, matrix: Tensor, width: usize) -> Matrix<'_> {
    compute.weights.view(matrix).rows(0..width)
}
