//! `text_config`: the decoder.

use std::ops::Range;

use serde_json::Value;

use crate::model::config::{ConfigError, LayerType, MAX_LAYERS, MAX_WIDTH, Section, brief};
use crate::model::weights::PleShape;

/// The decoder's hyper-parameters, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Width of the residual streams, D.
    pub hidden_size: usize,
    /// Decoder layers, L.
    pub num_hidden_layers: usize,
    /// The last so many layers compute no K and V of their own.
    pub num_kv_shared_layers: usize,
    /// FFN width of each layer.
    pub intermediate_size: Vec<usize>,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of `embed_tokens`, media ids included.
    pub vocab_size: usize,
    /// Rows of the PLE table: the text vocabulary.
    pub vocab_size_per_layer_input: usize,
    /// Width of a per-layer input, P.
    pub hidden_size_per_layer_input: usize,
    /// Attention of each layer.
    pub layer_types: Vec<LayerType>,
    /// Keys that a sliding layer sees, the query's own included.
    pub sliding_window: usize,
    /// Share of FFN activations that a layer forces to zero; 0 for a dense layer.
    pub activation_sparsity_pattern: Vec<f64>,
    /// Residual streams, A.
    pub altup_num_inputs: usize,
    /// The stream that attention and FFN work on.
    pub altup_active_idx: usize,
    /// Whether the per-layer input gate scales its input.
    pub altup_correct_scale: bool,
    /// Rank of LAuReL's two matrices.
    pub laurel_rank: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// RoPE base of full-attention layers.
    pub rope_theta: f64,
    /// RoPE base of sliding layers.
    pub rope_local_base_freq: f64,
    /// Logits are `cap · tanh(logit / cap)`; `None` for no cap.
    pub final_logit_softcapping: Option<f32>,
    /// Longest context, tokens.
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Layers that compute K and V: 0 up to this.
    pub fn first_kv_shared_layer(&self) -> usize {
        self.num_hidden_layers - self.num_kv_shared_layers
    }

    /// The layer whose K and V this layer reads: itself, or the last producer of the same type.
    ///
    /// Source: reference section 2.5.
    pub fn kv_source(&self, layer: usize) -> usize {
        LayerType::kv_source(&self.layer_types, self.first_kv_shared_layer(), layer)
    }

    /// Sizes of the per-layer-embedding table.
    pub fn ple_shape(&self) -> PleShape {
        PleShape {
            rows: self.vocab_size_per_layer_input,
            layers: self.num_hidden_layers,
            width: self.hidden_size_per_layer_input,
        }
    }

    /// The ids beyond the text vocabulary, whose embeddings the encoders have.
    ///
    /// Source: reference section 5.
    pub fn row_ids(&self) -> Vec<Range<u32>> {
        let beyond = self.vocab_size_per_layer_input as u32..self.vocab_size as u32;
        std::iter::once(beyond).collect()
    }

    /// Width of the query projection.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the key projection, and of the value projection.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

pub(super) fn read(section: &Section<'_>) -> Result<TextConfig, ConfigError> {
    let layers = section.size("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return Err(section.error(
            "num_hidden_layers",
            format!("{layers} is more than {MAX_LAYERS}"),
        ));
    }
    let shared = section.count("num_kv_shared_layers")?;
    if shared >= layers {
        return Err(section.error(
            "num_kv_shared_layers",
            format!("{shared} of {layers} layers would leave none that computes K and V"),
        ));
    }
    refuse_unsupported(section)?;
    let (rope_theta, rope_local_base_freq) = rope_bases(section)?;
    let vocab_size = section.size("vocab_size")?;
    let config = TextConfig {
        hidden_size: section.size("hidden_size")?,
        num_hidden_layers: layers,
        num_kv_shared_layers: shared,
        intermediate_size: intermediate_size(section, layers)?,
        num_attention_heads: section.size("num_attention_heads")?,
        num_key_value_heads: section.size("num_key_value_heads")?,
        head_dim: section.size("head_dim")?,
        vocab_size,
        vocab_size_per_layer_input: section.size_or("vocab_size_per_layer_input", vocab_size)?,
        hidden_size_per_layer_input: section.size("hidden_size_per_layer_input")?,
        layer_types: layer_types(section, layers)?,
        sliding_window: section.size("sliding_window")?,
        activation_sparsity_pattern: sparsity(section, layers)?,
        altup_num_inputs: section.size_or("altup_num_inputs", 4)?,
        altup_active_idx: section
            .get("altup_active_idx")
            .map_or(Ok(0), |_| section.count("altup_active_idx"))?,
        altup_correct_scale: section
            .get("altup_correct_scale")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        laurel_rank: section.size_or("laurel_rank", 64)?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        rope_theta,
        rope_local_base_freq,
        final_logit_softcapping: match section.get("final_logit_softcapping") {
            None => None,
            Some(_) => Some(section.positive_or("final_logit_softcapping", 30.0)? as f32),
        },
        max_position_embeddings: section.size_or("max_position_embeddings", 32_768)?,
    };
    check(section, &config)?;
    Ok(config)
}

