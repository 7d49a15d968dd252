//! Tensor names of one decoder layer.

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Fetches the tensors of layer `index` by the part of their name behind `layers.{index}.`.
pub(super) struct LayerLoader<'a> {
    weights: &'a Mapped,
    index: usize,
}

impl<'a> LayerLoader<'a> {
    pub(super) fn new(weights: &'a Mapped, index: usize) -> LayerLoader<'a> {
        LayerLoader { weights, index }
    }

    fn name(&self, leaf: &str) -> String {
        format!("{PREFIX}layers.{}.{leaf}", self.index)
    }

    pub(super) fn matrix(
        &self,
        leaf: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Tensor, WeightsError> {
        self.weights.matrix(&self.name(leaf), rows, cols)
    }

    pub(super) fn vector(&self, leaf: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        self.weights.vector(&self.name(leaf), len)
    }
}

/// What every text tensor's canonical name starts with.
pub(super) const PREFIX: &str = "model.language_model.";
