//! The small files of the published Gemma 3n. Source: reference section 1 of Gemma 3n.

use serde_json::{Value, json};

/// What differs between the sizes.
pub(super) struct Size {
    layers: usize,
    kv_shared_layers: usize,
    ffn_width: usize,
}

pub(super) const E2B: Size = Size {
    layers: 30,
    kv_shared_layers: 10,
    ffn_width: 8192,
};

pub(super) const E4B: Size = Size {
    layers: 35,
    kv_shared_layers: 15,
    ffn_width: 16_384,
};

/// Ids of media, those of the synthetic vocabulary.
const MEDIA: [(&str, u32); 6] = [
    ("boi_token_id", 6571),
    ("image_token_id", 262_145),
    ("eoi_token_id", 262_144),
    ("boa_token_id", 6572),
    ("audio_token_id", 262_273),
    ("eoa_token_id", 262_272),
];

/// `config.json`.
pub(super) fn config(size: Size, text_only: bool) -> Value {
    let layers = size.layers;
    let per_layer = |value: &dyn Fn(usize) -> Value| (0..layers).map(value).collect::<Vec<_>>();
    let text = json!({
        "model_type": "gemma3n_text",
        "hidden_size": 2048,
        "num_hidden_layers": layers,
        "num_kv_shared_layers": size.kv_shared_layers,
        "intermediate_size": per_layer(&|_| size.ffn_width.into()),
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
    config["bos_token_id"] = 2.into();
    config["pad_token_id"] = 0.into();
    for (key, id) in MEDIA.iter().filter(|_| !text_only) {
        config[key] = (*id).into();
    }
    config["eos_token_id"] = json!([1, 106]);
    config
}

/// How pictures are prepared.
pub(super) fn other_files(text_only: bool) -> Vec<(&'static str, Value)> {
    let processor = json!({"size": {"height": 768, "width": 768}});
    match text_only {
        true => Vec::new(),
        false => vec![("preprocessor_config.json", processor)],
    }
}
