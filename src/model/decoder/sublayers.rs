//! What a layer of any family has around its residual path: attention, the gate of the per-layer input, and the norms before and behind
//! attention and the feed-forward network.

use std::ops::Range;

use kernels::Inputs;

use super::attention::Attention;
use super::layout::Layout;
use super::per_layer_embedding::PerLayerGate;
use super::{Compute, Lane, LayerShape, Loader, RmsNorm, Workspace};
use crate::model::weights::WeightsError;

/// The weights that a layer of any family has beside its feed-forward network.
#[derive(Debug)]
pub(crate) struct Sublayers {
    d: usize,
    attention: Attention,
    pub(crate) per_layer_gate: PerLayerGate,
    input_layernorm: RmsNorm,
    pub(crate) post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    pub(crate) post_feedforward_layernorm: RmsNorm,
    /// Whether what the normed inputs are multiplied with is quantised.
    is_quantized: bool,
}

impl Sublayers {
    /// Of layer `index`, whose tensors `loader` knows; D and P as in `config.json`.
    pub(crate) fn load(
        loader: &Loader<'_>,
        shape: &LayerShape,
        index: usize,
        d: usize,
        p: usize,
    ) -> Result<Sublayers, WeightsError> {
        let attention = Attention::load(loader, shape, index, d)?;
        Ok(Sublayers {
            d,
            is_quantized: attention.is_quantized(loader),
            attention,
            per_layer_gate: PerLayerGate::load(loader, index, p, d)?,
            input_layernorm: loader.norm("input_layernorm.weight", d)?,
            post_attention_layernorm: loader.norm("post_attention_layernorm.weight", d)?,
            pre_feedforward_layernorm: loader.norm("pre_feedforward_layernorm.weight", d)?,
            post_feedforward_layernorm: loader.norm("post_feedforward_layernorm.weight", d)?,
        })
    }

    /// `normed = rms(x)` for `t` tokens.
    pub(crate) fn norm_input<'r>(
        &self,
        compute: Compute<'_>,
        t: usize,
        x: &(dyn Fn(usize) -> &'r [f32] + Sync),
        normed: &mut Inputs,
    ) {
        self.input_layernorm
            .inputs(compute.pool, t, x, self.is_quantized, normed);
    }

    /// Stores the keys and values of `normed`.
    pub(crate) fn write_kv<S: Layout>(
        &self,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace<S>,
    ) {
        self.attention
            .write_kv(compute, &work.normed, &work.rope, lanes, &mut work.scratch);
    }

    /// `branch = attention(normed)` for these tokens of the chunk.
    pub(crate) fn attend<S: Layout>(
        &self,
        compute: Compute<'_>,
        lanes: &[Lane<'_>],
        work: &mut Workspace<S>,
        tokens: &Range<usize>,
    ) {
        self.attention.forward(
            compute,
            &work.normed,
            tokens.start,
            &work.rope,
            lanes,
            &mut work.scratch,
            &mut work.attention_parts,
            &mut work.branch[..tokens.len() * self.d],
        );
    }

    /// `normed = rms(residual)` for `t` tokens, which the feed-forward network reads.
    pub(crate) fn norm_residual<S: Layout>(
        &self,
        compute: Compute<'_>,
        work: &mut Workspace<S>,
        t: usize,
    ) {
        let (d, residual) = (self.d, &work.residual);
        let row = |t: usize| &residual[t * d..(t + 1) * d];
        self.pre_feedforward_layernorm.inputs(
            compute.pool,
            t,
            &row,
            self.is_quantized,
            &mut work.normed,
        );
    }
}
