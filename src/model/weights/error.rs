//! What can be wrong with a checkpoint's files.

use std::path::{Path, PathBuf};

/// A checkpoint could not be opened, mapped or used; every message names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused an operation.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted, in words.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The directory holds no weights.
    #[error(
        "{dir} holds neither model.safetensors nor model.safetensors.index.json: point --model at the directory of a downloaded checkpoint of Gemma 3n or Gemma 4"
    )]
    NoWeights {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// What was given is something else than a checkpoint.
    #[error("{path} is no checkpoint of Gemma 3n or Gemma 4: {reason}")]
    NotACheckpoint {
        /// What was given.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// The tensors are those of another program.
    #[error("{dir}: {reason} (it holds tensor {tensor})")]
    Foreign {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// A tensor that shows it.
        tensor: String,
        /// What they are, and what to do.
        reason: String,
    },
    /// The weights were trained in few bits, which are read from a pack only.
    #[error(
        "{dir} holds weights that were trained in 2, 4 and 8 bits: pack it first (gemmad pack --from DIR --to NAME.pack takes them over as they are), and give the pack"
    )]
    PackFirst {
        /// The checkpoint's directory.
        dir: PathBuf,
    },
    /// In the place of a file is something else altogether.
    #[error("{path}: {reason}")]
    Instead {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// A safetensors header is malformed, or the file is shorter or longer than it says.
    #[error("{path}: {reason}; download the file again")]
    Header {
        /// The safetensors file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// model.safetensors.index.json is malformed.
    #[error("{path}: {reason}; download the file again")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error(
        "tensor {tensor} is in none of the files of {dir}: config.json and the weights do not belong together, or the download is incomplete"
    )]
    Missing {
        /// The tensor.
        tensor: String,
        /// The checkpoint's directory.
        dir: PathBuf,
    },
    /// A tensor has another shape than config.json asks for.
    #[error("{path}: tensor {tensor} has shape {found:?}, but config.json asks for {expected}")]
    Shape {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that config.json implies, in words.
        expected: String,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that this program does not read.
    #[error(
        "{path}: tensor {tensor} has type {found}; supported are BF16, F16 and F32: take a checkpoint that is not quantised"
    )]
    Dtype {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// A tensor holds what it may not, or lacks what belongs to it.
    #[error("{path}: tensor {tensor} {reason}; download the file again")]
    Unusable {
        /// The safetensors file, or the checkpoint's directory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor's bytes do not start at a multiple of its element size, so they cannot be used in place.
    #[error(
        "{path}: tensor {tensor} starts at byte {offset}, which is no multiple of its element size: save the checkpoint again with a current safetensors library"
    )]
    Misaligned {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its offset in the file.
        offset: u64,
    },
    /// pack.json or a pack's file is malformed.
    #[error("{path}: {reason}; make the pack again with `gemmad pack`")]
    Pack {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was cut off while it was in use.
    #[error(
        "{path} was truncated to {bytes} bytes while it was in use, {needed_bytes} are needed: copy or make it again under another name, rename it into place, and start gemmad again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size now.
        bytes: u64,
        /// What it must have.
        needed_bytes: u64,
    },
    /// Weights cannot be locked in memory.
    #[error(
        "cannot lock {bytes} bytes of {path} in memory: {source}; raise LimitMEMLOCK= in gemmad.service (ulimit -l), or leave out `mlock` in [model]"
    )]
    Lock {
        /// The file.
        path: PathBuf,
        /// What was to be locked.
        bytes: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The column segments of a matrix do not add up.
    #[error(
        "tensor {tensor}: its segments have {found} columns in all, but config.json asks for {expected}; make the pack again with `gemmad pack`"
    )]
    Segments {
        /// The tensor, without the number of a segment.
        tensor: String,
        /// Columns that config.json implies.
        expected: usize,
        /// Columns of all segments.
        found: usize,
    },
    /// The pack was written by an older version of this program, which laid weights out otherwise.
    #[error(
        "{path}: pack version {version} is laid out otherwise than this program reads it: make the pack again from its source, with gemmad pack"
    )]
    OlderPack {
        /// The pack.json.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// The pack was written by a newer version of this program.
    #[error(
        "{path}: pack version {version} is newer than this program: update gemmad, or make the pack again with this version"
    )]
    NewerPack {
        /// The pack.json.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
}

impl WeightsError {
    /// The error of a file, with what is odd about the choice of it.
    pub(super) fn noting(self, warnings: &[String]) -> WeightsError {
        let noted = |reason: String| format!("{reason} ({})", warnings.join("; "));
        match self {
            same if warnings.is_empty() => same,
            WeightsError::Header { path, reason } => WeightsError::Header {
                path,
                reason: noted(reason),
            },
            WeightsError::Instead { path, reason } => WeightsError::Instead {
                path,
                reason: noted(reason),
            },
            other => other,
        }
    }
}

/// An error of the system, with what was attempted on which file.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WeightsError {
    let path = path.to_owned();
    move |source| WeightsError::Io {
        action,
        path,
        source,
    }
}
