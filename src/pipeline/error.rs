//! Why a model cannot be opened or a request not be answered.

use super::AudioStreamError;
use crate::model::config::ConfigError;
use crate::model::decoder::{SliceError, TextError};
use crate::model::drafter::DrafterError;
use crate::model::encoder::{AudioError, VisionError};
use crate::model::generation_config::GenerationConfigError;
use crate::model::grammar::GrammarError;
use crate::model::processor_config::ProcessorConfigError;
use crate::model::prompt::PromptError;
use crate::model::sampler::{NoTokenError, SamplingError};
use crate::model::tasks::TaskError;
use crate::model::tokenizer::TokenizerError;
use crate::model::tools::ToolError;
use crate::model::weights::WeightsError;

/// Why a model cannot be opened or a request not be answered.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// config.json.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// generation_config.json.
    #[error(transparent)]
    GenerationConfig(#[from] GenerationConfigError),
    /// The MatFormer slice.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The audio encoder.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A clip.
    #[error(transparent)]
    Clip(#[from] AudioStreamError),
    /// The vision encoder.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The conversation.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The prompt of a task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The prompt's tokens.
    #[error(transparent)]
    Text(TextError),
    /// Whoever watches ([`super::Engine::on_step`]) ended the work before there was a token.
    #[error("cancelled before the answer began")]
    Cancelled,
    /// What the answer may look like.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// What the model may call.
    #[error("tools: {0}")]
    Tools(#[from] ToolError),
    /// How tokens are to be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model computed no finite logit.
    #[error("{0} (try `gemmad inspect`)")]
    NoToken(#[from] NoTokenError),
    /// The instruction set forced by the environment.
    #[error(transparent)]
    Isa(#[from] kernels::IsaError),
    /// The context is impossible.
    #[error("a context of {asked} tokens is not possible: this model allows 1 to {limit}")]
    Context {
        /// Tokens asked for.
        asked: usize,
        /// What the model supports.
        limit: usize,
    },
    /// The K/V cache would be too large.
    #[error(
        "a context of {context} tokens needs a K/V cache of {gib} GiB, more than {limit_gib} GiB: ask for a shorter context, or 16-bit keys and values"
    )]
    CacheSize {
        /// Tokens asked for.
        context: usize,
        /// Its size.
        gib: u64,
        /// The most that is allowed.
        limit_gib: u64,
    },
    /// The checkpoint lacks the encoder that a medium needs.
    #[error(
        "{dir}: this checkpoint has no {what}: it cannot take {media}; use what `gemmad pack` makes of a complete {family} checkpoint, or of a text model and its towers (`--from TEXT --mmproj FILE`; those of Gemma 3n see and do not hear)"
    )]
    NoTower {
        /// The checkpoint.
        dir: String,
        /// audio tower or vision tower.
        what: &'static str,
        /// What it would be needed for.
        media: &'static str,
        /// Which models of this kind are called.
        family: &'static str,
    },
    /// How media are to be prepared.
    #[error(transparent)]
    Processor(#[from] ProcessorConfigError),
}

impl From<TextError> for EngineError {
    fn from(error: TextError) -> EngineError {
        match error {
            TextError::Interrupted => EngineError::Cancelled,
            other => EngineError::Text(other),
        }
    }
}

impl From<DrafterError> for EngineError {
    fn from(error: DrafterError) -> EngineError {
        match error {
            DrafterError::Config(error) => EngineError::Config(error),
            DrafterError::Weights(error) => EngineError::Weights(error),
        }
    }
}
