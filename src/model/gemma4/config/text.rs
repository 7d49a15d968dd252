//! `text_config`: the decoder.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::config::{ConfigError, LayerType, MAX_LAYERS, MAX_WIDTH, Section, brief};
use crate::model::weights::PleShape;

/// The decoder's hyper-parameters, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Decoder layers, L.
    pub num_hidden_layers: usize,
    /// The last so many layers compute no K and V of their own.
    pub num_kv_shared_layers: usize,
    /// FFN width of each layer: twice `intermediate_size` in the K/V-shared ones with `use_double_wide_mlp`.
    pub intermediate_size: Vec<usize>,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads of each layer.
    pub num_key_value_heads: Vec<usize>,
    /// Width of each layer's heads.
    pub head_dim: Vec<usize>,
    /// Rows of `embed_tokens`.
    pub vocab_size: usize,
    /// Rows of the PLE table.
    pub vocab_size_per_layer_input: usize,
    /// Width of a per-layer input, P.
    pub hidden_size_per_layer_input: usize,
    /// Attention of each layer.
    pub layer_types: Vec<LayerType>,
    /// Keys that a sliding layer sees, the query's own included.
    pub sliding_window: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// How positions are told in full-attention layers.
    pub full_rope: RopeParameters,
    /// How positions are told in sliding layers.
    pub sliding_rope: RopeParameters,
    /// Logits are `cap · tanh(logit / cap)`; `None` for no cap.
    pub final_logit_softcapping: Option<f32>,
    /// Longest context, tokens.
    pub max_position_embeddings: usize,
}

/// `rope_parameters` of one layer type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies.
    pub rope_theta: f64,
    /// Share of a head's pairs that turn; 1 where `rope_type` is `default`.
    pub partial_rotary_factor: f64,
    /// Divides the frequencies.
    pub factor: f64,
}

impl TextConfig {
    /// Layers that compute K and V: 0 up to this.
    pub fn first_kv_shared_layer(&self) -> usize {
        self.num_hidden_layers - self.num_kv_shared_layers
    }

