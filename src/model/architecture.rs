//! What a model is made of, whatever its family: the rest of the program sees this, and no family.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use kernels::Pool;
use serde_json::Value;

use super::config::ConfigError;
use super::decoder::{Decoder, SliceError, Slices};
use super::drafter::{Drafter, DrafterError};
use super::encoder::{AudioEncoder, AudioError, PictureOptions, VisionEncoder, VisionError};
use super::processor_config::{ProcessorConfig, ProcessorConfigError};
use super::prompt::ChatTemplate;
use super::spec::Spec;
use super::tensor_table::{Category, EncoderTensor, NamedShape, TextTensor};
use super::weights::{Checkpoint, Group, PleOptions, WeightsError};

/// A model as its config.json describes it: facts, and a way to make each of its parts. Each family has one implementation.
pub trait Architecture: Debug + Send + Sync {
    /// What the rest of the program needs to know of the model: its ids, shapes and limits.
    fn spec(&self) -> &Spec;

    /// Every tensor of the text model that is ever read, in the order in which a token meets them.
    fn text_tensors(&self) -> Vec<TextTensor>;

    /// How a tensor of an encoder is read, by its canonical name.
    fn encoder_tensor(&self, name: &str) -> EncoderTensor;

    /// Name and shape of every tensor of the encoder of a group, those among them that a checkpoint may lack: the bounds of linear layers
    /// (shape `[]`). None where config.json describes no such encoder.
    ///
    /// # Errors
    /// config.json asks for what cannot be built.
    fn encoder_tensors(&self, group: Group) -> Result<Vec<NamedShape>, VisionError>;

    /// The rows in which parameters are counted, in the order in which they are printed.
    fn categories(&self) -> &[Category];

    /// The name of the row that a tensor is counted in, by its canonical name; `None` for what the family does not have.
    fn category(&self, name: &str) -> Option<&'static str>;

    /// The models nested in it, the whole one among them: those built in, and those that a checkpoint's directory names.
    ///
    /// # Errors
    /// A slice does not fit the model, or the directory's list is malformed.
    fn slices(&self, dir: Option<&Path>) -> Result<Slices, SliceError>;

    /// How messages become a prompt.
    fn template(&self) -> &dyn ChatTemplate;

    /// Maps the text group of a checkpoint, opens its table of per-layer embeddings, and finds every tensor. Buffers are made for chunks
    /// of up to `chunk` tokens; `progress` is told how many bytes of how many of the table are copied to where it is read from.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type than the config implies.
    fn decoder(
        &self,
        checkpoint: &Checkpoint,
        ple: &PleOptions,
        chunk: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Decoder>, WeightsError>;

    /// Bytes of a decoder's buffers.
    fn buffer_bytes(&self, chunk: usize) -> usize;

    /// Maps the audio group of a checkpoint and finds every tensor in it; `None` where config.json describes no audio encoder.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or the config asks for what cannot be built.
    fn audio_encoder(
        &self,
        checkpoint: &Checkpoint,
        pool: &Pool,
    ) -> Result<Option<Arc<dyn AudioEncoder>>, AudioError>;

    /// Likewise the vision group.
    ///
    /// # Errors
    /// As there.
    fn vision_encoder(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Arc<dyn VisionEncoder>>, VisionError>;

    /// Every tensor of a drafter for this model, in the order in which a guess meets them, by what its `config.json` says, which is named
    /// `path` in errors; `has` tells whether there is a tensor of a canonical name.
    ///
    /// # Errors
    /// It is none for this model.
    fn drafter_tensors(
        &self,
        _config: &Value,
        path: &Path,
        _has: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<TextTensor>, ConfigError> {
        Err(ConfigError::Key {
            path: path.to_owned(),
            key: "model_type".to_owned(),
            reason: format!(
                "there are no drafters for {}: leave --drafter out",
                self.spec().family
            ),
        })
    }

    /// Maps the drafter group of a pack and finds every tensor in it; `None` where there is none.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than its config implies, or it is of another model.
    fn drafter(&self, _: &Checkpoint) -> Result<Option<Box<dyn Drafter>>, DrafterError> {
        Ok(None)
    }

    /// Settles how pictures are encoded: as asked, else as the checkpoint's processor says, else as the released models, and then with a
    /// warning.
    ///
    /// # Errors
    /// The processor's config says what no picture can be.
    fn picture_options(
        &self,
        asked: PictureOptions,
        processor: &ProcessorConfig,
    ) -> Result<(PictureOptions, Option<String>), ProcessorConfigError>;
}
