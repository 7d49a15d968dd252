//! The tensors of Gemma 3n.

use super::config::TextConfig;
use crate::model::tensor_table::{
    self, Access, Category, EncoderTensor, Role, TextTable, TextTensor, effective, other,
};

/// The text tensors, in the order in which a token meets them, and last the table of per-layer embeddings.
pub(super) fn text(config: &TextConfig) -> Vec<TextTensor> {
    let mut table = TextTable::default();
    let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
    let layers = config.num_hidden_layers;
    let vocabulary = config.vocab_size_per_layer_input;
    table.matrix("embed_tokens.weight", Role::Head, vocabulary, d);
    table.matrix(
        "per_layer_model_projection.weight",
        Role::Side,
        layers * p,
        d,
    );
    table.numbers("per_layer_projection_norm.weight", &[p]);
    for i in 1..config.altup_num_inputs {
        let name = format!("altup_projections.{}.weight", i - 1);
        table.matrix(&name, Role::Side, d, d);
    }
    for layer in 0..layers {
        table.layer = Some(layer);
        add_layer(&mut table, config, layer);
    }
    table.layer = None;
    for i in 1..config.altup_num_inputs {
        let name = format!("altup_unembed_projections.{}.weight", i - 1);
        table.matrix(&name, Role::Side, d, d);
    }
    table.numbers("norm.weight", &[d]);
    table.add(
        "embed_tokens_per_layer.weight",
        &[vocabulary, layers * p],
        Some((Role::PleTable, Access::Rows)),
        1.0,
    );
    table.tensors
}

fn add_layer(table: &mut TextTable, config: &TextConfig, layer: usize) {
    let (d, p, a) = (
        config.hidden_size,
        config.hidden_size_per_layer_input,
        config.altup_num_inputs,
    );
    table.numbers("altup.router_norm.weight", &[d]);
    table.numbers("altup.modality_router.weight", &[a, d]);
    table.numbers("altup.prediction_coefs.weight", &[a * a, a]);
    table.numbers("input_layernorm.weight", &[d]);

    let r = config.laurel_rank;
    table.matrix("laurel.linear_left.weight", Role::Side, r, d);
    table.matrix("laurel.linear_right.weight", Role::Side, d, r);
    table.numbers("laurel.post_laurel_norm.weight", &[d]);

    let (query, kv) = (config.query_width(), config.kv_width());
    table.matrix("self_attn.q_proj.weight", Role::Attention, query, d);
    table.numbers("self_attn.q_norm.weight", &[config.head_dim]);
    // Layers that share another one's K and V bring tensors for their own, which nothing reads.
    if layer < config.first_kv_shared_layer() {
        table.matrix("self_attn.k_proj.weight", Role::Attention, kv, d);
        table.matrix("self_attn.v_proj.weight", Role::Attention, kv, d);
        table.numbers("self_attn.k_norm.weight", &[config.head_dim]);
    }
    table.matrix("self_attn.o_proj.weight", Role::Attention, d, query);
    table.numbers("post_attention_layernorm.weight", &[d]);
    table.numbers("pre_feedforward_layernorm.weight", &[d]);

    let f = config.intermediate_size[layer];
    let sparsity = config.activation_sparsity_pattern[layer];
    let (up, down) = match sparsity > 0.0 {
        true => (Access::Rows, Access::Columns),
        false => (Access::Whole, Access::LeadingColumns),
    };
    table.matrix("mlp.gate_proj.weight", Role::FeedForward, f, d);
    let active = 1.0 - sparsity;
    let ffn = |access| Some((Role::FeedForward, access));
    table.add("mlp.up_proj.weight", &[f, d], ffn(up), active);
    table.add("mlp.down_proj.weight", &[d, f], ffn(down), active);
    table.numbers("post_feedforward_layernorm.weight", &[d]);

    table.numbers("altup.correction_coefs.weight", &[a, a]);
    if config.altup_correct_scale {
        table.numbers("altup.correct_output_scale", &[d]);
    }
    table.matrix("per_layer_input_gate.weight", Role::Side, p, d);
    table.matrix("per_layer_projection.weight", Role::Side, d, p);
    table.numbers("post_per_layer_input_norm.weight", &[d]);
}

/// The matrices of the encoders that many frames or pixels are multiplied with, by the end of their names. All else but
/// [`DEPTHWISE`] is small, or is read number by number.
const MATRICES: [&str; 16] = [
    ".input_proj_linear.weight",
    ".q_proj.weight",
    ".k_proj.weight",
    ".v_proj.weight",
    ".pos_proj.weight",
    ".attention.post.weight",
    ".ffw_layer_1.weight",
    ".ffw_layer_2.weight",
    ".linear_start.weight",
    ".linear_end.weight",
    ".conv_exp.weight",
    ".conv_pwl.weight",
    ".pw_exp.conv.weight",
    ".pw_proj.conv.weight",
    ".proj.weight",
    ".embedding_projection.weight",
];

/// The depthwise convolutions.
const DEPTHWISE: [&str; 4] = [
    ".depthwise_conv1d.weight",
    ".dw_start.conv.weight",
    ".dw_mid.conv.weight",
    ".down_conv.weight",
];

/// How a tensor of the encoders is read.
pub(super) fn encoder(name: &str) -> EncoderTensor {
    let is_one = |of: &[&str]| of.iter().any(|end| name.ends_with(end));
    if is_one(&MATRICES) {
        EncoderTensor::Matrix
    } else if is_one(&DEPTHWISE) {
        EncoderTensor::Depthwise
    } else {
        EncoderTensor::Numbers
    }
}

/// The rows in which parameters are counted, in the order in which they are printed.
///
/// Source: reference section 8 (they add up to Google's published totals).
pub(super) const CATEGORIES: [Category; 13] = [
    // Gate, up and down projections.
    effective("text.mlp"),
    // Attention projections and their norms, without the unused ones.
    effective("text.attn"),
    // AltUp routers, coefficients and the stream projections.
    effective("text.altup"),
    // LAuReL's two low-rank matrices and norm.
    effective("text.laurel"),
    // Everything that feeds the per-layer inputs except the table.
    effective("text.ple_side"),
    // The decoder's layer norms.
    effective("text.norms"),
    // K/V tensors of layers that share another layer's K/V: in the files, never used.
    effective("kv_shared_unused"),
    // Token embeddings, also the LM head.
    other("embed_tokens"),
    // The per-layer-embedding table.
    other("ple_table"),
    // MobileNetV5.
    other("vision_tower"),
    // The projection from vision to text width.
    other("embed_vision"),
    // The conformer.
    other("audio_tower"),
    // The projection from audio to text width.
    other("embed_audio"),
];

/// The categories of what other families do not have.
const OWN: [(&str, &str); 4] = [
    ("altup", "text.altup"),
    ("altup_projections", "text.altup"),
    ("altup_unembed_projections", "text.altup"),
    ("laurel", "text.laurel"),
];

/// The name of the category of a canonical tensor name.
pub(super) fn category(config: &TextConfig, name: &str) -> Option<&'static str> {
    tensor_table::category(name, config.first_kv_shared_layer(), &OWN)
}