fn check(section: &Section<'_>, config: &TextConfig) -> Result<(), ConfigError> {
    let widest = config.intermediate_size.iter().copied().max().unwrap_or(0);
    for (key, width) in [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", widest),
        ("laurel_rank", config.laurel_rank),
        ("num_attention_heads × head_dim", config.query_width()),
        ("num_key_value_heads × head_dim", config.kv_width()),
        (
            "num_hidden_layers × hidden_size_per_layer_input",
            config.num_hidden_layers * config.hidden_size_per_layer_input,
        ),
    ] {
        section.at_most(MAX_WIDTH, key, width)?;
    }
    if !config
        .num_attention_heads
        .is_multiple_of(config.num_key_value_heads)
    {
        return Err(section.error(
            "num_key_value_heads",
            format!(
                "{} does not divide num_attention_heads {}",
                config.num_key_value_heads, config.num_attention_heads
            ),
        ));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(section.error(
            "head_dim",
            format!("{} is odd; RoPE turns pairs", config.head_dim),
        ));
    }
    // A router row and a coefficient matrix per stream: the real models have 4.
    if config.altup_num_inputs > 64 {
        return Err(section.error(
            "altup_num_inputs",
            format!("{} is more than 64", config.altup_num_inputs),
        ));
    }
    if config.altup_active_idx >= config.altup_num_inputs {
        return Err(section.error(
            "altup_active_idx",
            format!("{} is not below altup_num_inputs", config.altup_active_idx),
        ));
    }
    if config.vocab_size_per_layer_input > config.vocab_size {
        return Err(section.error("vocab_size_per_layer_input", "is more than vocab_size"));
    }
    section.check_kv_producers(&config.layer_types, config.first_kv_shared_layer())
}

/// Keys that change the arithmetic in ways that no Gemma 3n uses.
fn refuse_unsupported(section: &Section<'_>) -> Result<(), ConfigError> {
    if let Some(value) = section.get("rope_scaling") {
        return Err(section.error(
            "rope_scaling",
            format!("is {}; Gemma 3n has none", brief(value)),
        ));
    }
    for key in ["hidden_activation", "hidden_act"] {
        match section.get(key).map(|value| value.as_str().unwrap_or("")) {
            None | Some("gelu_pytorch_tanh") => {}
            Some(other) => {
                return Err(section.error(
                    key,
                    format!("is {other:?}; supported is \"gelu_pytorch_tanh\""),
                ));
            }
        }
    }
    for (key, expected) in [("attention_bias", false), ("tie_word_embeddings", true)] {
        if section
            .get(key)
            .is_some_and(|value| value.as_bool() != Some(expected))
        {
            return Err(section.error(key, format!("only {expected} is supported")));
        }
    }
    Ok(())
}

/// (full, sliding): `rope_theta` and `rope_local_base_freq` in released files, `rope_parameters` in transformers 5.
fn rope_bases(section: &Section<'_>) -> Result<(f64, f64), ConfigError> {
    let Some(parameters) = section.section("rope_parameters") else {
        return Ok((
            section.positive_or("rope_theta", 1e6)?,
            section.positive_or("rope_local_base_freq", 1e4)?,
        ));
    };
    let base = |key: &'static str, default: f64| match parameters.section(key) {
        None => Ok(default),
        Some(by_type) => {
            match by_type
                .get("rope_type")
                .map(|value| value.as_str().unwrap_or(""))
            {
                None | Some("default") => by_type.positive_or("rope_theta", default),
                Some(other) => Err(by_type.error(
                    "rope_type",
                    format!("is {other:?}; supported is \"default\""),
                )),
            }
        }
    };
    Ok((
        base("full_attention", 1e6)?,
        base("sliding_attention", 1e4)?,
    ))
}

fn intermediate_size(section: &Section<'_>, layers: usize) -> Result<Vec<usize>, ConfigError> {
    const KEY: &str = "intermediate_size";
    match section.get(KEY) {
        Some(value @ Value::Array(_)) => section
            .list(KEY, value, layers)?
            .iter()
            .map(|value| section.size_of(KEY, value))
            .collect(),
        _ => Ok(vec![section.size(KEY)?; layers]),
    }
}

fn layer_types(section: &Section<'_>, layers: usize) -> Result<Vec<LayerType>, ConfigError> {
    let every_fifth = |i: usize| {
        if (i + 1).is_multiple_of(5) {
            LayerType::Full
        } else {
            LayerType::Sliding
        }
    };
    let given = section.layer_types(layers)?;
    Ok(given.unwrap_or_else(|| (0..layers).map(every_fifth).collect()))
}

fn sparsity(section: &Section<'_>, layers: usize) -> Result<Vec<f64>, ConfigError> {
    const KEY: &str = "activation_sparsity_pattern";
    let values = match section.get(KEY) {
        None => {
            let sparse = if layers > 10 { 10 } else { 0 };
            return Ok((0..layers)
                .map(|i| if i < sparse { 0.95 } else { 0.0 })
                .collect());
        }
        Some(value @ Value::Array(_)) => section
            .list(KEY, value, layers)?
            .iter()
            .map(|value| section.number_of(KEY, value))
            .collect::<Result<Vec<f64>, _>>()?,
        Some(value) => vec![section.number_of(KEY, value)?; layers],
    };
    match values.iter().find(|share| !(0.0..1.0).contains(*share)) {
        Some(share) => Err(section.error(KEY, format!("{share} is not in 0 ≤ share < 1"))),
        None => Ok(values),
    }
}
