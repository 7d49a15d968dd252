//! What turns an encoder's rows into rows of the text model's width.

use kernels::rms_norm::rms_norm_in_place;
use kernels::{Pool, matmul};

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// The embedder of one modality, audio or vision; its weights are in the group of that modality's tower.
///
/// `soft(x) = P rms(x)`, with `P` the `embedding_projection`, `[text_hidden_size, multimodal_hidden_size]`; the norm has no weight,
/// and there is nothing behind the projection (reference sections 3.4 and 4.5).
///
/// Source: `Gemma4MultimodalEmbedder`.
#[derive(Clone, Copy, Debug)]
pub struct MultimodalEmbedder {
    embedding_projection: Tensor,
    rms_norm_eps: f32,
}

impl MultimodalEmbedder {
    /// Finds the tensor in `weights`, whose name begins with `prefix`, such as `model.embed_audio`.
    ///
    /// # Errors
    /// It is missing or has another shape or type.
    pub fn load(
        weights: &Mapped,
        prefix: &str,
        multimodal_hidden_size: usize,
        text_hidden_size: usize,
        rms_norm_eps: f32,
    ) -> Result<MultimodalEmbedder, WeightsError> {
        let name = format!("{prefix}.embedding_projection.weight");
        Ok(MultimodalEmbedder {
            embedding_projection: weights.matrix(
                &name,
                text_hidden_size,
                multimodal_hidden_size,
            )?,
            rms_norm_eps,
        })
    }

    /// Width of the text model, and so of every row that is returned.
    pub fn text_hidden_size(&self) -> usize {
        self.embedding_projection.rows
    }

    /// Appends the soft tokens `[rows, text_hidden_size]` of the encoder's `rows`, `[rows, multimodal_hidden_size]`, which are normed
    /// in place.
    ///
    /// # Panics
    /// If `rows` are no whole number of rows, or `weights` is not the group that the embedder was loaded from.
    pub fn soft(
        &self,
        pool: &Pool,
        weights: &Mapped,
        rows: &mut [f32],
        soft_tokens: &mut Vec<f32>,
    ) {
        let projection = self.embedding_projection;
        let count = rows.len() / projection.cols;
        pool.for_each_row_mut(rows, projection.cols, &|_, row| {
            rms_norm_in_place(pool.isa(), row, None, self.rms_norm_eps);
        });
        let start = soft_tokens.len();
        soft_tokens.resize(start + count * projection.rows, 0.0);
        let out = &mut soft_tokens[start..];
        matmul::matmul(pool, weights.view(projection), rows, count, out);
    }
}
