//! One decoder layer: AltUp around attention, LAuReL, feed-forward and the per-layer input.
//!
//! Source: reference section 2.4, whose step numbers stand in the code.

use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

use kernels::elementwise::add;

use super::altup::AltUp;
use super::laurel::Laurel;
use super::sparse_feed_forward::SparseFeedForward;
use super::workspace::{Buffers, Workspace};
use crate::model::decoder::attention::Attention;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::per_layer_embedding::PerLayerGate;
use crate::model::decoder::{Compute, LayerShape, Loader, Probe, RmsNorm};
use crate::model::gemma3n::config::TextConfig;
use crate::model::weights::{Mapped, Stretch, WeightsError};

/// The weights of one decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    d: usize,
    altup: AltUp,
    laurel: Laurel,
    attention: Attention,
    feed_forward: SparseFeedForward,
    per_layer_gate: PerLayerGate,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
    /// Whether what the normed inputs are multiplied with is quantised.
    is_quantized: bool,
}

/// How a layer is to treat the tokens it is given.
pub(super) struct Step {
    /// Which of the chunk in work they are.
    pub(super) tokens: Range<usize>,
    /// FFN width.
    pub(super) width: usize,
    pub(super) skip_zeros: bool,
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
        let attention = Attention::load(loader, shape, index, d)?;
        Ok(Layer {
            index,
            d,
            altup: AltUp::load(loader, config)?,
            laurel: Laurel::load(loader, config.laurel_rank, d)?,
            is_quantized: attention.is_quantized(loader),
            attention,
            feed_forward: SparseFeedForward::load(loader, shape.ffn_width, sparsity, d)?,
            per_layer_gate: PerLayerGate::load(loader, index, p, d)?,
            input_layernorm: loader.norm("input_layernorm.weight", d)?,
            post_attention_layernorm: loader.norm("post_attention_layernorm.weight", d)?,
            pre_feedforward_layernorm: loader.norm("pre_feedforward_layernorm.weight", d)?,
            post_feedforward_layernorm: loader.norm("post_feedforward_layernorm.weight", d)?,
        })
    }

    /// Whether the first `width` FFN neurons can be run alone.
    pub(super) fn serves(&self, width: usize) -> bool {
        self.feed_forward.dense.serves(width)
    }

    /// Feed-forward weights that a slice of this width does not read.
    pub(super) fn unused(&self, weights: &Mapped, width: usize, out: &mut Vec<Stretch>) {
        self.feed_forward.dense.unused(weights, width, out);
    }

    /// Steps 1 and 2 for the first `t` tokens of the workspace, and their keys and values, which others read too.
    pub(super) fn predict(
        &self,
        compute: Compute<'_>,
        cache: &mut KvCache,
        work: &mut Workspace,
        t: usize,
    ) {
        let b = &mut work.of(t);
        // 1. AltUp predict.
        self.altup.predict(compute.pool, b.streams);
        // 2. The norm of the stream that is computed.
        self.norm_input(compute, b);
        // 4. Keys and values.
        self.attention
            .write_kv(compute, b.normed, b.rope, cache, b.scratch);
    }

    /// Steps 3 to 9 for tokens that stand predicted and normed at the beginning of the workspace.
    pub(super) fn forward(
        &self,
        compute: Compute<'_>,
        cache: &KvCache,
        work: &mut Workspace,
        step: Step,
        probe: Probe<'_>,
    ) {
        let b = &mut work.of(step.tokens.len());
        let mut probe = |name, values: &[f32]| probe(name, self.index, values);
        probe("input_layernorm", b.normed.rows());
        // 3. LAuReL.
        self.laurel.forward(compute, b.normed, b.scratch, b.laurel);
        probe("laurel_out", b.laurel);
        // 4. Attention.
        self.attend(compute, cache, b, &step);
        probe("attn_out", b.branch);
        // 5. y = (x + attention + LAuReL) / sqrt(2).
        self.add_attention_and_laurel(compute, b);
        // 6. Feed-forward of y.
        self.feed_forward(compute, b, &step);
        probe("mlp_out", b.branch);
        // 7. z = y + feed-forward.
        self.add_feed_forward(compute, b);
        // 8. AltUp correct, by z.
        self.altup.correct(compute.pool, b.residual, b.streams);
        // 9. Per-layer input, into all streams but the first.
        self.add_per_layer_input(compute, b, &step);
        probe("post_per_layer_input_norm", b.branch);
        probe("layer", b.streams);
    }

    /// `normed = rms(x)`, x being the stream that is computed.
    pub(super) fn norm_input(&self, compute: Compute<'_>, b: &mut Buffers<'_>) {
        let x = |t: usize| self.altup.active(b.streams, t);
        self.input_layernorm
            .inputs(compute.pool, b.tokens, &x, self.is_quantized, b.normed);
    }

    fn attend(&self, compute: Compute<'_>, cache: &KvCache, b: &mut Buffers<'_>, step: &Step) {
        self.attention.forward(
            compute,
            b.normed,
            step.tokens.start,
            b.rope,
            cache,
            b.scratch,
            b.attention_parts,
            b.branch,
        );
    }

    /// `residual = (x + rms(attention) + laurel) / sqrt(2)`.
    fn add_attention_and_laurel(&self, compute: Compute<'_>, b: &mut Buffers<'_>) {
        let (isa, d) = (compute.isa(), self.d);
        let (streams, attention, laurel) = (&*b.streams, &*b.branch, &*b.laurel);
        compute.pool.for_each_row_mut(b.residual, d, &|t, y| {
            let row = t * d..(t + 1) * d;
            self.post_attention_layernorm
                .row_into(isa, &attention[row.clone()], y);
            let x = self.altup.active(streams, t);
            for ((y, &x), &laurel) in y.iter_mut().zip(x).zip(&laurel[row]) {
                *y = (x + *y + laurel) * FRAC_1_SQRT_2;
            }
        });
    }

    /// `branch = feed_forward(rms(residual))`.
    fn feed_forward(&self, compute: Compute<'_>, b: &mut Buffers<'_>, step: &Step) {
        let (d, y) = (self.d, &*b.residual);
        let y = |t: usize| &y[t * d..(t + 1) * d];
        self.pre_feedforward_layernorm.inputs(
            compute.pool,
            b.tokens,
            &y,
            self.is_quantized,
            b.normed,
        );
        self.feed_forward.forward(
            compute,
            b.normed,
            step.width,
            step.skip_zeros,
            b.active_neurons,
            b.scratch,
            b.branch,
        );
    }

    /// `residual += rms(branch)`.
    fn add_feed_forward(&self, compute: Compute<'_>, b: &mut Buffers<'_>) {
        let (isa, d) = (compute.isa(), self.d);
        self.post_feedforward_layernorm
            .rows(compute.pool, b.branch, d);
        let branch = &*b.branch;
        compute.pool.for_each_row_mut(b.residual, d, &|t, z| {
            add(isa, z, &branch[t * d..(t + 1) * d]);
        });
    }

    fn add_per_layer_input(&self, compute: Compute<'_>, b: &mut Buffers<'_>, step: &Step) {
        let (x, scratch) = b.scratch.split_at_mut(b.branch.len());
        self.altup.scaled_active(b.streams, x);
        let (inputs, first) = (&*b.per_layer_inputs, step.tokens.start);
        self.per_layer_gate
            .forward(compute, x, inputs, first, scratch, b.branch);
        self.altup.add_to_others(compute.isa(), b.branch, b.streams);
    }
}
