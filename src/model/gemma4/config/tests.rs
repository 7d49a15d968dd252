use std::path::Path;

use serde_json::{Value, json};

use super::Config;
use crate::model::config::LayerType;
use crate::model::decoder::last_kv_producer;

/// The `config.json` of a released checkpoint, by reference section 1: E2B, or E4B.
fn released(is_e4b: bool) -> Value {
    let layers = if is_e4b { 42 } else { 35 };
    let period = if is_e4b { 6 } else { 5 };
    let types: Vec<&str> = (1..=layers)
        .map(|layer| match layer % period {
            0 => "full_attention",
            _ => "sliding_attention",
        })
        .collect();
    let mut text = json!({
        "model_type": "gemma4_text", "num_hidden_layers": layers, "hidden_size": if is_e4b { 2560 } else { 1536 },
        "intermediate_size": if is_e4b { 10_240 } else { 6144 }, "use_double_wide_mlp": !is_e4b, "num_attention_heads": 8,
        "num_key_value_heads": if is_e4b { 2 } else { 1 }, "num_global_key_value_heads": null, "head_dim": 256,
        "global_head_dim": 512, "layer_types": types, "num_kv_shared_layers": if is_e4b { 18 } else { 20 }, "sliding_window": 512,
        "hidden_size_per_layer_input": 256, "vocab_size": 262_144, "vocab_size_per_layer_input": 262_144,
        "final_logit_softcapping": 30.0, "attention_k_eq_v": false, "enable_moe_block": false, "use_bidirectional_attention": null,
        "max_position_embeddings": 131_072, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true, "attention_bias": false, "bos_token_id": 2,
        // Decoys.
        "query_pre_attn_scalar": 256, "_sliding_window_pattern": 9, "initializer_range": 0.02, "num_experts": null,
        "top_k_experts": null, "moe_intermediate_size": null,
    });
    text["rope_parameters"] = json!({
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    });
    let vision = json!({
        "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64,
        "global_head_dim": 64, "intermediate_size": 3072, "patch_size": 16, "pooling_kernel_size": 3,
        "position_embedding_size": 10_240, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "default_output_length": 280, "use_clipped_linears": true, "standardize": false,
    });
    let audio = json!({
        "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "silu",
        "subsampling_conv_channels": [128, 32], "conv_kernel_size": 5, "attention_chunk_size": 12, "attention_context_left": 13,
        "attention_context_right": 0, "attention_logit_cap": 50.0, "attention_invalid_logits_value": -1e9, "residual_weight": 0.5,
        "gradient_clipping": 1e10, "output_proj_dims": 1536, "rms_norm_eps": 1e-6, "use_clipped_linears": true,
    });
    json!({
        "model_type": "gemma4", "boi_token_id": 255_999, "boa_token_id": 256_000, "image_token_id": 258_880, "audio_token_id": 258_881,
        "eoi_token_id": 258_882, "eoa_token_id": 258_883, "eoa_token_index": 258_883, "video_token_id": 258_884,
        "vision_soft_tokens_per_image": 280, "eos_token_id": [1, 106], "tie_word_embeddings": true, "dtype": "bfloat16",
        "text_config": text, "vision_config": vision, "audio_config": audio,
    })
}

fn parse(value: &Value) -> Result<Config, String> {
    Config::of(value, Path::new("config.json")).map_err(|error| error.to_string())
}

/// The config after a change to its text section.
fn text(change: impl FnOnce(&mut Value)) -> Result<Config, String> {
    let mut value = released(false);
    change(&mut value["text_config"]);
    parse(&value)
}

#[test]
fn the_layers_are_those_of_the_released_models() {
    // K/V of 12 sliding and 3 full layers and sources 13 and 14 (E2B); 20 and 4, and 22 and 23 (E4B): reference sections 2.4 and 2.6.
    for (is_e4b, own, full, sources) in [(false, 15, 3, [13, 14]), (true, 24, 4, [22, 23])] {
        let config = parse(&released(is_e4b)).unwrap();
        let layers = config.text.layers();
        assert_eq!(last_kv_producer(&layers), own - 1);
        for (index, layer) in layers.iter().enumerate() {
            let is_full = config.text.layer_types[index] == LayerType::Full;
            assert_eq!(layer.window, (!is_full).then_some(512));
            assert_eq!(layer.head_dim, if is_full { 512 } else { 256 });
            assert_eq!(layer.rope.rotated_pairs, if is_full { 64 } else { 128 });
            assert_eq!(layer.rope.base, if is_full { 1e6 } else { 1e4 });
            assert_eq!((layer.heads, layer.kv_heads), (8, 1 + usize::from(is_e4b)));
            let source = (index >= own).then_some(sources[usize::from(is_full)]);
            assert_eq!(layer.kv_of, source, "layer {index}");
            let width = match (is_e4b, index < own) {
                (true, _) => 10_240,
                (false, true) => 6144,
                (false, false) => 12_288,
            };
            assert_eq!(layer.ffn_width, width);
        }
        let producers = layers.iter().take(own);
        assert_eq!(
            producers.filter(|layer| layer.window.is_none()).count(),
            full
        );
        assert_eq!(config.placeholders(), [258_880, 258_881, 258_884]);
        assert_eq!(config.ids.eos, [1, 106]);
        assert_eq!(config.vision.unwrap().soft_tokens, 280);
        assert_eq!(config.text.max_position_embeddings, 131_072);
    }
}

