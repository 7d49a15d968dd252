//! One layer of the drafter: attention to what the decoder has stored, and feed-forward.
//!
//! Source: drafter section 3.

use super::Work;
use crate::model::decoder::attention::Attention;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Compute, LayerShape, Loader, RmsNorm};
use crate::model::weights::WeightsError;

#[derive(Debug)]
pub(super) struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
    ffn_width: usize,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
    /// The whole residual stream is multiplied with it.
    layer_scalar: f32,
    /// Whether what the normed inputs are multiplied with is quantised.
    is_quantized: bool,
}

impl Layer {
    /// Layer `index`, whose tensors `loader` knows, of a drafter of width d.
    pub(super) fn load(
        loader: &Loader<'_>,
        shape: &LayerShape,
        index: usize,
        d: usize,
    ) -> Result<Layer, WeightsError> {
        let attention = Attention::load(loader, shape, index, d)?;
        Ok(Layer {
            is_quantized: attention.is_quantized(loader),
            attention,
            feed_forward: FeedForward::load(loader, shape.ffn_width, d)?,
            ffn_width: shape.ffn_width,
            input_layernorm: loader.norm("input_layernorm.weight", d)?,
            post_attention_layernorm: loader.norm("post_attention_layernorm.weight", d)?,
            pre_feedforward_layernorm: loader.norm("pre_feedforward_layernorm.weight", d)?,
            post_feedforward_layernorm: loader.norm("post_feedforward_layernorm.weight", d)?,
            layer_scalar: loader.vector("layer_scalar", 1)?[0],
        })
    }

    /// The layer, for the token in work, at the position that `work.rope` is filled with.
    pub(super) fn forward(&self, compute: Compute<'_>, cache: &KvCache, work: &mut Work) {
        let Work {
            rope,
            residual,
            normed,
            branch,
            scratch,
            attention_parts,
            ..
        } = work;
        let (pool, d) = (compute.pool, residual.len());
        let quantize = self.is_quantized;
        self.input_layernorm
            .inputs(pool, 1, &|_| &residual[..], quantize, normed);
        self.attention.forward_without_own(
            compute,
            normed,
            rope,
            cache,
            scratch,
            attention_parts,
            branch,
        );
        self.post_attention_layernorm
            .add_rows(pool, branch, d, residual);
        self.pre_feedforward_layernorm
            .inputs(pool, 1, &|_| &residual[..], quantize, normed);
        self.feed_forward
            .forward(compute, normed, self.ffn_width, scratch, branch);
        self.post_feedforward_layernorm
            .add_rows(pool, branch, d, residual);
        residual.iter_mut().for_each(|x| *x *= self.layer_scalar);
    }
}
