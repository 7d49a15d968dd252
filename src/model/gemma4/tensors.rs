//! The tensors of Gemma 4.
//!
//! Source: reference section 6, and the lists of the published checkpoints.

use super::config::TextConfig;
use crate::model::tensor_table::{
    self, Access, Category, EncoderTensor, Role, TextTable, TextTensor, effective, other,
};

/// The text tensors, in the order in which a token meets them, and last the table of per-layer embeddings.
pub(super) fn text(config: &TextConfig) -> Vec<TextTensor> {
    let mut table = TextTable::default();
    let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
    let layers = config.num_hidden_layers;
    table.matrix("embed_tokens.weight", Role::Head, config.vocab_size, d);
    table.matrix(
        "per_layer_model_projection.weight",
        Role::Side,
        layers * p,
        d,
    );
    table.numbers("per_layer_projection_norm.weight", &[p]);
    for layer in 0..layers {
        table.layer = Some(layer);
        add_layer(&mut table, config, layer);
    }
    table.layer = None;
    table.numbers("norm.weight", &[d]);
    table.add(
        "embed_tokens_per_layer.weight",
        &[config.vocab_size_per_layer_input, layers * p],
        Some((Role::PleTable, Access::Rows)),
        1.0,
    );
    table.tensors
}

fn add_layer(table: &mut TextTable, config: &TextConfig, layer: usize) {
    let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
    let head_dim = config.head_dim[layer];
    let query = config.num_attention_heads * head_dim;
    let kv = config.num_key_value_heads[layer] * head_dim;
    table.numbers("input_layernorm.weight", &[d]);
    table.matrix("self_attn.q_proj.weight", Role::Attention, query, d);
    table.numbers("self_attn.q_norm.weight", &[head_dim]);
    // Layers that share another one's K and V may bring tensors for their own, which nothing reads.
    if layer < config.first_kv_shared_layer() {
        table.matrix("self_attn.k_proj.weight", Role::Attention, kv, d);
        table.matrix("self_attn.v_proj.weight", Role::Attention, kv, d);
        table.numbers("self_attn.k_norm.weight", &[head_dim]);
    }
    table.matrix("self_attn.o_proj.weight", Role::Attention, d, query);
    table.numbers("post_attention_layernorm.weight", &[d]);
    table.numbers("pre_feedforward_layernorm.weight", &[d]);
    let f = config.intermediate_size[layer];
    table.matrix("mlp.gate_proj.weight", Role::FeedForward, f, d);
    table.matrix("mlp.up_proj.weight", Role::FeedForward, f, d);
    let down = Some((Role::FeedForward, Access::LeadingColumns));
    table.add("mlp.down_proj.weight", &[d, f], down, 1.0);
    table.numbers("post_feedforward_layernorm.weight", &[d]);
    table.matrix("per_layer_input_gate.weight", Role::Side, p, d);
    table.matrix("per_layer_projection.weight", Role::Side, d, p);
    table.numbers("post_per_layer_input_norm.weight", &[d]);
    table.numbers("layer_scalar", &[1]);
}

/// The matrices of the encoders that many frames or patches are multiplied with, by the end of their names. All else but
/// [`DEPTHWISE`] is small, or is read number by number: the table of positions row by row.
const MATRICES: [&str; 6] = [
    ".linear.weight",
    ".input_proj.weight",
    ".input_proj_linear.weight",
    ".relative_k_proj.weight",
    ".output_proj.weight",
    ".embedding_projection.weight",
];

/// The depthwise convolution.
const DEPTHWISE: &str = ".depthwise_conv1d.weight";

/// The positions of patches.
const POSITIONS: &str = ".position_embedding_table";

/// How a tensor of the encoders is read.
pub(super) fn encoder(name: &str) -> EncoderTensor {
    if MATRICES.iter().any(|end| name.ends_with(end)) {
        EncoderTensor::Matrix
    } else if name.ends_with(DEPTHWISE) {
        EncoderTensor::Depthwise
    } else if name.ends_with(POSITIONS) {
        EncoderTensor::Rows
    } else {
        EncoderTensor::Numbers
    }
}

/// The rows in which parameters are counted, in the order in which they are printed.
///
/// Source: reference section 6 (they add up to the published totals; "effective" includes the token embeddings here).
pub(super) const CATEGORIES: [Category; 11] = [
    // Gate, up and down projections.
    effective("text.mlp"),
    // Attention projections and their norms, without the unused ones.
    effective("text.attn"),
    // Everything that feeds the per-layer inputs except the table.
    effective("text.ple_side"),
    // The decoder's layer norms and scalars.
    effective("text.norms"),
    // Token embeddings, also the LM head.
    effective("embed_tokens"),
    // The per-layer-embedding table.
    other("ple_table"),
    // K/V tensors of layers that share another layer's K/V: in the files, never used.
    other("kv_shared_unused"),
    // The vision transformer.
    other("vision_tower"),
    // The projection from vision to text width.
    other("embed_vision"),
    // The conformer.
    other("audio_tower"),
    // The projection from audio to text width.
    other("embed_audio"),
];

/// The category of what other families do not have. A head of its own are the token embeddings once more.
const OWN: [(&str, &str); 2] = [("layer_scalar", "text.norms"), ("lm_head", "embed_tokens")];

/// The name of the category of a canonical tensor name.
pub(super) fn category(config: &TextConfig, name: &str) -> Option<&'static str> {
    tensor_table::category(name, config.first_kv_shared_layer(), &OWN)
}
