//! What `config.json` of a Gemma 3n checkpoint says.
//!
//! Names are those of the file. Nothing is assumed that can be read; what is read is checked before anything is sized
//! by it.

mod text;

use std::path::Path;

use serde_json::Value;

pub use self::text::TextConfig;
use crate::model::config::{self, ConfigError, MAX_WIDTH, Section};
use crate::model::special_ids::{MediaIds, SpecialIds};

/// The most soft tokens that a picture or a clip may become; the real numbers are 256 and 188.
const MAX_SOFT_TOKENS: usize = 4096;

/// Everything that `config.json` says about a Gemma 3n checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower; `None` in a text-only checkpoint.
    pub vision: Option<VisionConfig>,
    /// The audio tower; `None` in a text-only checkpoint.
    pub audio: Option<AudioConfig>,
    /// Token ids with a meaning.
    pub ids: SpecialIds,
    /// Soft tokens that one picture becomes.
    pub vision_soft_tokens_per_image: usize,
    /// Soft tokens that one audio clip becomes (the key says "image" in the published files too).
    pub audio_soft_tokens_per_image: usize,
}

/// `vision_config`: MobileNetV5 and the embedder behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Channels of the encoder's output.
    pub hidden_size: usize,
    /// Ids of vision tokens that are not soft.
    pub vocab_size: usize,
    /// The first of them.
    pub vocab_offset: usize,
    /// Epsilon of the embedder's norms.
    pub rms_norm_eps: f32,
    /// Overrides of the architecture table (`null` in released checkpoints); the tower reads them.
    pub model_args: Option<serde_json::Value>,
}

/// `audio_config`: the USM conformer and the embedder behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    /// Width of the conformer.
    pub hidden_size: usize,
    /// Mel bins.
    pub input_feat_size: usize,
    /// Conformer blocks.
    pub conf_num_hidden_layers: usize,
    /// Attention heads.
    pub conf_num_attention_heads: usize,
    /// Frames per attention chunk (it does not change the result).
    pub conf_attention_chunk_size: usize,
    /// Key frames that a query sees, itself included.
    pub conf_attention_context_left: usize,
    /// Key frames ahead of a query; 0 in every released model.
    pub conf_attention_context_right: usize,
    /// Soft cap on attention logits.
    pub conf_attention_logit_cap: f32,
    /// Taps of the light convolution.
    pub conf_conv_kernel_size: usize,
    /// Frames per soft token.
    pub conf_reduction_factor: usize,
    /// Weight of a feed-forward module's residual.
    pub conf_residual_weight: f32,
    /// Activations are clamped to ± this.
    pub gradient_clipping: f32,
    /// Channels of the two sub-sampling convolutions.
    pub sscp_conv_channel_size: [usize; 2],
    /// Kernels of the two sub-sampling convolutions as (time, frequency).
    pub sscp_conv_kernel_size: [[usize; 2]; 2],
    /// Strides of the two sub-sampling convolutions as (time, frequency).
    pub sscp_conv_stride_size: [[usize; 2]; 2],
    /// Epsilon of the cumulative group norm.
    pub sscp_conv_group_norm_eps: f32,
    /// Epsilon of the other norms.
    pub rms_norm_eps: f32,
    /// Ids of audio tokens that are not soft.
    pub vocab_size: usize,
    /// The first of them.
    pub vocab_offset: usize,
}

impl Config {
    /// Reads and checks `config.json` in a checkpoint's directory.
    ///
    /// # Errors
    /// The file is missing or malformed, or a key is missing or out of range.
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let (value, path) = config::read(dir)?;
        Config::of(&value, &path)
    }

    /// Likewise the bytes of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(json: &[u8], path: &Path) -> Result<Config, ConfigError> {
        Config::of(&config::parse(json, path)?, path)
    }

    /// Checks what `config.json` says; `path` is named in errors.
    ///
    /// # Errors
    /// A key is missing or out of range.
    pub(in crate::model) fn of(value: &Value, path: &Path) -> Result<Config, ConfigError> {
        let top = Section {
            value,
            name: "",
            path,
        };
        // A text-only checkpoint has the keys of the text model at the top.
        let complete = top.get("model_type").and_then(Value::as_str) != Some("gemma3n_text");
        let text_section = if complete {
            top.section("text_config")
                .ok_or_else(|| top.error("text_config", "is missing"))?
        } else {
            top
        };
        let section = |key| top.section(key).filter(|_| complete);
        let text = text::read(&text_section)?;
        let vision = section("vision_config").map(|s| vision(&s)).transpose()?;
        let audio = section("audio_config").map(|s| audio(&s)).transpose()?;
        let ids = special_ids(&top, &text_section, complete)?;
        let mut all = [ids.bos].into_iter().chain(ids.eos.iter().copied());
        if let Some(id) = all.find(|&id| id as usize >= text.vocab_size) {
            return Err(top.error(
                "bos/eos_token_id",
                format!("id {id} is outside vocab_size {}", text.vocab_size),
            ));
        }
        Ok(Config {
            text,
            vision,
            audio,
            ids,
            vision_soft_tokens_per_image: soft_tokens(&top, "vision_soft_tokens_per_image", 256)?,
            audio_soft_tokens_per_image: soft_tokens(&top, "audio_soft_tokens_per_image", 188)?,
        })
    }
}

