//! From patches to soft tokens.
//!
//! Source: reference section 3.4; `Gemma4VisionPooler`, `Gemma4MultimodalEmbedder`.

use kernels::{elementwise, matmul};

use super::Grid;
use crate::model::decoder::{Compute, RmsNorm};
use crate::model::gemma4::config::VisionConfig;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Means of squares of neighbouring patches, a norm without weight, and the projection to the text model's width.
pub(super) struct Pooling {
    /// Side of such a square, patches.
    side: usize,
    norm: RmsNorm,
    /// `[text_hidden_size, hidden]`
    projection: Tensor,
}

impl Pooling {
    pub(super) fn load(
        weights: &Mapped,
        config: &VisionConfig,
        text_hidden_size: usize,
    ) -> Result<Pooling, WeightsError> {
        let name = "model.embed_vision.embedding_projection.weight";
        Ok(Pooling {
            side: config.pooling_kernel_size,
            norm: RmsNorm::without_weight(config.rms_norm_eps),
            projection: weights.matrix(name, text_hidden_size, config.hidden_size)?,
        })
    }

    /// `[soft tokens, hidden]` of patches `x` `[patches, hidden]`: means times sqrt(hidden), square by square.
    pub(super) fn pool(&self, compute: Compute<'_>, x: &[f32], grid: Grid) -> Vec<f32> {
        let hidden = self.projection.cols;
        let tokens = grid.patches() / (self.side * self.side);
        let across = grid.columns / self.side;
        let factor = (hidden as f32).sqrt() / (self.side * self.side) as f32;
        let mut pooled = vec![0.0; tokens * hidden];
        for (token, pooled) in pooled.chunks_exact_mut(hidden).enumerate() {
            let first = token / across * self.side * grid.columns + token % across * self.side;
            for row in 0..self.side {
                let patches = &x[(first + row * grid.columns) * hidden..][..self.side * hidden];
                for patch in patches.chunks_exact(hidden) {
                    elementwise::add(compute.isa(), pooled, patch);
                }
            }
            elementwise::scale(compute.isa(), pooled, factor);
        }
        pooled
    }

    /// Soft tokens `[soft tokens, text_hidden_size]` of what was pooled.
    pub(super) fn project(&self, compute: Compute<'_>, mut pooled: Vec<f32>) -> Vec<f32> {
        let Tensor { rows, cols, .. } = self.projection;
        self.norm.rows(compute.pool, &mut pooled, cols);
        let tokens = pooled.len() / cols;
        let mut soft_tokens = vec![0.0; tokens * rows];
        let matrix = compute.weights.view(self.projection);
        matmul::matmul_in_any_order(compute.pool, matrix, &pooled, tokens, &mut soft_tokens);
        soft_tokens
    }
}