#[test]
fn both_dialects_say_the_same() {
    let released_config = parse(&released(false)).unwrap();
    let mut value = released(false);
    let section = value["text_config"].as_object_mut().unwrap();
    section.remove("global_head_dim");
    section.remove("num_global_key_value_heads");
    // Neither key: the heads of full layers are 512 wide.
    assert_eq!(parse(&value).unwrap(), released_config);
    let full = (4..35).step_by(5);
    let overrides: serde_json::Map<String, Value> = full
        .map(|layer| (format!("{layer:02}"), json!({"head_dim": 512})))
        .collect();
    value["text_config"]["per_layer_config"] = Value::Object(overrides);
    value.as_object_mut().unwrap().remove("eoa_token_id");
    value["vision_config"]["rope_parameters"]["rope_type"] = json!("axial");
    assert_eq!(parse(&value).unwrap(), released_config);
    value["text_config"]["per_layer_config"] = json!({"35": {"head_dim": 512}});
    let error = parse(&value).unwrap_err();
    assert!(error.contains("per_layer_config.35"), "{error}");
}

#[test]
fn a_text_only_checkpoint_has_its_keys_at_the_top() {
    let config = parse(&released(false)["text_config"]).unwrap();
    assert_eq!(config.text, parse(&released(false)).unwrap().text);
    assert!(config.vision.is_none() && config.audio.is_none() && config.ids.media.is_none());
    assert!(config.placeholders().is_empty());
}

#[test]
fn the_larger_models_are_refused_by_name() {
    let larger = |key: &str, value: Value| text(|text| text[key] = value).unwrap_err();
    for (error, name) in [
        (larger("enable_moe_block", json!(true)), "26B-A4B"),
        (larger("attention_k_eq_v", json!(true)), "31B"),
        (
            larger("use_bidirectional_attention", json!("vision")),
            "vision",
        ),
        (larger("hidden_size_per_layer_input", json!(0)), "per-layer"),
    ] {
        assert!(error.contains(name), "{error}");
        assert!(error.contains("E2B and E4B"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    let mut value = released(false);
    value["vision_config"]["standardize"] = json!(true);
    assert!(parse(&value).unwrap_err().contains("E2B and E4B"));
}

#[test]
fn what_does_not_fit_is_named() {
    let cases: [(&str, Value); 12] = [
        ("layer_types", Value::Null),
        ("layer_types", json!(["full_attention"])),
        ("num_kv_shared_layers", json!(35)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(255)),
        ("hidden_size", json!(0)),
        ("intermediate_size", json!(1 << 23)),
        ("vocab_size_per_layer_input", json!(262_400)),
        ("num_hidden_layers", json!(100_000)),
        ("hidden_activation", json!("relu")),
        ("tie_word_embeddings", json!(false)),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_type": "yarn"}}),
        ),
    ];
    for (key, value) in cases {
        let error = text(|text| text[key] = value.clone()).unwrap_err();
        let named = if key == "rope_parameters" {
            "rope_type"
        } else {
            key
        };
        assert!(error.contains(named), "{key}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // Shared layers whose producer has other heads, or that have no producer at all.
    let error =
        text(|text| text["per_layer_config"] = json!({"20": {"head_dim": 128}})).unwrap_err();
    assert!(error.contains("layer 20"), "{error}");
    let error = text(|text| {
        let types = text["layer_types"].as_array_mut().unwrap();
        for layer in [4, 9, 14] {
            types[layer] = json!("sliding_attention");
        }
    })
    .unwrap_err();
    assert!(error.contains("layer_types"), "{error}");
}

#[test]
fn ids_and_encoders_are_checked_too() {
    for (section, key, value) in [
        ("", "image_token_id", json!(262_144)),
        ("", "video_token_id", json!(300_000)),
        ("", "vision_soft_tokens_per_image", json!(71)),
        ("vision_config", "head_dim", json!(62)),
        ("vision_config", "num_key_value_heads", json!(4)),
        ("vision_config", "patch_size", json!(0)),
        ("audio_config", "num_attention_heads", json!(7)),
        ("audio_config", "attention_context_right", json!(1)),
        ("audio_config", "hidden_act", json!("gelu")),
    ] {
        let mut config = released(false);
        match section {
            "" => config[key] = value,
            _ => config[section][key] = value,
        }
        let error = parse(&config).unwrap_err();
        let named = if key.ends_with("_token_id") {
            "_token_id"
        } else {
            key
        };
        assert!(error.contains(named), "{key}: {error}");
    }
    let mut config = released(false);
    config.as_object_mut().unwrap().remove("boa_token_id");
    assert!(parse(&config).unwrap_err().contains("boa_token_id"));
}