fn soft_tokens(top: &Section<'_>, key: &str, default: usize) -> Result<usize, ConfigError> {
    top.at_most(MAX_SOFT_TOKENS, key, top.size_or(key, default)?)
}

fn special_ids(
    top: &Section<'_>,
    text: &Section<'_>,
    complete: bool,
) -> Result<SpecialIds, ConfigError> {
    // The released files repeat the ids in the text section; the outer one wins, as in the reference.
    let place = |key: &str| if top.get(key).is_some() { *top } else { *text };
    let media = if complete {
        Some(MediaIds {
            boi: top.id("boi_token_id")?,
            eoi: top.id("eoi_token_id")?,
            image: top.id("image_token_id")?,
            boa: top.id("boa_token_id")?,
            eoa: top.id("eoa_token_id")?,
            audio: top.id("audio_token_id")?,
        })
    } else {
        None
    };
    Ok(SpecialIds {
        bos: place("bos_token_id").id_or("bos_token_id", 2)?,
        eos: place("eos_token_id").ids_or("eos_token_id", &[1])?,
        media,
    })
}

fn vision(section: &Section<'_>) -> Result<VisionConfig, ConfigError> {
    Ok(VisionConfig {
        hidden_size: section.size_or("hidden_size", 2048)?,
        vocab_size: section.size_or("vocab_size", 128)?,
        vocab_offset: section.size_or("vocab_offset", 262_144)?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        model_args: section.get("model_args").cloned(),
    })
}

/// A 1024-point spectrum has 513 bins: more mel bins than that are no features.
const MAX_MEL_BINS: usize = 513;
/// The real kernels are 3 wide and step by 2.
const MAX_CONVOLUTION: usize = 64;

fn audio(section: &Section<'_>) -> Result<AudioConfig, ConfigError> {
    let config = AudioConfig {
        hidden_size: section.size_or("hidden_size", 1536)?,
        input_feat_size: section.size_or("input_feat_size", 128)?,
        conf_num_hidden_layers: section.size_or("conf_num_hidden_layers", 12)?,
        conf_num_attention_heads: section.size_or("conf_num_attention_heads", 8)?,
        conf_attention_chunk_size: section.size_or("conf_attention_chunk_size", 12)?,
        conf_attention_context_left: section.size_or("conf_attention_context_left", 13)?,
        conf_attention_context_right: section
            .get("conf_attention_context_right")
            .map_or(Ok(0), |_| section.count("conf_attention_context_right"))?,
        conf_attention_logit_cap: section.positive_or("conf_attention_logit_cap", 50.0)? as f32,
        conf_conv_kernel_size: section.size_or("conf_conv_kernel_size", 5)?,
        conf_reduction_factor: section.size_or("conf_reduction_factor", 4)?,
        conf_residual_weight: section.number_or("conf_residual_weight", 0.5)? as f32,
        gradient_clipping: section.positive_or("gradient_clipping", 1e10)? as f32,
        sscp_conv_channel_size: section.sizes("sscp_conv_channel_size", [128, 32])?,
        sscp_conv_kernel_size: section.pairs("sscp_conv_kernel_size", [[3, 3], [3, 3]])?,
        sscp_conv_stride_size: section.pairs("sscp_conv_stride_size", [[2, 2], [2, 2]])?,
        sscp_conv_group_norm_eps: section.positive_or("sscp_conv_group_norm_eps", 1e-3)? as f32,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        vocab_size: section.size_or("vocab_size", 128)?,
        vocab_offset: section.size_or("vocab_offset", 262_272)?,
    };
    if !config
        .hidden_size
        .is_multiple_of(config.conf_num_attention_heads)
    {
        return Err(section.error("conf_num_attention_heads", "does not divide hidden_size"));
    }
    // Bounds on what no tensor's shape limits: buffers of a frame, and products of kernel sizes.
    section.at_most(MAX_WIDTH, "hidden_size", config.hidden_size)?;
    section.at_most(MAX_MEL_BINS, "input_feat_size", config.input_feat_size)?;
    for (key, pairs) in [
        ("sscp_conv_kernel_size", config.sscp_conv_kernel_size),
        ("sscp_conv_stride_size", config.sscp_conv_stride_size),
    ] {
        for &size in pairs.as_flattened() {
            section.at_most(MAX_CONVOLUTION, key, size)?;
        }
    }
    if config.conf_attention_context_right != 0 {
        return Err(section.error(
            "conf_attention_context_right",
            "is not 0; looking ahead is not supported",
        ));
    }
    Ok(config)
}
