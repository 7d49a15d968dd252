//! `config.json` of a checkpoint, in both dialects: the released one and the one that transformers 5 writes.
//!
//! Names are those of the file. Nothing is assumed that can be read; what is read is checked before anything is sized
//! by it.

mod read;
mod text;

use std::path::{Path, PathBuf};

use super::files::{self, MAX_JSON_BYTES};
pub use text::{LayerType, TextConfig};

/// The largest value that any dimension may have: far above the real ones (262400 rows), far below what could overflow.
const MAX_DIMENSION: u64 = 1 << 24;

/// The largest width of a layer: every token in work has a buffer of that many values, also where the file spends few
/// bytes on it. The real models' largest is 16384.
const MAX_WIDTH: usize = 1 << 18;

/// The most soft tokens that a picture or a clip may become; the real numbers are 256 and 188.
const MAX_SOFT_TOKENS: usize = 4096;

/// `config.json` cannot be read, or asks for something that this program does not do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused to read the file.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There is no config.json, and it can be told why.
    #[error("{path} is no checkpoint of Gemma 3n: {reason}")]
    NotACheckpoint {
        /// What was given as one.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// The file is not JSON.
    #[error("{path} is not JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key is missing, has the wrong type, or a value that does not fit.
    #[error("{path}: {key}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// Expected and found.
        reason: String,
    },
}

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

/// Token ids that `config.json` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Starts every prompt.
    pub bos: u32,
    /// Any of these ends an answer.
    pub eos: Vec<u32>,
    /// Ids around and inside media; `None` in a text-only checkpoint.
    pub media: Option<MediaIds>,
}

/// Ids around and inside media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaIds {
    /// `<start_of_image>`
    pub boi: u32,
    /// `<end_of_image>`
    pub eoi: u32,
    /// `<image_soft_token>`
    pub image: u32,
    /// `<start_of_audio>`
    pub boa: u32,
    /// `<end_of_audio>`
    pub eoa: u32,
    /// `<audio_soft_token>`
    pub audio: u32,
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
    /// The file is missing or malformed, a key is missing or out of range, or the architecture is not Gemma 3n.
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let path = dir.join("config.json");
        match files::read(&path, MAX_JSON_BYTES) {
            Ok(text) => Config::parse(&text, &path),
            Err(source) => Err(match files::instead_of_checkpoint(dir) {
                Some(reason) if !path.exists() => ConfigError::NotACheckpoint {
                    path: dir.to_owned(),
                    reason,
                },
                _ => ConfigError::Io { path, source },
            }),
        }
    }

    /// Reads and checks the bytes of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(json: &[u8], path: &Path) -> Result<Config, ConfigError> {
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|source| ConfigError::Json {
                path: path.to_owned(),
                source,
            })?;
        read::config(&value, path)
    }
}
