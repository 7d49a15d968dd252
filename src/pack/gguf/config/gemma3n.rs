//! That of Gemma 3n.

use serde_json::{Value as Json, json};

use super::{Keys, layer_types};
use crate::pack::error::PackError;

/// Rows of the published embedding: text, 128 ids of images, 128 of audio.
const PUBLISHED_ROWS: usize = 262_400;
const PUBLISHED_TEXT_ROWS: usize = 262_144;

pub(super) fn config(keys: &Keys<'_>) -> Result<Json, PackError> {
    let layers = keys.layers()?;
    let widths = keys.sizes("feed_forward_length", layers)?;
    let sliding = keys
        .numbers("attention.sliding_window_pattern", layers)?
        .unwrap_or_else(|| {
            (1..=layers)
                .map(|i| if i % 5 == 0 { 0.0 } else { 1.0 })
                .collect()
        });
    let cutoffs = keys
        .numbers("activation_sparsity_scale", layers)?
        .ok_or_else(|| keys.missing("activation_sparsity_scale"))?;
    let sparsity: Vec<f64> = cutoffs.iter().map(|&cutoff| share_below(cutoff)).collect();
    let rows = keys.shape("token_embd.weight")?[0];
    let text_rows = keys.shape("per_layer_token_embd.weight")?[0].min(rows);
    Ok(json!({
        "model_type": "gemma3n_text",
        "hidden_size": keys.size("embedding_length")?,
        "num_hidden_layers": layers,
        "num_kv_shared_layers": keys.size("attention.shared_kv_layers")?,
        "intermediate_size": widths,
        "num_attention_heads": keys.size("attention.head_count")?,
        "num_key_value_heads": keys.size("attention.head_count_kv")?,
        "head_dim": keys.size("attention.key_length")?,
        "vocab_size": rows,
        // llama.cpp pads the table of per-layer embeddings to the rows of the other one.
        "vocab_size_per_layer_input": if text_rows == PUBLISHED_ROWS { PUBLISHED_TEXT_ROWS } else { text_rows },
        "hidden_size_per_layer_input": keys.size("embedding_length_per_layer_input")?,
        "layer_types": layer_types(&sliding),
        "sliding_window": keys.size("attention.sliding_window")?,
        "activation_sparsity_pattern": sparsity,
        "altup_num_inputs": keys.size("altup.num_inputs")?,
        "altup_active_idx": keys.size("altup.active_idx")?,
        "altup_correct_scale": keys.header.tensors.contains_key("blk.0.altup_correct_scale.weight"),
        "laurel_rank": keys.shape("blk.0.laurel_l.weight")?[0],
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": keys.required("attention.layer_norm_rms_epsilon")?,
        "rope_theta": keys.optional("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": keys.optional("rope.freq_base_swa")?.unwrap_or(1e4),
        "final_logit_softcapping": keys.optional("final_logit_softcapping")?.unwrap_or(30.0),
        "max_position_embeddings": keys.size("context_length")?,
    }))
}

/// The share of normal values below `cutoff` standard deviations: llama.cpp stores the cutoff, config.json the share.
fn share_below(cutoff: f64) -> f64 {
    // A dense layer has minus infinity, or 0.
    if cutoff.is_nan() || cutoff <= 0.0 {
        return 0.0;
    }
    let share = 0.5 * (1.0 + libm::erf(cutoff * std::f64::consts::FRAC_1_SQRT_2));
    // The cutoff was rounded to f32; the share is a round number.
    (share * 1e6).round() / 1e6
}
