//! One decoder layer: attention, feed-forward, the per-layer input, and a scale.
//!
//! Source: reference section 2.3, whose step numbers stand in the code.

use super::Workspace;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::{Compute, Lane, LayerShape, Loader, Probe, Step, Sublayers};
use crate::model::gemma4::config::TextConfig;
use crate::model::weights::WeightsError;

/// The weights of one decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    d: usize,
    sublayers: Sublayers,
    feed_forward: FeedForward,
    /// The whole residual stream is multiplied with it.
    layer_scalar: f32,
}

impl Layer {
    pub(super) fn load(
        model: &Loader<'_>,
        config: &TextConfig,
        shape: &LayerShape,
        index: usize,
    ) -> Result<Layer, WeightsError> {
        let loader = &model.layer(index);
        let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
        Ok(Layer {
            index,
            d,
            sublayers: Sublayers::load(loader, shape, index, d, p)?,
            feed_forward: FeedForward::load(loader, shape.ffn_width, d)?,
            layer_scalar: loader.vector("layer_scalar", 1)?[0],
        })
    }

    pub(super) fn feed_forward(&self) -> &FeedForward {
        &self.feed_forward
    }

    /// The input norm of the first `t` tokens of the workspace, and their keys and values, which others read too.
    pub(super) fn write_kv(
        &self,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace,
        t: usize,
    ) {
        self.norm_input(compute, work, t);
        self.sublayers.write_kv(compute, lanes, work);
    }

    /// The last `kept` of `t` tokens are the only ones from now on.
    pub(super) fn keep_last(
        &self,
        compute: Compute<'_>,
        work: &mut Workspace,
        t: usize,
        kept: usize,
    ) {
        let d = self.d;
        work.residual.copy_within((t - kept) * d..t * d, 0);
        self.norm_input(compute, work, kept);
    }

    fn norm_input(&self, compute: Compute<'_>, work: &mut Workspace, t: usize) {
        let (d, residual) = (self.d, &work.residual);
        let x = |t: usize| &residual[t * d..(t + 1) * d];
        self.sublayers.norm_input(compute, t, &x, &mut work.normed);
    }

    /// The layer, for tokens that stand normed at the beginning of the workspace, and whose keys and values are written.
    pub(super) fn forward(
        &self,
        compute: Compute<'_>,
        lanes: &[Lane<'_>],
        work: &mut Workspace,
        step: &Step,
        probe: Probe<'_>,
    ) {
        let (pool, d, t) = (compute.pool, self.d, step.tokens.len());
        let mut probe = |name, values: &[f32]| probe(name, self.index, values);
        probe("input_layernorm", work.normed.rows());
        // 1. y = x + attention.
        self.sublayers.attend(compute, lanes, work, &step.tokens);
        let branch = &mut work.branch[..t * d];
        probe("attn_out", branch);
        let norm = &self.sublayers.post_attention_layernorm;
        norm.add_rows(pool, branch, d, &mut work.residual[..t * d]);
        // 2. z = y + feed-forward.
        self.sublayers.norm_residual(compute, work, t);
        let (branch, residual) = (&mut work.branch[..t * d], &mut work.residual[..t * d]);
        let (normed, scratch) = (&work.normed, &mut work.scratch);
        self.feed_forward
            .forward(compute, normed, step.width, scratch, branch);
        probe("mlp_out", branch);
        let norm = &self.sublayers.post_feedforward_layernorm;
        norm.add_rows(pool, branch, d, residual);
        // 3. The per-layer input, through a gate that reads z as it is.
        let (inputs, first) = (&work.per_layer_inputs, step.tokens.start);
        self.sublayers
            .per_layer_gate
            .forward(compute, residual, inputs, first, scratch, branch);
        probe("post_per_layer_input_norm", branch);
        // 4. The whole of it times the layer's scalar.
        let branch = &*branch;
        pool.for_each_row_mut(residual, d, &|t, x| {
            for (x, v) in x.iter_mut().zip(&branch[t * d..(t + 1) * d]) {
                *x = (*x + v) * self.layer_scalar;
            }
        });
        probe("layer", residual);
    }
}
