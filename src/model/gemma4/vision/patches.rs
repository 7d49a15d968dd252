//! Patches: their pixels become rows, and each learns where it lies.
//!
//! Source: reference sections 3.2 and 3.3.

use kernels::{Matrix, elementwise, matmul, widen};

use super::{CHUNK, Grid, PREFIX};
use crate::model::decoder::Compute;
use crate::model::gemma4::config::VisionConfig;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// `u = W (2 pixels - 1) + table[0][column] + table[1][row]`.
pub(super) struct PatchEmbedder {
    /// Side of a patch, pixels.
    patch_px: usize,
    /// `[hidden, 3 patch_px²]`
    input_proj: Tensor,
    /// `[2, positions, hidden]`, of which the rows of a picture's columns and rows are read where they lie: all of it is 31 MB.
    table: Tensor,
    positions: usize,
}

impl PatchEmbedder {
    pub(super) fn load(
        weights: &Mapped,
        config: &VisionConfig,
    ) -> Result<PatchEmbedder, WeightsError> {
        let (hidden, positions) = (config.hidden_size, config.position_embedding_size);
        let name = |leaf: &str| format!("{PREFIX}.patch_embedder.{leaf}");
        let values = 3 * config.patch_size * config.patch_size;
        let table_name = name("position_embedding_table");
        let table = weights.matrix(&table_name, 2, positions.saturating_mul(hidden))?;
        if !table.is_float() {
            let reason = "is in blocks of integers; its rows are read number by number".to_owned();
            return Err(weights.unusable(&table_name, reason));
        }
        Ok(PatchEmbedder {
            patch_px: config.patch_size,
            input_proj: weights.matrix(&name("input_proj.weight"), hidden, values)?,
            table,
            positions,
        })
    }

    /// Writes `x` `[patches, hidden]` for `pixels` `[height, width, 3]`.
    pub(super) fn embed(&self, compute: Compute<'_>, pixels: &[u8], grid: Grid, x: &mut [f32]) {
        let Compute { pool, weights } = compute;
        let hidden = self.input_proj.rows;
        let mut values = vec![0.0; CHUNK.min(grid.patches()) * self.input_proj.cols];
        for (chunk, x) in x.chunks_mut(CHUNK * hidden).enumerate() {
            let patches = x.len() / hidden;
            let values = &mut values[..patches * self.input_proj.cols];
            let rows = values.chunks_exact_mut(self.input_proj.cols);
            for (i, values) in rows.enumerate() {
                self.values_of(pixels, grid, chunk * CHUNK + i, values);
            }
            let matrix = weights.view(self.input_proj);
            matmul::matmul_in_any_order(pool, matrix, values, patches, x);
        }
        let table = weights.view(self.table);
        let table = Matrix::new(table.data, 2 * self.positions, hidden);
        let isa = pool.isa();
        pool.for_each_chunk_mut(x, grid.columns * hidden, &|row, patches| {
            let mut position = vec![0.0; hidden];
            for (column, patch) in patches.chunks_exact_mut(hidden).enumerate() {
                for index in [column, self.positions + row] {
                    widen::row(isa, table, index, &mut position);
                    elementwise::add(isa, patch, &position);
                }
            }
        });
    }

    /// `2 pixels - 1` of a patch: `[row][column][channel]`.
    fn values_of(&self, pixels: &[u8], grid: Grid, patch: usize, values: &mut [f32]) {
        let patch_bytes = 3 * self.patch_px;
        let row_bytes = grid.columns * patch_bytes;
        let start =
            patch / grid.columns * self.patch_px * row_bytes + patch % grid.columns * patch_bytes;
        for (row, values) in values.chunks_exact_mut(patch_bytes).enumerate() {
            let pixels = &pixels[start + row * row_bytes..];
            for (value, &pixel) in values.iter_mut().zip(pixels) {
                *value = 2.0 * (f32::from(pixel) * (1.0 / 255.0)) - 1.0;
            }
        }
    }
}
