//! Tensors of a text model by the part of their name behind the model's, or the layer's, prefix.

use super::RmsNorm;
use crate::model::weights::mobile::HEAD;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// What every text tensor's canonical name starts with.
const PREFIX: &str = "model.language_model.";

/// Fetches tensors and checks their shapes.
pub struct Loader<'a> {
    pub(crate) weights: &'a Mapped,
    prefix: String,
    /// Epsilon of every norm.
    eps: f32,
}

impl<'a> Loader<'a> {
    /// The tensors of the whole model.
    pub(crate) fn new(weights: &'a Mapped, eps: f32) -> Loader<'a> {
        Loader::of(weights, PREFIX, eps)
    }

    /// Tensors whose names begin otherwise.
    pub(crate) fn of(weights: &'a Mapped, prefix: &str, eps: f32) -> Loader<'a> {
        Loader {
            weights,
            prefix: prefix.to_owned(),
            eps,
        }
    }

    /// The tensors of one layer.
    pub(crate) fn layer(&self, index: usize) -> Loader<'a> {
        Loader {
            weights: self.weights,
            prefix: format!("{}layers.{index}.", self.prefix),
            eps: self.eps,
        }
    }

    fn name(&self, leaf: &str) -> String {
        format!("{}{leaf}", self.prefix)
    }

    pub(crate) fn matrix(
        &self,
        leaf: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Tensor, WeightsError> {
        self.weights.matrix(&self.name(leaf), rows, cols)
    }

    /// The head: `embed_tokens` with the roundings of products, or a matrix of its own.
    pub(crate) fn head(&self, embed_tokens: Tensor) -> Result<Tensor, WeightsError> {
        let Tensor { rows, cols, .. } = embed_tokens;
        let own = format!("{HEAD}.weight");
        match self.weights.contains(&own) {
            true => self.weights.matrix(&own, rows, cols),
            false => Ok(embed_tokens.rounding(self.weights.roundings(HEAD)?)),
        }
    }

    /// A matrix, whole or in the column segments `{leaf}.0`, `{leaf}.1`, … of a pack.
    pub(crate) fn column_segments(
        &self,
        leaf: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Tensor>, WeightsError> {
        let mut segments = Vec::new();
        let mut start = 0;
        while let Some(width) = self
            .weights
            .cols(&self.name(&format!("{leaf}.{}", segments.len())))
        {
            let name = format!("{leaf}.{}", segments.len());
            segments.push(self.matrix(&name, rows, width)?);
            start += width;
        }
        if segments.is_empty() {
            return Ok(vec![self.matrix(leaf, rows, cols)?]);
        }
        if start != cols {
            return Err(WeightsError::Segments {
                tensor: self.name(leaf),
                expected: cols,
                found: start,
            });
        }
        Ok(segments)
    }

    pub(crate) fn vector(&self, leaf: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        self.weights.vector(&self.name(leaf), len)
    }

    pub(crate) fn norm(&self, leaf: &str, len: usize) -> Result<RmsNorm, WeightsError> {
        Ok(RmsNorm::new(self.vector(leaf, len)?, self.eps))
    }

    pub(crate) fn norm_without_weight(&self) -> RmsNorm {
        RmsNorm::without_weight(self.eps)
    }
}
