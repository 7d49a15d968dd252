//! `config.json` from the keys of a GGUF file.

use std::path::Path;

use serde_json::json;

use super::super::error::PackError;
use super::header::{ARCHITECTURE, Header, Value};

/// Rows of the published embedding: text, 128 ids of images, 128 of audio.
const PUBLISHED_ROWS: usize = 262_400;
const PUBLISHED_TEXT_ROWS: usize = 262_144;
/// A decoder deeper than this is no Gemma 3n; it bounds every list that is made here.
const MAX_LAYERS: f64 = 1024.0;

struct Keys<'a> {
    header: &'a Header,
    path: &'a Path,
}

impl Keys<'_> {
    fn bad(&self, reason: String) -> PackError {
        PackError::Gguf {
            path: self.path.to_owned(),
            reason,
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.values.get(&format!("{ARCHITECTURE}.{key}"))
    }

    fn optional(&self, key: &str) -> Result<Option<f64>, PackError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(Some(*n)),
            // Where every layer has the same number, some writers list it for each.
            Some(Value::Numbers(list)) if list.windows(2).all(|w| w[0] == w[1]) => {
                Ok(list.first().copied())
            }
            Some(_) => Err(self.bad(format!("{ARCHITECTURE}.{key} is no number"))),
        }
    }

    fn required(&self, key: &str) -> Result<f64, PackError> {
        self.optional(key)?
            .ok_or_else(|| self.bad(format!("key {ARCHITECTURE}.{key} is missing")))
    }

    /// A whole number; what is read of the configuration afterwards refuses those that are too large.
    fn size(&self, key: &str) -> Result<u64, PackError> {
        let n = self.required(key)?;
        if n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0 {
            Ok(n as u64)
        } else {
            Err(self.bad(format!(
                "{ARCHITECTURE}.{key} is {n}, expected a whole number"
            )))
        }
    }

    fn numbers(&self, key: &str, len: usize) -> Result<Option<Vec<f64>>, PackError> {
        match self.get(key) {
            None | Some(Value::Number(_)) => Ok(None),
            Some(Value::Numbers(list)) if list.len() == len => Ok(Some(list.clone())),
            Some(Value::Numbers(list)) => Err(self.bad(format!(
                "{ARCHITECTURE}.{key} has {} items for {len} layers",
                list.len()
            ))),
            Some(_) => Err(self.bad(format!("{ARCHITECTURE}.{key} is no list of numbers"))),
        }
    }

    fn shape(&self, tensor: &str) -> Result<&[usize], PackError> {
        let found = self.header.tensors.get(tensor);
        found.map(|info| &info.shape[..]).ok_or_else(|| {
            self.bad(format!(
                "tensor {tensor} is missing: the file is no whole Gemma 3n"
            ))
        })
    }
}

/// The file's text; `eos` are the ids that end an answer.
pub(super) fn config_json(
    header: &Header,
    path: &Path,
    eos: &[u32],
    bos: u32,
    pad: u32,
) -> Result<String, PackError> {
    let keys = Keys { header, path };
    // Others were refused with the header.
    if !matches!(
        header.values.get("general.architecture"),
        Some(Value::Text(_))
    ) {
        return Err(keys.bad("it does not name its architecture".to_owned()));
    }
    let layers = keys.required("block_count")?;
    if !(1.0..=MAX_LAYERS).contains(&layers) {
        return Err(keys.bad(format!("{ARCHITECTURE}.block_count is {layers}")));
    }
    let layers = layers as usize;
    let widths = match keys.numbers("feed_forward_length", layers)? {
        Some(list) => list.iter().map(|&n| n as u64).collect(),
        None => vec![keys.size("feed_forward_length")?; layers],
    };
    let sliding = keys
        .numbers("attention.sliding_window_pattern", layers)?
        .unwrap_or_else(|| {
            (1..=layers)
                .map(|i| if i % 5 == 0 { 0.0 } else { 1.0 })
                .collect()
        });
    let layer_types: Vec<&str> = sliding
        .iter()
        .map(|&sliding| {
            if sliding != 0.0 {
                "sliding_attention"
            } else {
                "full_attention"
            }
        })
        .collect();
    let cutoffs = keys
        .numbers("activation_sparsity_scale", layers)?
        .ok_or_else(|| {
            keys.bad(format!(
                "key {ARCHITECTURE}.activation_sparsity_scale is missing"
            ))
        })?;
    let sparsity: Vec<f64> = cutoffs.iter().map(|&cutoff| share_below(cutoff)).collect();
    let rows = keys.shape("token_embd.weight")?[0];
    let text_rows = keys.shape("per_layer_token_embd.weight")?[0].min(rows);
    let config = json!({
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
        "layer_types": layer_types,
        "sliding_window": keys.size("attention.sliding_window")?,
        "activation_sparsity_pattern": sparsity,
        "altup_num_inputs": keys.size("altup.num_inputs")?,
        "altup_active_idx": keys.size("altup.active_idx")?,
        "altup_correct_scale": header.tensors.contains_key("blk.0.altup_correct_scale.weight"),
        "laurel_rank": keys.shape("blk.0.laurel_l.weight")?[0],
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": keys.required("attention.layer_norm_rms_epsilon")?,
        "rope_theta": keys.optional("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": keys.optional("rope.freq_base_swa")?.unwrap_or(1e4),
        "final_logit_softcapping": keys.optional("final_logit_softcapping")?.unwrap_or(30.0),
        "max_position_embeddings": keys.size("context_length")?,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
    });
    Ok(format!("{config:#}\n"))
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
