//! What hears and what sees, whatever its family: samples' log-mel frames, and pixels, to rows of the text model's width ("soft tokens").

use std::sync::Arc;

use kernels::Pool;
use serde::Serialize;

use super::spec::PictureSpec;
use super::weights::{Mapped, WeightsError};
use crate::media::{LogMelSpec, Resampling};

/// Why an audio encoder cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// A tensor is missing or wrong, or the files cannot be mapped.
    #[error("cannot load the audio tower: {0}")]
    Weights(#[from] WeightsError),
    /// The config asks for what no encoder can be.
    #[error("cannot load the audio tower: `audio_config.{key}` in config.json: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// An audio encoder with its weights, mapped as long as it lives.
pub trait AudioEncoder: Send + Sync {
    /// The frames that it takes.
    fn log_mel(&self) -> LogMelSpec;

    /// The mapped weights.
    fn weights(&self) -> &Mapped;

    /// Begins a clip. So many of the encoder's frames (40 ms) are encoded together: more read the weights less often, fewer give soft
    /// tokens sooner.
    fn begin(self: Arc<Self>, batch_frames: usize) -> Box<dyn ClipEncoder>;

    /// The row, as wide as the text model, that fills the unused places of a clip, where the reference fills them.
    fn padding_row(&self) -> Option<&[f32]> {
        None
    }

    /// The row of an id that the text model has no embedding for, such as `<end_of_audio>`; `None` for any other id.
    fn embedding_of(&self, _pool: &Pool, _id: u32) -> Option<Vec<f32>> {
        None
    }
}

/// A clip on its way through an audio encoder; of bounded size, however long the clip.
pub trait ClipEncoder: Send + Sync {
    /// Takes log-mel frames, `[frames, bands]`, and appends the soft tokens that have become final, `[tokens, text width]`, to
    /// `soft_tokens`; with `end`, all that remain. Returns how many they are.
    fn push(
        &mut self,
        pool: &Pool,
        log_mel: &[f32],
        end: bool,
        soft_tokens: &mut Vec<f32>,
    ) -> usize;

    /// Another clip of which as much has been heard; each goes on by itself.
    fn fork(&self) -> Box<dyn ClipEncoder>;
}

impl Clone for Box<dyn ClipEncoder> {
    fn clone(&self) -> Box<dyn ClipEncoder> {
        self.fork()
    }
}

/// Why a vision encoder cannot be loaded or a picture cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum VisionError {
    /// A tensor is missing or wrong, or the group cannot be mapped.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The config describes a network that cannot be built.
    #[error("config.json: vision_config.{key}: {reason}")]
    Config {
        /// The key at fault.
        key: String,
        /// Expected and found.
        reason: String,
    },
    /// The resolution does not fit the network.
    #[error(
        "a resolution of {resolution_px} pixels does not fit this vision tower: it must be a multiple of {step_px}, at most {limit_px}"
    )]
    Resolution {
        /// What was asked for.
        resolution_px: usize,
        /// Pixels that the network takes together.
        step_px: usize,
        /// The largest that is encoded.
        limit_px: usize,
    },
    /// An option of another family's pictures.
    #[error("{option} is not for {family}, whose pictures are sized by {instead}")]
    ForeignOption {
        /// What was given.
        option: &'static str,
        /// The model's family.
        family: &'static str,
        /// What may be given.
        instead: &'static str,
    },
    /// No picture becomes so many soft tokens.
    #[error(
        "soft_tokens is {asked}; a picture becomes at most {} of them",
        one_of(budgets)
    )]
    SoftTokens {
        /// What was asked for.
        asked: usize,
        /// What may be asked for.
        budgets: &'static [usize],
    },
    /// The picture itself.
    #[error("a picture of {width_px} x {height_px} pixels cannot be looked at: {reason}")]
    Picture {
        /// Its width.
        width_px: usize,
        /// Its height.
        height_px: usize,
        /// Why.
        reason: String,
    },
}

