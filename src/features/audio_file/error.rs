//! Why a file gives no audio.

use std::io;
use std::path::{Path, PathBuf};

use crate::features::resample::ResampleError;

/// Why a file gives no audio.
#[derive(Debug, thiserror::Error)]
pub enum AudioFileError {
    /// The file cannot be read.
    #[error("cannot read audio from {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a file.
    #[error("cannot read audio from {path}: it is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A limit is exceeded.
    #[error("{path} has {found} {unit}, more than the {limit} that `{key}` allows")]
    Limit {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: u64,
        /// Its unit.
        unit: &'static str,
        /// The limit.
        limit: u64,
        /// The key of [`AudioLimits`] that sets it.
        key: &'static str,
    },
    /// The content is no audio that is understood.
    #[error("{path} is not audio that can be decoded (WAV, FLAC, OGG Vorbis or MP3): {reason}")]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// There are no samples.
    #[error("{path} holds no audio samples{}", damage.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What may be the reason.
        damage: Option<String>,
    },
    /// The rate cannot be resampled.
    #[error("cannot use {path}: {source}")]
    Resample {
        /// The file.
        path: PathBuf,
        /// What the resampler said.
        source: ResampleError,
    },
}

pub(super) fn undecodable(path: &Path, reason: impl ToString) -> AudioFileError {
    AudioFileError::Undecodable {
        path: path.into(),
        reason: reason.to_string(),
    }
}

pub(super) fn limit(
    path: &Path,
    found: u64,
    unit: &'static str,
    limit: u64,
    key: &'static str,
) -> AudioFileError {
    AudioFileError::Limit {
        path: path.into(),
        found,
        unit,
        limit,
        key,
    }
}
