//! What turns an encoder's frames, and the ids that stand beside them in a prompt, into rows of the text model's width.

use kernels::rms_norm::{rms_norm, rms_norm_in_place};
use kernels::{Pool, matmul, matvec, widen};

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Names and sizes of one embedder's tensors.
#[derive(Clone, Copy, Debug)]
pub struct EmbedderShape<'a> {
    /// What the tensors' names begin with, such as `model.embed_audio`.
    pub prefix: &'a str,
    /// Width of the encoder's frames.
    pub multimodal_hidden_size: usize,
    /// Width of the text model.
    pub text_hidden_size: usize,
    /// Ids that have an embedding of their own.
    pub vocab_size: usize,
    /// The first of them.
    pub vocab_offset: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f32,
}

/// The embedder of one modality, audio or vision; its weights are in the group of that modality's tower.
///
/// ```text
/// soft(x)  = rms(P rms(x; soft_embedding_norm))                     x: a frame of the encoder, [multimodal_hidden_size]
/// hard(id) = rms(P rms(E[id - vocab_offset]; hard_embedding_norm))
/// ```
///
/// with `P` the `embedding_projection`, `[text_hidden_size, multimodal_hidden_size]`, and `E` the `embedding`,
/// `[vocab_size, multimodal_hidden_size]`. The outer norm has no weight.
///
/// Source: `Gemma3nMultimodalEmbedder`.
#[derive(Debug)]
pub struct MultimodalEmbedder {
    embedding: Tensor,
    embedding_projection: Tensor,
    hard_embedding_norm: Vec<f32>,
    soft_embedding_norm: Vec<f32>,
    vocab_offset: usize,
    rms_norm_eps: f32,
}

impl MultimodalEmbedder {
    /// Finds the embedder's tensors in `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn load(
        weights: &Mapped,
        shape: EmbedderShape<'_>,
    ) -> Result<MultimodalEmbedder, WeightsError> {
        let EmbedderShape {
            prefix,
            multimodal_hidden_size: width,
            text_hidden_size,
            vocab_size,
            ..
        } = shape;
        Ok(MultimodalEmbedder {
            embedding: weights.matrix(&format!("{prefix}.embedding.weight"), vocab_size, width)?,
            embedding_projection: weights.matrix(
                &format!("{prefix}.embedding_projection.weight"),
                text_hidden_size,
                width,
            )?,
            hard_embedding_norm: weights
                .vector(&format!("{prefix}.hard_embedding_norm.weight"), width)?,
            soft_embedding_norm: weights
                .vector(&format!("{prefix}.soft_embedding_norm.weight"), width)?,
            vocab_offset: shape.vocab_offset,
            rms_norm_eps: shape.rms_norm_eps,
        })
    }

    /// Width of the text model, and so of every row that is returned.
    pub fn text_hidden_size(&self) -> usize {
        self.embedding_projection.rows
    }

    /// Appends the soft tokens `[frames, text_hidden_size]` of the encoder's `frames`, `[frames, multimodal_hidden_size]`.
    ///
    /// # Panics
    /// If `frames` is no whole number of frames, or `weights` is not the group that the embedder was loaded from.
    pub fn soft(&self, pool: &Pool, weights: &Mapped, frames: &[f32], soft_tokens: &mut Vec<f32>) {
        let (isa, eps) = (pool.isa(), self.rms_norm_eps);
        let projection = self.embedding_projection;
        assert!(
            frames.len().is_multiple_of(projection.cols),
            "whole frames of {} values",
            projection.cols
        );
        let count = frames.len() / projection.cols;
        let mut normed = vec![0.0; frames.len()];
        for (out, frame) in normed
            .chunks_exact_mut(projection.cols)
            .zip(frames.chunks_exact(projection.cols))
        {
            rms_norm(isa, frame, Some(&self.soft_embedding_norm), eps, out);
        }
        let start = soft_tokens.len();
        soft_tokens.resize(start + count * projection.rows, 0.0);
        let rows = &mut soft_tokens[start..];
        matmul::matmul(pool, weights.view(projection), &normed, count, rows);
        for row in rows.chunks_exact_mut(projection.rows) {
            rms_norm_in_place(isa, row, None, eps);
        }
    }

    /// The row `[text_hidden_size]` of a token id of this modality that is not a soft token; None for any other id.
    ///
    /// # Panics
    /// If `weights` is not the group that the embedder was loaded from.
    pub fn hard(&self, pool: &Pool, weights: &Mapped, id: u32) -> Option<Vec<f32>> {
        let row = (id as usize)
            .checked_sub(self.vocab_offset)
            .filter(|&row| row < self.embedding.rows)?;
        let (isa, eps) = (pool.isa(), self.rms_norm_eps);
        let mut embedding = vec![0.0; self.embedding.cols];
        widen::row(isa, weights.view(self.embedding), row, &mut embedding);
        rms_norm_in_place(isa, &mut embedding, Some(&self.hard_embedding_norm), eps);
        let mut out = vec![0.0; self.text_hidden_size()];
        matvec::matvec(
            pool,
            weights.view(self.embedding_projection),
            &embedding,
            &mut out,
        );
        rms_norm_in_place(isa, &mut out, None, eps);
        Some(out)
    }
}
