//! Positions in two dimensions: the first half of a head turns by its patch's column, the second by its row.
//!
//! Source: reference section 3.3; RoFormer (arXiv 2104.09864), rotate-half form in each half.

use kernels::{Isa, rope};

use super::Grid;
use crate::model::gemma4::config::VisionConfig;

/// Cosines and sines of every column and row, `[positions, head_dim / 4]` each: columns and rows turn alike.
pub(super) struct RopeTable {
    columns: usize,
    /// Pairs of a half.
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(super) fn new(config: &VisionConfig, grid: Grid) -> RopeTable {
        let frequencies = rope::inverse_frequencies(config.rope_theta, config.head_dim / 2);
        let (positions, pairs) = (grid.columns.max(grid.rows), frequencies.len());
        let (mut cos, mut sin) = (vec![0.0; positions * pairs], vec![0.0; positions * pairs]);
        let rows = cos.chunks_exact_mut(pairs).zip(sin.chunks_exact_mut(pairs));
        for (position, (cos, sin)) in rows.enumerate() {
            rope::cos_sin(position, &frequencies, cos, sin);
        }
        RopeTable {
            columns: grid.columns,
            pairs,
            cos,
            sin,
        }
    }

    /// Turns one head of a patch.
    pub(super) fn rotate(&self, isa: Isa, patch: usize, head: &mut [f32]) {
        let (by_column, by_row) = head.split_at_mut(2 * self.pairs);
        for (half, position) in [
            (by_column, patch % self.columns),
            (by_row, patch / self.columns),
        ] {
            let at = position * self.pairs..(position + 1) * self.pairs;
            rope::rope(isa, half, &self.cos[at.clone()], &self.sin[at]);
        }
    }
}
