//! Tensor names of one decoder layer.

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Fetches the tensors of layer `index` by the part of their name behind `layers.{index}.`.
pub(in crate::model) struct LayerLoader<'a> {
    weights: &'a Mapped,
    index: usize,
}

impl<'a> LayerLoader<'a> {
    pub(in crate::model) fn new(weights: &'a Mapped, index: usize) -> LayerLoader<'a> {
        LayerLoader { weights, index }
    }

    fn name(&self, leaf: &str) -> String {
        format!("{PREFIX}layers.{}.{leaf}", self.index)
    }

    pub(in crate::model) fn matrix(
        &self,
        leaf: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Tensor, WeightsError> {
        self.weights.matrix(&self.name(leaf), rows, cols)
    }

    /// A matrix, whole or in the column segments `{leaf}.0`, `{leaf}.1`, … of a pack.
    pub(in crate::model) fn column_segments(
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

    pub(in crate::model) fn vector(
        &self,
        leaf: &str,
        len: usize,
    ) -> Result<Vec<f32>, WeightsError> {
        self.weights.vector(&self.name(leaf), len)
    }
}

/// What every text tensor's canonical name starts with.
pub(in crate::model) const PREFIX: &str = "model.language_model.";
