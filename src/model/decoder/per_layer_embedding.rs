//! Per-layer inputs (PLE): a row of flash for each token, mixed with a projection of its embedding, and the gate through
//! which each layer takes its share.
//!
//! Source: reference sections 2.2 and 2.4 step 9.

use std::ops::Range;

use super::{Compute, Loader, RmsNorm};
use crate::model::weights::{Tensor, WeightsError};

/// What the layers take of each token of a chunk: \[T, L, P\]. First rows of the table times sqrt(P), then mixed.
#[derive(Debug)]
pub(crate) struct PerLayerInputs {
    values: Vec<f32>,
    layers: usize,
    width: usize,
}

impl PerLayerInputs {
    pub(crate) fn new(tokens: usize, layers: usize, width: usize) -> PerLayerInputs {
        PerLayerInputs {
            values: vec![0.0; tokens * layers * width],
            layers,
            width,
        }
    }

    /// Those of one layer, \[P\].
    pub(crate) fn of(&self, token: usize, layer: usize) -> &[f32] {
        &self.values[(token * self.layers + layer) * self.width..][..self.width]
    }

    /// Those of all layers, \[tokens, L, P\].
    pub(crate) fn rows(&self, tokens: Range<usize>) -> &[f32] {
        let width = self.layers * self.width;
        &self.values[tokens.start * width..tokens.end * width]
    }

    pub(crate) fn rows_mut(&mut self, tokens: Range<usize>) -> &mut [f32] {
        let width = self.layers * self.width;
        &mut self.values[tokens.start * width..tokens.end * width]
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }
}

/// One layer's gate and projection.
#[derive(Debug)]
pub(crate) struct PerLayerGate {
    index: usize,
    gate: Tensor,
    projection: Tensor,
    norm: RmsNorm,
}

impl PerLayerGate {
    pub(crate) fn load(
        loader: &Loader<'_>,
        index: usize,
        p: usize,
        d: usize,
    ) -> Result<PerLayerGate, WeightsError> {
        Ok(PerLayerGate {
            index,
            gate: loader.matrix("per_layer_input_gate.weight", p, d)?,
            projection: loader.matrix("per_layer_projection.weight", d, p)?,
            norm: loader.norm("post_per_layer_input_norm.weight", d)?,
        })
    }

    /// `out = rms(projection(gelu(gate(x)) · p))`, `p` being this layer's inputs of the tokens from `first` on.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | at least \[T, P\] |
    pub(crate) fn forward(
        &self,
        compute: Compute<'_>,
        x: &[f32],
        inputs: &PerLayerInputs,
        first: usize,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let (d, p) = (self.projection.rows, self.gate.rows);
        let t = x.len() / d;
        let gated = &mut scratch[..t * p];
        compute.matmul(self.gate, x, t, gated);
        for (t, gated) in gated.chunks_exact_mut(p).enumerate() {
            kernels::gelu::gelu_tanh_mul(compute.isa(), gated, inputs.of(first + t, self.index));
        }
        compute.matmul(self.projection, gated, t, out);
        self.norm.rows(compute.pool, out, d);
    }
}

/// The context part: one projection for all layers, normed per layer.
#[derive(Debug)]
pub(crate) struct ContextProjection {
    projection: Tensor,
    norm: RmsNorm,
    width: usize,
}

impl ContextProjection {
    pub(crate) fn load(
        loader: &Loader<'_>,
        layers: usize,
        p: usize,
        d: usize,
    ) -> Result<ContextProjection, WeightsError> {
        Ok(ContextProjection {
            projection: loader.matrix("per_layer_model_projection.weight", layers * p, d)?,
            norm: loader.norm("per_layer_projection_norm.weight", p)?,
            width: p,
        })
    }

    /// `inputs = (rms(projection(e) / sqrt(D)) + token part) / sqrt(2)` for the first `layers`, in place.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `e` | \[T, D\], merged embeddings |
    /// | `inputs` | \[T, L·P\]; before, rows of the table times sqrt(P) |
    /// | `scratch` | at least \[T, `layers`·P\] |
    pub(crate) fn forward(
        &self,
        compute: Compute<'_>,
        e: &[f32],
        layers: usize,
        inputs: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (pool, p) = (compute.pool, self.width);
        let t = e.len() / self.projection.cols;
        let width = layers * p;
        let scale = 1.0 / (self.projection.cols as f32).sqrt();
        let projected = &mut scratch[..t * width];
        let projection = compute.weights.view(self.projection).rows(0..width);
        kernels::matmul::matmul(pool, projection, e, t, projected);
        pool.for_each_row_mut(projected, width, &|_, projected| {
            for x in projected.iter_mut() {
                *x *= scale;
            }
            for layer in projected.chunks_exact_mut(p) {
                self.norm.row(pool.isa(), layer);
            }
        });
        let projected = &*projected;
        pool.for_each_row_mut(inputs, self.projection.rows, &|t, inputs| {
            let projected = &projected[t * width..(t + 1) * width];
            for (x, &projected) in inputs.iter_mut().zip(projected) {
                *x = (projected + *x) * std::f32::consts::FRAC_1_SQRT_2;
            }
        });
    }
}
