//! Why a pack could not be made or is not sound.

use std::path::PathBuf;

use kernels::quant::NotFinite;

use crate::hub::HubError;
use crate::model::config::ConfigError;
use crate::model::decoder::SliceError;
use crate::model::encoder::VisionError;
use crate::model::tokenizer::TokenizerError;
use crate::model::weights::{Group, WeightsError};

/// A pack could not be made or is not sound; every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The source's config.json.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What the source's config.json asks of its vision encoder.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The source's weights, or a pack's own description.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The source's tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The source's slices.toml.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The hub does not give the source.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The repository holds nothing that a pack is made of.
    #[error("{repository} {reason}")]
    Repository {
        /// The repository on the hub.
        repository: String,
        /// What it lacks, and what to do; goes on behind the name.
        reason: String,
    },
    /// Files with holes cannot be kept there.
    #[error(
        "the file system of {path} keeps no files with holes, as FAT does not: give a --to on another one, such as ext4"
    )]
    NoHoles {
        /// The directory.
        path: PathBuf,
    },
    /// The source is a pack.
    #[error("{path} is a pack already: give the checkpoint that it was made from")]
    AlreadyPacked {
        /// The source.
        path: PathBuf,
    },
    /// The directory is no pack.
    #[error("{path} is no pack (it has no pack.json), so there are no hashes to check")]
    NotAPack {
        /// The directory.
        path: PathBuf,
    },
    /// The target exists.
    #[error("{path} exists: give another name, or --force to replace the pack")]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target exists and is something else.
    #[error("{path} exists and is no pack, so --force does not replace it: give another name")]
    NotReplaceable {
        /// The target.
        path: PathBuf,
    },
    /// The target has no usable name.
    #[error("{path} cannot name a pack: give a directory that can be created, such as gemma.pack")]
    Name {
        /// The target.
        path: PathBuf,
    },
    /// Another process is at it.
    #[error("another gemmad writes {path} at this moment: wait for it, or end it")]
    Busy {
        /// The directory being written.
        path: PathBuf,
    },
    /// The disk is too small.
    #[error(
        "{path} needs {needed_bytes} bytes, but its file system has only {free_bytes} bytes free: free some, or give another --to"
    )]
    Space {
        /// The target.
        path: PathBuf,
        /// What the pack takes.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// A file of the source could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of the source is larger than any such file is.
    #[error("{path} has more than {limit_bytes} bytes: it is no {what}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: String,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// A file of the pack could not be written.
    #[error("cannot {action} {path}: {source}; {remedy}. No pack was made")]
    Write {
        /// What was attempted, in words.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A tensor that every model of its family has is not in the source.
    #[error(
        "{path}: tensor {tensor} is missing: the download is incomplete, or this is no whole model"
    )]
    Missing {
        /// The source.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
    },
    /// A tensor has another shape than the hyper-parameters ask for.
    #[error(
        "{path}: tensor {tensor} has shape {found:?}, but the hyper-parameters ask for {expected:?}"
    )]
    Shape {
        /// The source.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
        /// The shape that the hyper-parameters imply.
        expected: Vec<usize>,
        /// The shape in the source.
        found: Vec<usize>,
    },
    /// A weight is infinite or not a number.
    #[error("{path}: tensor {tensor}: {source}; download the file again")]
    NotFinite {
        /// The source.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
        /// Where in the tensor.
        source: NotFinite,
    },
    /// A row of weights has a scale that is none.
    #[error(
        "{path}: tensor {tensor}: the scale of row {row} is {value}, and scales are more than 0 and finite; download the file again"
    )]
    Scale {
        /// The source.
        path: PathBuf,
        /// The tensor of scales.
        tensor: String,
        /// Its row.
        row: usize,
        /// What stands there.
        value: f32,
    },
    /// A tensor is stored in a way that the model's layers are not.
    #[error(
        "{path}: tensor {tensor} {reason}: download it again, or take the checkpoint as Google publishes it"
    )]
    Unexpected {
        /// The source.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
        /// What is odd about it; goes on behind the name.
        reason: String,
    },
    /// `quantization_config` is malformed, or does not say how the weights are stored.
    #[error(
        "{path}: quantization_config.{key}: {reason}: download config.json again, from where the weights are from"
    )]
    Quantization {
        /// The config.json.
        path: PathBuf,
        /// The key behind `quantization_config`.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights that were trained in few bits are to get others.
    #[error(
        "{path} has weights that were trained in the bits they have, and recipe {recipe} would round them once more: leave --recipe out to keep them as they are, or take the model that is not quantised"
    )]
    Trained {
        /// The source.
        path: PathBuf,
        /// The recipe that was asked for.
        recipe: &'static str,
    },
    /// Towers of another file are to stand beside weights that were trained in few bits.
    #[error(
        "{path} has weights that were trained in few bits, and its towers with them: leave --mmproj out"
    )]
    TrainedTowers {
        /// The source.
        path: PathBuf,
    },
    /// There are no such weights.
    #[error(
        "{path} has no weights that were trained in few bits, which recipe mobile keeps: take a checkpoint whose name ends in qat-mobile-transformers, or give --recipe balanced"
    )]
    NotTrained {
        /// The source.
        path: PathBuf,
    },
    /// A synthetic model is of a family without drafters.
    #[error(
        "there are no drafters for {size}: leave --with-drafter out, or give --synthetic gemma4-e2b"
    )]
    NoDrafter {
        /// The model's size.
        size: &'static str,
    },
    /// A slice cuts through a group of quantised weights.
    #[error(
        "MatFormer slice {slice:?} is {width} wide in layer {layer}; a pack can be cut at multiples of 32 only: change slices.toml"
    )]
    SliceWidth {
        /// The slice.
        slice: String,
        /// The layer.
        layer: usize,
        /// Its width.
        width: usize,
    },
    /// The GGUF file is malformed, or holds something else than a model that is packed.
    #[error("{path}: {reason}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A text model has a tower of its own, and another was given.
    #[error(
        "{path} has {group} tensors of its own, and so has {mmproj}: leave out --mmproj, or give a text model without them"
    )]
    TwoTowers {
        /// The text model.
        path: PathBuf,
        /// What both have.
        group: Group,
        /// The mmproj file.
        mmproj: PathBuf,
    },
    /// Files of a pack are not what pack.json says.
    #[error(
        "{path} is damaged: {files}; copy the pack again from where it is sound, or make it again with `gemmad pack`"
    )]
    Damaged {
        /// The pack.
        path: PathBuf,
        /// Each file that differs, and how.
        files: String,
    },
}

impl PackError {
    pub(super) fn write(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> PackError {
        use std::io::ErrorKind as Kind;
        move |source| PackError::Write {
            action,
            path: path.into(),
            remedy: match source.kind() {
                Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                    "free some space there, or give another --to"
                }
                Kind::PermissionDenied => "give a --to in a directory that this user may write",
                _ => "check the disk, or give another --to",
            },
            source,
        }
    }

    pub(super) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> PackError {
        move |source| PackError::Read {
            path: path.into(),
            source,
        }
    }
}
