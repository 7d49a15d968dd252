//! The small files of the published Gemma 4. Source: reference section 1 of Gemma 4.

use serde_json::{Value, json};

/// What differs between the sizes.
#[derive(Clone, Copy)]
pub(super) struct Size {
    layers: usize,
    kv_shared_layers: usize,
    /// Every so many layers, one sees the whole context.
    full_every: usize,
    hidden_size: usize,
    kv_heads: usize,
    wide_shared_mlp: bool,
}

pub(super) const E2B: Size = Size {
    layers: 35,
    kv_shared_layers: 20,
    full_every: 5,
    hidden_size: 1536,
    kv_heads: 1,
    wide_shared_mlp: true,
};

pub(super) const E4B: Size = Size {
    layers: 42,
    kv_shared_layers: 18,
    full_every: 6,
    hidden_size: 2560,
    kv_heads: 2,
    wide_shared_mlp: false,
};

/// The drafter's `config.json` as released.
///
/// Source: drafter section 1.
pub(super) fn drafter_config(size: Size) -> Value {
    let model = config(size, true);
    let sliding = "sliding_attention";
    json!({
        "model_type": "gemma4_assistant",
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": size.hidden_size,
        "use_ordered_embeddings": true,
        "num_centroids": 2048,
        "centroid_intermediate_top_k": 32,
        "tie_word_embeddings": true,
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 4,
            "intermediate_size": 2048,
            "num_attention_heads": 4,
            "num_key_value_heads": size.kv_heads,
            "head_dim": 256,
            "global_head_dim": 512,
            "layer_types": [sliding, sliding, sliding, "full_attention"],
            "sliding_window": model["sliding_window"],
            "rope_parameters": model["rope_parameters"],
            "vocab_size": model["vocab_size"],
            "vocab_size_per_layer_input": 0,
            "hidden_size_per_layer_input": 0,
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6,
            "final_logit_softcapping": null,
            "tie_word_embeddings": true,
        },
    })
}

/// `config.json` as released.
pub(super) fn config(size: Size, text_only: bool) -> Value {
    let kind = |layer: usize| match layer % size.full_every {
        0 => "full_attention",
        _ => "sliding_attention",
    };
    let text = json!({
        "model_type": "gemma4_text",
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.layers,
        "num_kv_shared_layers": size.kv_shared_layers,
        "intermediate_size": 4 * size.hidden_size,
        "use_double_wide_mlp": size.wide_shared_mlp,
        "num_attention_heads": 8,
        "num_key_value_heads": size.kv_heads,
        "num_global_key_value_heads": null,
        "head_dim": 256,
        "global_head_dim": 512,
        "layer_types": (1..=size.layers).map(kind).collect::<Vec<_>>(),
        "sliding_window": 512,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 131_072,
        "attention_bias": false,
        "attention_k_eq_v": false,
        "enable_moe_block": false,
        "use_bidirectional_attention": null,
        "tie_word_embeddings": true,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
    });
    if text_only {
        return text;
    }
    json!({
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {
            "model_type": "gemma4_vision",
            "hidden_size": 768,
            "num_hidden_layers": 16,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
            "head_dim": 64,
            "intermediate_size": 3072,
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6,
            "patch_size": 16,
            "pooling_kernel_size": 3,
            "position_embedding_size": 10_240,
            "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
            "default_output_length": 280,
            "use_clipped_linears": true,
            "standardize": false,
        },
        "audio_config": {
            "model_type": "gemma4_audio",
            "hidden_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "hidden_act": "silu",
            "subsampling_conv_channels": [128, 32],
            "conv_kernel_size": 5,
            "attention_chunk_size": 12,
            "attention_context_left": 13,
            "attention_context_right": 0,
            "attention_logit_cap": 50.0,
            "attention_invalid_logits_value": -1e9,
            "residual_weight": 0.5,
            "gradient_clipping": 1e10,
            "output_proj_dims": 1536,
            "rms_norm_eps": 1e-6,
            "use_clipped_linears": true,
        },
        "boi_token_id": 255_999,
        "boa_token_id": 256_000,
        "image_token_id": 258_880,
        "audio_token_id": 258_881,
        "eoi_token_id": 258_882,
        "eoa_token_id": 258_883,
        "eoa_token_index": 258_883,
        "video_token_id": 258_884,
        "vision_soft_tokens_per_image": 280,
        "eos_token_id": [1, 106],
        "tie_word_embeddings": true,
        "dtype": "bfloat16",
    })
}

/// What the tokenizer's control tokens are called, how answers are sampled, how pictures and sound are prepared.
pub(super) fn other_files(text_only: bool) -> Vec<(&'static str, Value)> {
    let mut files = vec![
        ("tokenizer_config.json", tokenizer_config()),
        ("generation_config.json", generation_config()),
    ];
    if !text_only {
        files.push(("processor_config.json", processor_config()));
    }
    files
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "GemmaTokenizer",
        "model_max_length": 131_072,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "sot_token": "<|turn>",
        "eot_token": "<turn|>",
        "boi_token": "<|image>",
        "image_token": "<|image|>",
        "eoi_token": "<image|>",
        "boa_token": "<|audio>",
        "audio_token": "<|audio|>",
        "eoa_token": "<audio|>",
        "extra_special_tokens": ["<|video|>"],
        "think_token": "<|think|>",
        "soc_token": "<|channel>",
        "eoc_token": "<channel|>",
        "std_token": "<|tool>",
        "etd_token": "<tool|>",
        "stc_token": "<|tool_call>",
        "etc_token": "<tool_call|>",
        "str_token": "<|tool_response>",
        "etr_token": "<tool_response|>",
        "escape_token": "<|\"|>",
    })
}

fn generation_config() -> Value {
    json!({
        "bos_token_id": 2,
        "eos_token_id": [1, 106, 50],
        "pad_token_id": 0,
        "do_sample": true,
        "temperature": 1.0,
        "top_k": 64,
        "top_p": 0.95,
        "suppress_tokens": [258_883, 258_882],
    })
}

fn processor_config() -> Value {
    json!({
        "processor_class": "Gemma4Processor",
        "image_seq_length": 280,
        "audio_seq_length": 750,
        "audio_ms_per_token": 40,
        "image_processor": {
            "image_processor_type": "Gemma4ImageProcessor",
            "patch_size": 16,
            "pooling_kernel_size": 3,
            "max_soft_tokens": 280,
            "do_resize": true,
            "resample": 3,
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": false,
            "image_mean": [0.0, 0.0, 0.0],
            "image_std": [1.0, 1.0, 1.0],
        },
        "feature_extractor": {
            "feature_extractor_type": "Gemma4AudioFeatureExtractor",
            "feature_size": 128,
            "sampling_rate": 16_000,
            "frame_length": 320,
            "hop_length": 160,
            "fft_length": 512,
            "fft_overdrive": false,
            "min_frequency": 0.0,
            "max_frequency": 8000.0,
            "mel_floor": 1e-3,
            "preemphasis": 0.0,
            "preemphasis_htk_flavor": true,
            "dither": 0.0,
            "input_scale_factor": 1.0,
            "per_bin_mean": null,
            "per_bin_stddev": null,
        },
    })
}
