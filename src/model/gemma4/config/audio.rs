//! `audio_config`: the conformer.

use serde_json::Value;

use crate::model::config::{ConfigError, MAX_LAYERS, MAX_WIDTH, Section};

/// The conformer's hyper-parameters, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of the two sub-sampling convolutions.
    pub subsampling_conv_channels: [usize; 2],
    /// Taps of the light convolution.
    pub conv_kernel_size: usize,
    /// Frames per attention chunk (it does not change the result).
    pub attention_chunk_size: usize,
    /// Key frames that a query sees, itself included: 13 as the weights were most likely trained, one less in transformers (reference
    /// section 4.4).
    pub attention_context_left: usize,
    /// Soft cap on attention logits.
    pub attention_logit_cap: f32,
    /// Weight of a feed-forward module's residual.
    pub residual_weight: f32,
    /// Activations are clamped to ± this.
    pub gradient_clipping: f32,
    /// Width of the output projection.
    pub output_proj_dims: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// Whether the linear layers' inputs and outputs are clipped.
    pub use_clipped_linears: bool,
}

/// Frames that attention looks back, taps of a convolution: the real numbers are 13 and 5.
const MAX_FRAMES: usize = 1024;

pub(super) fn read(section: &Section<'_>) -> Result<AudioConfig, ConfigError> {
    section.only("hidden_act", &Value::from("silu"))?;
    let config = AudioConfig {
        hidden_size: section.size_or("hidden_size", 1024)?,
        num_hidden_layers: section.size_or("num_hidden_layers", 12)?,
        num_attention_heads: section.size_or("num_attention_heads", 8)?,
        subsampling_conv_channels: section.sizes("subsampling_conv_channels", [128, 32])?,
        conv_kernel_size: section.size_or("conv_kernel_size", 5)?,
        attention_chunk_size: section.size_or("attention_chunk_size", 12)?,
        attention_context_left: section.size_or("attention_context_left", 13)?,
        attention_logit_cap: section.positive_or("attention_logit_cap", 50.0)? as f32,
        residual_weight: section.number_or("residual_weight", 0.5)? as f32,
        gradient_clipping: section.positive_or("gradient_clipping", 1e10)? as f32,
        output_proj_dims: section.size_or("output_proj_dims", 1536)?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        use_clipped_linears: section.get("use_clipped_linears").and_then(Value::as_bool)
            != Some(false),
    };
    let [first, second] = config.subsampling_conv_channels;
    for (key, limit, value) in [
        ("hidden_size", MAX_WIDTH, config.hidden_size),
        ("output_proj_dims", MAX_WIDTH, config.output_proj_dims),
        ("subsampling_conv_channels", MAX_WIDTH, first.max(second)),
        ("num_hidden_layers", MAX_LAYERS, config.num_hidden_layers),
        ("conv_kernel_size", MAX_FRAMES, config.conv_kernel_size),
        (
            "attention_context_left",
            MAX_FRAMES,
            config.attention_context_left,
        ),
    ] {
        section.at_most(limit, key, value)?;
    }
    if !config
        .hidden_size
        .is_multiple_of(config.num_attention_heads)
    {
        return Err(section.error("num_attention_heads", "does not divide hidden_size"));
    }
    if let Some(ahead) = section.get("attention_context_right")
        && ahead.as_u64() != Some(0)
    {
        return Err(section.error(
            "attention_context_right",
            "is not 0; looking ahead is not supported",
        ));
    }
    Ok(config)
}
