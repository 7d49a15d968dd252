//! That of Gemma 4. Source: the reference's account of its files of llama.cpp, section 2.1.

use serde_json::{Value as Json, json};

use super::{Keys, layer_types};
use crate::pack::error::PackError;

/// The share of a full-attention head that turns, where the file does not say which pairs do.
const ROTATED_SHARE: f64 = 0.25;

pub(super) fn config(keys: &Keys<'_>, rotated_pairs: Option<usize>) -> Result<Json, PackError> {
    let layers = keys.layers()?;
    let shared = match keys.get("attention.shared_kv_layers") {
        None => 0,
        Some(_) => keys.size("attention.shared_kv_layers")?,
    };
    let (width, is_double) = widths(keys, layers, shared)?;
    let sliding = keys
        .numbers("attention.sliding_window_pattern", layers)?
        .ok_or_else(|| keys.missing("attention.sliding_window_pattern"))?;
    let sliding_head_dim = head_dim(keys, "_swa")?;
    let global_head_dim = head_dim(keys, "")?;
    let kv_heads = keys.sizes("attention.head_count_kv", layers)?;
    let rotated = rotated_pairs.map_or(ROTATED_SHARE, |pairs| share(pairs, global_head_dim));
    let mut config = json!({
        "model_type": "gemma4_text",
        "hidden_size": keys.size("embedding_length")?,
        "num_hidden_layers": layers,
        "num_kv_shared_layers": shared,
        "intermediate_size": width,
        "use_double_wide_mlp": is_double,
        "num_attention_heads": keys.size("attention.head_count")?,
        "num_key_value_heads": kv_heads.first(),
        "head_dim": sliding_head_dim,
        "global_head_dim": global_head_dim,
        "vocab_size": keys.shape("token_embd.weight")?[0],
        "hidden_size_per_layer_input": keys.size("embedding_length_per_layer_input")?,
        "layer_types": layer_types(&sliding),
        "sliding_window": keys.size("attention.sliding_window")?,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": keys.required("attention.layer_norm_rms_epsilon")?,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": rotated,
                "rope_theta": keys.optional("rope.freq_base")?.unwrap_or(1e6),
            },
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": keys.optional("rope.freq_base_swa")?.unwrap_or(1e4),
            },
        },
        "max_position_embeddings": keys.size("context_length")?,
    });
    // The larger models of the family have no such table, and are told so by their configuration.
    if config["hidden_size_per_layer_input"] != 0 {
        let rows = keys.shape("per_layer_token_embd.weight")?[0];
        config["vocab_size_per_layer_input"] = rows.into();
    }
    if let Some(cap) = keys.optional("final_logit_softcapping")? {
        config["final_logit_softcapping"] = cap.into();
    }
    if kv_heads.windows(2).any(|pair| pair[0] != pair[1]) {
        let of_layer = |(layer, heads): (usize, &u64)| {
            (layer.to_string(), json!({"num_key_value_heads": heads}))
        };
        config["per_layer_config"] = kv_heads.iter().enumerate().map(of_layer).collect();
    }
    Ok(config)
}

/// The width of the feed-forward networks, and whether it is twice that in the layers that share keys and values.
fn widths(keys: &Keys<'_>, layers: usize, shared: u64) -> Result<(u64, bool), PackError> {
    let widths = keys.sizes("feed_forward_length", layers)?;
    // A share that cannot be is refused with the configuration.
    let own = layers.saturating_sub(shared as usize);
    let (own, shared) = widths.split_at(own);
    let width = widths.first().copied().unwrap_or(0);
    let all = |list: &[u64], width| list.iter().all(|&n| n == width);
    let is_double = !shared.is_empty() && !own.is_empty() && all(shared, width.saturating_mul(2));
    if all(own, width) && (is_double || all(shared, width)) {
        return Ok((width, is_double));
    }
    Err(keys.bad(format!(
        "{} lists widths that Gemma 4 does not have: one for all layers, or twice it in those that share keys and values",
        keys.full("feed_forward_length")
    )))
}

/// The width of a head, which is that of keys and of values; `kind` is the end of the keys' names.
fn head_dim(keys: &Keys<'_>, kind: &str) -> Result<u64, PackError> {
    let of_keys = keys.size(&format!("attention.key_length{kind}"))?;
    let key = format!("attention.value_length{kind}");
    match keys.get(&key) {
        Some(_) if keys.size(&key)? != of_keys => Err(keys.bad(format!(
            "{} is {}, but keys have a length of {of_keys}",
            keys.full(&key),
            keys.size(&key)?
        ))),
        _ => Ok(of_keys),
    }
}

/// The share of a head's pairs that turn, such that it gives their number again.
fn share(pairs: usize, head_dim: u64) -> f64 {
    let half = head_dim as f64 / 2.0;
    let share = pairs as f64 / half;
    match (share * half).floor() < pairs as f64 {
        true => share.next_up(),
        false => share,
    }
}
