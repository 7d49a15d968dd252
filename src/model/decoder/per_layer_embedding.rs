//! Per-layer inputs (PLE): a row of flash for each token, mixed with a projection of its embedding, and the gate through
//! which each layer takes its share.
//!
//! Source: reference sections 2.2 and 2.4 step 9.

use std::ops::Range;

use kernels::Pool;

use super::load::LayerLoader;
use crate::model::config::TextConfig;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// One layer's gate and projection.
#[derive(Debug)]
pub(in crate::model) struct PerLayerGate {
    gate: Tensor,
    projection: Tensor,
    norm: Vec<f32>,
    /// `correct_output_scale`, where the config asks for it.
    scale: Option<Vec<f32>>,
    active: usize,
    eps: f32,
}

impl PerLayerGate {
    pub(in crate::model) fn load(
        loader: &LayerLoader<'_>,
        config: &TextConfig,
    ) -> Result<PerLayerGate, WeightsError> {
        let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
        let scale = config
            .altup_correct_scale
            .then(|| loader.vector("altup.correct_output_scale", d))
            .transpose()?;
        Ok(PerLayerGate {
            gate: loader.matrix("per_layer_input_gate.weight", p, d)?,
            projection: loader.matrix("per_layer_projection.weight", d, p)?,
            norm: loader.vector("post_per_layer_input_norm.weight", d)?,
            scale,
            active: config.altup_active_idx,
            eps: config.rms_norm_eps,
        })
    }

    /// Adds `rms(projection(gelu(gate(h_active · scale)) · p))` to every stream but the first.
    ///
    /// `inputs` yields the token's per-layer input of this layer, \[P\].
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `h` | \[T, A, D\] |
    /// | `x`, `v` (scratch) | \[T, D\] |
    /// | `gated` (scratch) | \[T, P\] |
    pub(in crate::model) fn forward<'p>(
        &self,
        pool: &Pool,
        weights: &Mapped,
        inputs: impl Fn(usize) -> &'p [f32] + Sync,
        t: usize,
        h: &mut [f32],
        x: &mut [f32],
        gated: &mut [f32],
        v: &mut [f32],
    ) {
        let d = self.projection.rows;
        let p = self.gate.rows;
        let streams = h.len() / (t * d);
        for (x, h) in x.chunks_exact_mut(d).zip(h.chunks_exact(streams * d)) {
            let active = &h[self.active * d..(self.active + 1) * d];
            match &self.scale {
                None => x.copy_from_slice(active),
                Some(scale) => {
                    for ((x, &h), &scale) in x.iter_mut().zip(active).zip(scale) {
                        *x = h * scale;
                    }
                }
            }
        }
        kernels::matmul::matmul(pool, weights.view(self.gate), x, t, gated);
        for (t, gated) in gated.chunks_exact_mut(p).enumerate() {
            kernels::gelu::gelu_tanh_mul(pool.isa(), gated, inputs(t));
        }
        kernels::matmul::matmul(pool, weights.view(self.projection), gated, t, v);
        pool.for_each_row_mut(v, d, &|_, v| {
            kernels::rms_norm::rms_norm_in_place(pool.isa(), v, Some(&self.norm), self.eps);
        });
        for (h, v) in h.chunks_exact_mut(streams * d).zip(v.chunks_exact(d)) {
            for stream in h.chunks_exact_mut(d).skip(1) {
                kernels::elementwise::add(pool.isa(), stream, v);
            }
        }
    }
}

/// The context part: one projection for all layers, normed per layer.
#[derive(Debug)]
pub(in crate::model) struct ContextProjection {
    projection: Tensor,
    norm: Vec<f32>,
    eps: f32,
}

impl ContextProjection {
    pub(in crate::model) fn load(
        weights: &Mapped,
        config: &TextConfig,
    ) -> Result<ContextProjection, WeightsError> {
        let p = config.hidden_size_per_layer_input;
        let rows = config.num_hidden_layers * p;
        let name = |leaf: &str| format!("{}{leaf}", super::load::PREFIX);
        Ok(ContextProjection {
            projection: weights.matrix(
                &name("per_layer_model_projection.weight"),
                rows,
                config.hidden_size,
            )?,
            norm: weights.vector(&name("per_layer_projection_norm.weight"), p)?,
            eps: config.rms_norm_eps,
        })
    }

    /// `inputs = (rms(projection(e) / sqrt(D)) + token part) / sqrt(2)` for some of the layers, in place.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `e` | \[T, D\], merged embeddings |
    /// | `inputs` | \[T, L·P\]; before, rows of the table times sqrt(P) |
    /// | `scratch` | at least \[T, `layers.end`·P\] |
    pub(in crate::model) fn forward(
        &self,
        pool: &Pool,
        weights: &Mapped,
        e: &[f32],
        t: usize,
        layers: Range<usize>,
        inputs: &mut [f32],
        scratch: &mut [f32],
    ) {
        let p = self.norm.len();
        let width = layers.end * p;
        let scale = 1.0 / (self.projection.cols as f32).sqrt();
        let projected = &mut scratch[..t * width];
        // From the first row on: a quantised matrix cannot begin at any.
        let projection = weights.view(self.projection).rows(0..width);
        kernels::matmul::matmul(pool, projection, e, t, projected);
        pool.for_each_row_mut(projected, width, &|_, projected| {
            for x in projected.iter_mut() {
                *x *= scale;
            }
            for layer in projected.chunks_exact_mut(p) {
                kernels::rms_norm::rms_norm_in_place(pool.isa(), layer, Some(&self.norm), self.eps);
            }
        });
        let projected = &*projected;
        let columns = layers.start * p..width;
        pool.for_each_row_mut(inputs, self.projection.rows, &|t, inputs| {
            let projected = &projected[t * width..(t + 1) * width];
            for (x, &projected) in inputs[columns.clone()]
                .iter_mut()
                .zip(&projected[columns.clone()])
            {
                *x = (projected + *x) * std::f32::consts::FRAC_1_SQRT_2;
            }
        });
    }
}