/// What may be chosen of how pictures are encoded. Each family has one of these ([`PictureSpec`]), and settles it where it is left open
/// ([`super::architecture::Architecture::picture_options`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PictureOptions {
    /// Side of the square that pictures are resized to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_px: Option<usize>,
    /// Soft tokens that a picture becomes at most; it keeps its shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_tokens: Option<usize>,
}

impl PictureOptions {
    /// Squares of `side` pixels.
    pub fn of_resolution(side: usize) -> PictureOptions {
        PictureOptions {
            resolution_px: Some(side),
            ..PictureOptions::default()
        }
    }

    /// At most so many soft tokens.
    pub fn of_soft_tokens(soft_tokens: usize) -> PictureOptions {
        PictureOptions {
            soft_tokens: Some(soft_tokens),
            ..PictureOptions::default()
        }
    }

    /// These, and what they leave open as `otherwise`.
    pub fn or(self, otherwise: PictureOptions) -> PictureOptions {
        PictureOptions {
            resolution_px: self.resolution_px.or(otherwise.resolution_px),
            soft_tokens: self.soft_tokens.or(otherwise.soft_tokens),
        }
    }

    /// Whether a model may be asked for these.
    ///
    /// # Errors
    /// Its family's pictures are sized by the other option, or the number of soft tokens is none of those that it knows.
    pub fn check(self, spec: &PictureSpec) -> Result<(), VisionError> {
        let foreign = |option, instead| VisionError::ForeignOption {
            option,
            family: spec.family,
            instead,
        };
        let budgets = spec.soft_tokens;
        match self {
            PictureOptions {
                soft_tokens: Some(_),
                ..
            } if budgets.is_empty() => Err(foreign(SOFT_TOKENS, RESOLUTION)),
            PictureOptions {
                resolution_px: Some(_),
                ..
            } if !budgets.is_empty() => Err(foreign(RESOLUTION, SOFT_TOKENS)),
            PictureOptions {
                soft_tokens: Some(asked),
                ..
            } if !budgets.contains(&asked) => Err(VisionError::SoftTokens { asked, budgets }),
            _ => Ok(()),
        }
    }
}

/// What the options are called.
const RESOLUTION: &str = "resolution_px (--resolution)";
const SOFT_TOKENS: &str = "soft_tokens (--soft-tokens)";

/// Numbers in words: `70, 140 or 280`.
pub(super) fn one_of(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// A vision encoder with its weights, mapped as long as it lives.
pub trait VisionEncoder: Send + Sync {
    /// The mapped weights.
    fn weights(&self) -> &Mapped;

    /// How pictures are to be resized.
    fn resampling(&self) -> Resampling;

    /// Width and height to which a picture of `width_px` x `height_px` is to be resized; `options` were settled by the family.
    ///
    /// # Errors
    /// The options do not fit the network.
    fn input_size(
        &self,
        options: PictureOptions,
        width_px: usize,
        height_px: usize,
    ) -> Result<[usize; 2], VisionError>;

    /// How many soft tokens a picture of a size becomes that [`VisionEncoder::input_size`] gave.
    fn soft_tokens(&self, size: [usize; 2]) -> usize;

    /// Soft tokens `[tokens, text width]` of a picture `[height_px, width_px, 3]`, 8-bit RGB, of a size that
    /// [`VisionEncoder::input_size`] gave. `between` is called between parts of the work.
    ///
    /// # Errors
    /// The size does not fit the network.
    ///
    /// # Panics
    /// If `pixels` has another length than the size says.
    fn encode(
        &self,
        pool: &Pool,
        pixels: &[u8],
        size: [usize; 2],
        between: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, VisionError>;

    /// The row of an id that the text model has no embedding for, such as `<end_of_image>`; `None` for any other id.
    fn embedding_of(&self, _pool: &Pool, _id: u32) -> Option<Vec<f32>> {
        None
    }
}
