//! One decoder layer: AltUp around attention, LAuReL, feed-forward and the per-layer input.
//!
//! Source: reference section 2.4, whose step numbers stand in the code.

use std::f32::consts::FRAC_1_SQRT_2;

use super::Workspace;
use super::altup::AltUp;
use super::laurel::Laurel;
use super::sparse_feed_forward::SparseFeedForward;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::{Compute, Lane, LayerShape, Loader, Probe, Step, Sublayers};
use crate::model::gemma3n::config::TextConfig;
use crate::model::weights::WeightsError;

/// The weights of one decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    d: usize,
    altup: AltUp,
    laurel: Laurel,
    sublayers: Sublayers,
    feed_forward: SparseFeedForward,
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
        let sparsity = config.activation_sparsity_pattern[index];
        Ok(Layer {
            index,
            d,
            altup: AltUp::load(loader, config)?,
            laurel: Laurel::load(loader, config.laurel_rank, d)?,
            sublayers: Sublayers::load(loader, shape, index, d, p)?,
            feed_forward: SparseFeedForward::load(loader, shape.ffn_width, sparsity, d)?,
        })
    }

    pub(super) fn feed_forward(&self) -> &FeedForward {
        &self.feed_forward.dense
    }

    /// Steps 1 and 2 for the first `t` tokens of the workspace, and their keys and values, which others read too.
    pub(super) fn predict(
        &self,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace,
        t: usize,
    ) {
        // 1. AltUp predict.
        self.altup.predict(compute.pool, work.own.streams(t));
        // 2. The norm of the stream that is computed.
        self.norm_input(compute, work, t);
        // 4. Keys and values.
        self.sublayers.write_kv(compute, lanes, work);
    }

    /// `normed = rms(x)` for `t` tokens, x being the stream that is computed.
    pub(super) fn norm_input(&self, compute: Compute<'_>, work: &mut Workspace, t: usize) {
        let streams = &work.own.streams;
        let x = |t: usize| self.altup.active(streams, t);
        self.sublayers.norm_input(compute, t, &x, &mut work.normed);
    }

    /// Steps 3 to 9 for tokens that stand predicted and normed at the beginning of the workspace.
    pub(super) fn forward(
        &self,
        compute: Compute<'_>,
        lanes: &[Lane<'_>],
        work: &mut Workspace,
        step: &Step,
        probe: Probe<'_>,
    ) {
        let t = step.tokens.len();
        let width = t * self.d;
        let mut probe = |name, values: &[f32]| probe(name, self.index, values);
        probe("input_layernorm", work.normed.rows());
        // 3. LAuReL.
        let laurel = &mut work.own.laurel[..width];
        self.laurel
            .forward(compute, &work.normed, &mut work.scratch, laurel);
        probe("laurel_out", laurel);
        // 4. Attention.
        self.sublayers.attend(compute, lanes, work, &step.tokens);
        probe("attn_out", &work.branch[..width]);
        // 5. y = (x + attention + LAuReL) / sqrt(2).
        self.add_attention_and_laurel(compute, work, t);
        // 6. Feed-forward of y.
        self.sublayers.norm_residual(compute, work, t);
        self.feed_forward.forward(
            compute,
            &work.normed,
            step.width,
            step.skip_zeros,
            &mut work.own.active_neurons,
            &mut work.scratch,
            &mut work.branch[..width],
        );
        probe("mlp_out", &work.branch[..width]);
        // 7. z = y + feed-forward.
        let (branch, residual) = (&mut work.branch[..width], &mut work.residual[..width]);
        let norm = &self.sublayers.post_feedforward_layernorm;
        norm.add_rows(compute.pool, branch, self.d, residual);
        // 8. AltUp correct, by z.
        self.altup
            .correct(compute.pool, residual, work.own.streams(t));
        // 9. Per-layer input, into all streams but the first.
        self.add_per_layer_input(compute, work, step);
        probe("post_per_layer_input_norm", &work.branch[..width]);
        probe("layer", work.own.streams(t));
    }

    /// `residual = (x + rms(attention) + laurel) / sqrt(2)`.
    fn add_attention_and_laurel(&self, compute: Compute<'_>, work: &mut Workspace, t: usize) {
        let (isa, d) = (compute.isa(), self.d);
        let (streams, attention, laurel) = (&work.own.streams, &work.branch, &work.own.laurel);
        let residual = &mut work.residual[..t * d];
        compute.pool.for_each_row_mut(residual, d, &|t, y| {
            let row = t * d..(t + 1) * d;
            self.sublayers
                .post_attention_layernorm
                .row_into(isa, &attention[row.clone()], y);
            let x = self.altup.active(streams, t);
            for ((y, &x), &laurel) in y.iter_mut().zip(x).zip(&laurel[row]) {
                *y = (x + *y + laurel) * FRAC_1_SQRT_2;
            }
        });
    }

    fn add_per_layer_input(&self, compute: Compute<'_>, work: &mut Workspace, step: &Step) {
        let t = step.tokens.len();
        let branch = &mut work.branch[..t * self.d];
        let (x, scratch) = work.scratch.split_at_mut(branch.len());
        let streams = work.own.streams(t);
        self.altup.scaled_active(streams, x);
        let (inputs, first) = (&work.per_layer_inputs, step.tokens.start);
        self.sublayers
            .per_layer_gate
            .forward(compute, x, inputs, first, scratch, branch);
        self.altup.add_to_others(compute.isa(), branch, streams);
    }
}