    /// Sizes of the per-layer-embedding table.
    pub fn ple_shape(&self) -> PleShape {
        PleShape {
            rows: self.vocab_size_per_layer_input,
            layers: self.num_hidden_layers,
            width: self.hidden_size_per_layer_input,
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> Result<TextConfig, ConfigError> {
    refuse_larger_models(section)?;
    section.only("hidden_activation", &Value::from("gelu_pytorch_tanh"))?;
    section.only("attention_bias", &Value::from(false))?;
    let layers = section.size("num_hidden_layers")?;
    section.at_most(MAX_LAYERS, "num_hidden_layers", layers)?;
    let shared = match section.get("num_kv_shared_layers") {
        None => 0,
        Some(_) => section.count("num_kv_shared_layers")?,
    };
    if shared >= layers {
        return Err(section.error(
            "num_kv_shared_layers",
            format!("{shared} of {layers} layers would leave none that computes K and V"),
        ));
    }
    let layer_types = match section.layer_types(layers)? {
        Some(types) => types,
        None => return Err(section.error("layer_types", "is missing")),
    };
    let vocab_size = section.size("vocab_size")?;
    let heads = section.size("num_attention_heads")?;
    let shapes = HeadShapes::read(section, &layer_types)?;
    let config = TextConfig {
        hidden_size: section.size("hidden_size")?,
        num_hidden_layers: layers,
        num_kv_shared_layers: shared,
        intermediate_size: intermediate_size(section, layers, shared)?,
        num_attention_heads: heads,
        num_key_value_heads: shapes.kv_heads,
        head_dim: shapes.head_dim,
        vocab_size,
        vocab_size_per_layer_input: section.size_or("vocab_size_per_layer_input", vocab_size)?,
        hidden_size_per_layer_input: section.size("hidden_size_per_layer_input")?,
        layer_types,
        sliding_window: section.size("sliding_window")?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        full_rope: rope(section, "full_attention", 1e6, 0.25)?,
        sliding_rope: rope(section, "sliding_attention", 1e4, 1.0)?,
        final_logit_softcapping: match section.get("final_logit_softcapping") {
            None => None,
            Some(_) => Some(section.positive_or("final_logit_softcapping", 30.0)? as f32),
        },
        max_position_embeddings: section.size_or("max_position_embeddings", 131_072)?,
    };
    check(section, &config)?;
    Ok(config)
}

/// The larger models of the family have parts that nothing here computes; each is known by a key.
fn refuse_larger_models(section: &Section<'_>) -> Result<(), ConfigError> {
    let is_set = |key: &str| section.get(key).and_then(Value::as_bool) == Some(true);
    let larger = |key: &str, what: &str| {
        Err(section.error(
            key,
            format!(
                "this is one of the larger Gemma 4 models ({what}); gemmad runs the edge models, E2B and E4B"
            ),
        ))
    };
    if is_set("enable_moe_block") {
        return larger("enable_moe_block", "a mixture of experts, such as 26B-A4B");
    }
    if is_set("attention_k_eq_v") {
        return larger(
            "attention_k_eq_v",
            "whose values are their keys, such as 31B",
        );
    }
    if let Some(value) = section.get("use_bidirectional_attention") {
        return larger(
            "use_bidirectional_attention",
            &format!("with attention in both directions, {}", brief(value)),
        );
    }
    if matches!(
        section
            .get("hidden_size_per_layer_input")
            .map(Value::as_u64),
        Some(Some(0))
    ) {
        return larger(
            "hidden_size_per_layer_input",
            "without per-layer embeddings",
        );
    }
    Ok(())
}

fn check(section: &Section<'_>, config: &TextConfig) -> Result<(), ConfigError> {
    for (layer, (&kv_heads, &head_dim)) in config
        .num_key_value_heads
        .iter()
        .zip(&config.head_dim)
        .enumerate()
    {
        let heads = config.num_attention_heads;
        section.at_most(
            MAX_WIDTH,
            "num_attention_heads × head_dim",
            heads.saturating_mul(head_dim),
        )?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(section.error(
                "num_key_value_heads",
                format!("{kv_heads} (layer {layer}) does not divide num_attention_heads {heads}"),
            ));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(section.error(
                "head_dim",
                format!("{head_dim} (layer {layer}) is odd; RoPE turns pairs"),
            ));
        }
    }
    let widest = config.intermediate_size.iter().copied().max().unwrap_or(0);
    for (key, width) in [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", widest),
        (
            "num_hidden_layers × hidden_size_per_layer_input",
            config
                .num_hidden_layers
                .saturating_mul(config.hidden_size_per_layer_input),
        ),
    ] {
        section.at_most(MAX_WIDTH, key, width)?;
    }
    if config.vocab_size_per_layer_input != config.vocab_size {
        return Err(section.error(
            "vocab_size_per_layer_input",
            format!(
                "is {}, but Gemma 4 has a row for each of vocab_size {}",
                config.vocab_size_per_layer_input, config.vocab_size
            ),
        ));
    }
    let shared = config.first_kv_shared_layer();
    section.check_kv_producers(&config.layer_types, shared)?;
    // A shared layer reads its producer's heads.
    for layer in shared..config.num_hidden_layers {
        let source = LayerType::kv_source(&config.layer_types, shared, layer);
        for (key, of) in [
            ("head_dim", &config.head_dim),
            ("num_key_value_heads", &config.num_key_value_heads),
        ] {
            if of[layer] != of[source] {
                return Err(section.error(
                    key,
                    format!(
                        "is {} in layer {layer}, which reads the keys and values of layer {source}, where it is {}",
                        of[layer], of[source]
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn intermediate_size(
    section: &Section<'_>,
    layers: usize,
    shared: usize,
) -> Result<Vec<usize>, ConfigError> {
    let width = section.size("intermediate_size")?;
    let is_double = section.get("use_double_wide_mlp").and_then(Value::as_bool) == Some(true);
    let width_of = |layer| {
        if is_double && layer >= layers - shared {
            2 * width
        } else {
            width
        }
    };
    Ok((0..layers).map(width_of).collect())
}

/// What differs from layer to layer in attention, in either dialect: `global_head_dim` and `num_global_key_value_heads` in released files,
/// `per_layer_config` in those that transformers writes since 5.24.
pub(super) struct HeadShapes {
    pub(super) head_dim: Vec<usize>,
    pub(super) kv_heads: Vec<usize>,
}

impl HeadShapes {
    pub(super) fn read(
        section: &Section<'_>,
        types: &[LayerType],
    ) -> Result<HeadShapes, ConfigError> {
        let (head_dim, kv_heads) = (
            section.size_or("head_dim", 256)?,
            section.size("num_key_value_heads")?,
        );
        let by_layer = section.section("per_layer_config");
        let full_head_dim = match by_layer {
            // A layer without an entry is as all others then.
            Some(_) => section.size_or("global_head_dim", head_dim)?,
            None => section.size_or("global_head_dim", 512)?,
        };
        let full = |layer: &LayerType| *layer == LayerType::Full;
        let mut shapes = HeadShapes {
            head_dim: types
                .iter()
                .map(|layer| if full(layer) { full_head_dim } else { head_dim })
                .collect(),
            kv_heads: vec![kv_heads; types.len()],
        };
        for (layer, overrides) in
            by_layer.map_or_else(|| Ok(BTreeMap::new()), |map| layers_of(&map, types.len()))?
        {
            shapes.head_dim[layer] = overrides.size_or("head_dim", shapes.head_dim[layer])?;
            shapes.kv_heads[layer] =
                overrides.size_or("num_key_value_heads", shapes.kv_heads[layer])?;
        }
        Ok(shapes)
    }
}

/// The entries of a map from a layer's index, as text with or without leading zeros, to what is different there.
fn layers_of<'a>(
    map: &Section<'a>,
    layers: usize,
) -> Result<BTreeMap<usize, Section<'a>>, ConfigError> {
    let Some(entries) = map.value.as_object() else {
        return Err(map.error(
            "",
            format!("expected an object, found {}", brief(map.value)),
        ));
    };
    let entry = |(key, value): (&'a String, &'a Value)| {
        let layer = key.parse::<usize>().ok().filter(|&layer| layer < layers);
        let layer = layer
            .ok_or_else(|| map.error(key, format!("is no layer: there are {layers}, from 0 on")))?;
        let section = Section {
            value,
            name: "per_layer_config",
            path: map.path,
        };
        Ok((layer, section))
    };
    entries.iter().map(entry).collect()
}

pub(super) fn rope(
    section: &Section<'_>,
    layer_type: &'static str,
    theta: f64,
    share: f64,
) -> Result<RopeParameters, ConfigError> {
    let released = RopeParameters {
        rope_theta: theta,
        partial_rotary_factor: share,
        factor: 1.0,
    };
    let Some(by_type) = section
        .section("rope_parameters")
        .and_then(|parameters| parameters.section(layer_type))
    else {
        return Ok(released);
    };
    let share = match by_type
        .get("rope_type")
        .map(|value| value.as_str().unwrap_or(""))
    {
        None | Some("default") => 1.0,
        Some("proportional") => by_type.positive_or("partial_rotary_factor", 1.0)?,
        Some(other) => {
            return Err(by_type.error(
                "rope_type",
                format!("is {other:?}; supported are \"default\" and \"proportional\""),
            ));
        }
    };
    if share > 1.0 {
        return Err(by_type.error("partial_rotary_factor", format!("{share} is more than 1")));
    }
    Ok(RopeParameters {
        rope_theta: by_type.positive_or("rope_theta", theta)?,
        partial_rotary_factor: share,
        factor: by_type.positive_or("factor", 1.0)?,
    })
}
