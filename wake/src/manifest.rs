//! The JSON file of a wake word: what it is called, which model hears it, and from where on it counts (ESPHome's microWakeWord, version 2).

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::network::{ModelError, Network};

/// Such a file has some hundred bytes.
const MAX_BYTES: u64 = 64 << 10;
/// A model has 50 to 80 kB.
const MAX_MODEL_BYTES: u64 = 1 << 20;
/// Probabilities that are averaged: 20 of 30 ms are longer than any wake word's end.
const LONGEST_WINDOW: usize = 64;
/// Frames of the models that there are, milliseconds.
const STEP_MS: u32 = 10;

/// The file, as far as it matters here.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Manifest {
    /// What is said.
    pub wake_word: String,
    /// The `.tflite` file, beside this one.
    pub model: String,
    /// 2.
    pub version: u32,
    /// From where on it counts.
    pub micro: Micro,
}

/// `micro`
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Micro {
    /// The mean probability above which the word was said.
    pub probability_cutoff: f64,
    /// Probabilities that are averaged.
    pub sliding_window_size: usize,
    /// Milliseconds from one frame to the next.
    pub feature_step_size: u32,
}

/// A wake word cannot be used. Each is one line, that begins with the file.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The JSON file is none, or says what does not fit.
    #[error("{path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What.
        reason: String,
    },
    /// The model cannot be used.
    #[error("{path}: {source}")]
    Model {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ModelError,
    },
}

impl Manifest {
    /// Reads the bytes of such a file.
    ///
    /// # Errors
    /// One line: what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => {
                    format!("is no microWakeWord model of version 2: {error}")
                }
                _ => format!("is no JSON: {error}"),
            })?;
        let (version, micro) = (manifest.version, &manifest.micro);
        if version != 2 {
            return Err(format!("version is {version}; 2 is what is known here"));
        }
        let cutoff = micro.probability_cutoff;
        if !(cutoff > 0.0 && cutoff < 1.0) {
            return Err(format!(
                "micro.probability_cutoff is {cutoff}; it lies between 0 and 1"
            ));
        }
        let window = micro.sliding_window_size;
        if !(1..=LONGEST_WINDOW).contains(&window) {
            return Err(format!(
                "micro.sliding_window_size is {window}; it must be 1 to {LONGEST_WINDOW}"
            ));
        }
        let step = micro.feature_step_size;
        if step != STEP_MS {
            return Err(format!(
                "micro.feature_step_size is {step}; {STEP_MS} is what is heard here"
            ));
        }
        if !manifest.wake_word.chars().any(char::is_alphanumeric) {
            return Err("wake_word has no word".to_owned());
        }
        let mut parts = Path::new(&manifest.model).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err("model is no file beside it".to_owned());
        }
        Ok(manifest)
    }

    /// Reads such a file and the model that it names.
    ///
    /// # Errors
    /// One of them cannot be read, or is no such file.
    pub fn load(path: &Path) -> Result<(Manifest, Network), WakeError> {
        let manifest =
            Manifest::parse(&read(path, MAX_BYTES)?).map_err(|reason| WakeError::Manifest {
                path: path.to_owned(),
                reason,
            })?;
        let model = path.with_file_name(&manifest.model);
        let network = Network::parse(&read(&model, MAX_MODEL_BYTES)?);
        let network = network.map_err(|source| WakeError::Model {
            path: model,
            source,
        })?;
        Ok((manifest, network))
    }
}

/// A small file, whole.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, WakeError> {
    let refused = |source: std::io::Error| WakeError::Read {
        path: path.to_owned(),
        source,
    };
    let about = std::fs::metadata(path).map_err(refused)?;
    if !about.is_file() || about.len() > most {
        return Err(WakeError::Manifest {
            path: path.to_owned(),
            reason: format!("is no file of at most {} KiB", most >> 10),
        });
    }
    std::fs::read(path).map_err(refused)
}
