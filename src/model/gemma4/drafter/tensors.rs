//! The tensors of the drafter.
//!
//! Source: drafter section 1.

use crate::model::gemma4::config::DrafterConfig;
use crate::model::tensor_table::{Access, Role, TextTable, TextTensor};
use crate::model::weights::{DRAFTER, DRAFTER_HEAD, DRAFTER_ORDERING};

/// A row for each cluster of ids.
pub(super) const CENTROIDS: &str = "masked_embedding.centroids.weight";

/// Every tensor, in the order in which a guess meets them.
pub(in crate::model::gemma4) fn tensors(config: &DrafterConfig) -> Vec<TextTensor> {
    let mut table = TextTable::of(DRAFTER);
    let (d, wide) = (config.hidden_size, config.backbone_hidden_size);
    table.matrix("pre_projection.weight", Role::Side, d, 2 * wide);
    for (index, layer) in config.layers.iter().enumerate() {
        table.layer = Some(index);
        let (query, ffn) = (layer.query_width(), layer.ffn_width);
        table.numbers("input_layernorm.weight", &[d]);
        table.matrix("self_attn.q_proj.weight", Role::Attention, query, d);
        table.numbers("self_attn.q_norm.weight", &[layer.head_dim]);
        table.matrix("self_attn.o_proj.weight", Role::Attention, d, query);
        table.numbers("post_attention_layernorm.weight", &[d]);
        table.numbers("pre_feedforward_layernorm.weight", &[d]);
        table.matrix("mlp.gate_proj.weight", Role::FeedForward, ffn, d);
        table.matrix("mlp.up_proj.weight", Role::FeedForward, ffn, d);
        table.matrix("mlp.down_proj.weight", Role::FeedForward, d, ffn);
        table.numbers("post_feedforward_layernorm.weight", &[d]);
        table.numbers("layer_scalar", &[1]);
    }
    table.layer = None;
    table.numbers("norm.weight", &[d]);
    table.matrix("post_projection.weight", Role::Side, wide, d);
    let mut head_share = 1.0;
    if let Some(clusters) = config.clusters {
        table.matrix(CENTROIDS, Role::Side, clusters.count, d);
        table.numbers(&DRAFTER_ORDERING[DRAFTER.len()..], &[config.vocab_size]);
        head_share = clusters.looked_into as f64 / clusters.count as f64;
    }
    let head = Some((Role::Head, Access::Whole));
    table.add(
        &DRAFTER_HEAD[DRAFTER.len()..],
        &[config.vocab_size, d],
        head,
        head_share,
    );
    table.tensors
}
