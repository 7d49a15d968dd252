//! `config.json` of the published models.

use serde_json::{Value, json};

use crate::model::tokenizer::ControlTokens;

/// Which published model a synthetic pack has the size of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticSize {
    /// 30 layers, 8192 FFN neurons each.
    E2b,
    /// 35 layers, 16384 FFN neurons each.
    E4b,
}

impl SyntheticSize {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            SyntheticSize::E2b => "e2b",
            SyntheticSize::E4b => "e4b",
        }
    }
}

/// The file's text. Source: reference section 1.
pub(in crate::pack) fn config_json(
    size: SyntheticSize,
    text_only: bool,
    control: &ControlTokens,
) -> String {
    let (layers, shared, width) = match size {
        SyntheticSize::E2b => (30, 10, 8192),
        SyntheticSize::E4b => (35, 15, 16_384),
    };
    let per_layer = |value: &dyn Fn(usize) -> Value| (0..layers).map(value).collect::<Vec<_>>();
    let text = json!({
        "model_type": "gemma3n_text",
        "hidden_size": 2048,
        "num_hidden_layers": layers,
        "num_kv_shared_layers": shared,
        "intermediate_size": per_layer(&|_| width.into()),
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "vocab_size": 262_400,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
        "layer_types": per_layer(&|i| if (i + 1) % 5 == 0 { "full_attention" } else { "sliding_attention" }.into()),
        "sliding_window": 512,
        "activation_sparsity_pattern": per_layer(&|i| if i < 10 { 0.95 } else { 0.0 }.into()),
        "altup_num_inputs": 4,
        "altup_active_idx": 0,
        "altup_correct_scale": true,
        "laurel_rank": 64,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 32_768,
    });
    let mut config = if text_only {
        text
    } else {
        json!({
            "model_type": "gemma3n",
            "text_config": text,
            // Every key has the published value where it is not given.
            "audio_config": {"model_type": "gemma3n_audio"},
            "vision_config": {"model_type": "gemma3n_vision"},
            "vision_soft_tokens_per_image": 256,
            "audio_soft_tokens_per_image": 188,
        })
    };
    let mut id = |key: &str, id: u32| config[key] = id.into();
    id("bos_token_id", control.bos);
    id("pad_token_id", control.pad.unwrap_or(0));
    if let (Some(image), Some(audio), false) = (control.image, control.audio, text_only) {
        id("boi_token_id", image.start);
        id("image_token_id", image.soft);
        id("eoi_token_id", image.end);
        id("boa_token_id", audio.start);
        id("audio_token_id", audio.soft);
        id("eoa_token_id", audio.end);
    }
    config["eos_token_id"] = json!([control.eos, control.end_of_turn]);
    format!("{config:#}\n")
}
