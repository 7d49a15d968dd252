//! `vision_config`: the vision transformer.

use serde_json::Value;

use crate::model::config::{ConfigError, MAX_LAYERS, MAX_WIDTH, Section};

/// The numbers of soft tokens that a picture may be given.
pub const SOFT_TOKENS: [usize; 5] = [70, 140, 280, 560, 1120];

/// The vision transformer's hyper-parameters, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads; each has keys and values of its own.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// FFN width.
    pub intermediate_size: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Side of the square of patches that becomes one soft token.
    pub pooling_kernel_size: usize,
    /// Rows and columns that the table of positions knows.
    pub position_embedding_size: usize,
    /// Base of the frequencies of the positions in a head.
    pub rope_theta: f64,
    /// Whether the linear layers' inputs and outputs are clipped.
    pub use_clipped_linears: bool,
    /// Soft tokens that a picture may become (`vision_soft_tokens_per_image`, else `default_output_length`).
    pub soft_tokens: usize,
}

/// Pictures are cut in patches of at most this side; the real one is 16.
const MAX_PATCH_SIZE: usize = 64;
/// Patches side by side that are pooled; the real number is 3.
const MAX_POOLING: usize = 16;

pub(super) fn read(section: &Section<'_>, top: &Section<'_>) -> Result<VisionConfig, ConfigError> {
    section.only("hidden_activation", &Value::from("gelu_pytorch_tanh"))?;
    if section.get("standardize").and_then(Value::as_bool) == Some(true) {
        return Err(section.error(
            "standardize",
            "this is one of the larger Gemma 4 models, whose pictures are standardised; gemmad runs the edge models, E2B and E4B",
        ));
    }
    let heads = section.size_or("num_attention_heads", 12)?;
    let hidden_size = section.size_or("hidden_size", 768)?;
    let soft_tokens = match top.get("vision_soft_tokens_per_image") {
        Some(_) => top.size("vision_soft_tokens_per_image")?,
        None => section.size_or("default_output_length", 280)?,
    };
    if !SOFT_TOKENS.contains(&soft_tokens) {
        return Err(top.error(
            "vision_soft_tokens_per_image",
            format!("is {soft_tokens}; a picture becomes up to 70, 140, 280, 560 or 1120"),
        ));
    }
    let config = VisionConfig {
        hidden_size,
        num_hidden_layers: section.size_or("num_hidden_layers", 16)?,
        num_attention_heads: heads,
        head_dim: section.size_or("head_dim", 64)?,
        intermediate_size: section.size_or("intermediate_size", 3072)?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        patch_size: section.size_or("patch_size", 16)?,
        pooling_kernel_size: section.size_or("pooling_kernel_size", 3)?,
        position_embedding_size: section.size_or("position_embedding_size", 10_240)?,
        rope_theta: rope_theta(section)?,
        use_clipped_linears: section.get("use_clipped_linears").and_then(Value::as_bool)
            == Some(true),
        soft_tokens,
    };
    for (key, limit, value) in [
        ("hidden_size", MAX_WIDTH, config.hidden_size),
        ("intermediate_size", MAX_WIDTH, config.intermediate_size),
        (
            "num_attention_heads × head_dim",
            MAX_WIDTH,
            heads.saturating_mul(config.head_dim),
        ),
        ("num_hidden_layers", MAX_LAYERS, config.num_hidden_layers),
        ("patch_size", MAX_PATCH_SIZE, config.patch_size),
        (
            "pooling_kernel_size",
            MAX_POOLING,
            config.pooling_kernel_size,
        ),
    ] {
        section.at_most(limit, key, value)?;
    }
    if !config.head_dim.is_multiple_of(4) {
        return Err(section.error(
            "head_dim",
            format!(
                "{} is no multiple of 4: half of a head turns by the column, half by the row, each in pairs",
                config.head_dim
            ),
        ));
    }
    let kv_heads = section.size_or("num_key_value_heads", heads)?;
    if kv_heads != heads {
        return Err(section.error(
            "num_key_value_heads",
            format!(
                "is {kv_heads}, but every one of the {heads} heads has its own keys and values"
            ),
        ));
    }
    Ok(config)
}

/// `default` in released files and `axial` in newer ones mean the same.
fn rope_theta(section: &Section<'_>) -> Result<f64, ConfigError> {
    let Some(parameters) = section.section("rope_parameters") else {
        return Ok(100.0);
    };
    match parameters
        .get("rope_type")
        .map(|value| value.as_str().unwrap_or(""))
    {
        None | Some("default" | "axial") => parameters.positive_or("rope_theta", 100.0),
        Some(other) => Err(parameters.error(
            "rope_type",
            format!("is {other:?}; supported are \"default\" and \"axial\""),
        )),
    }
}
