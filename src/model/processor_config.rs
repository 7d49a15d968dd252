//! How the checkpoint's own processor prepares pictures and sound: `processor_config.json` of transformers 5, which holds the image
//! processor and the feature extractor, or `preprocessor_config.json`, which older versions write for both.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::encoder::one_of;
use super::files::{self, MAX_JSON_BYTES};

/// One of the files is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorConfigError {
    /// The operating system refused to read the file, or it is something else.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The size of pictures is none.
    #[error(
        "{}: {key}: expected equal height and width (or \"resolution_px\" in [vision] of gemmad.toml), found {found}",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// What stands there.
        found: String,
    },
    /// No picture becomes so many soft tokens.
    #[error(
        "{}: {key}: expected {} soft tokens a picture, found {found}: is it the file of another model? (or \"soft_tokens\" in [vision] of gemmad.toml)",
        path.display(),
        one_of(allowed)
    )]
    SoftTokens {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// What may stand there.
        allowed: &'static [usize],
        /// What stands there.
        found: String,
    },
}

/// What the files say of pictures, and what of sound.
#[derive(Debug)]
pub struct ProcessorConfig {
    dir: PathBuf,
    /// The newer file itself.
    newer: Option<Section>,
    image: Option<Section>,
    audio: Option<Section>,
    /// The size of pictures in the older file, where the newer one has the word.
    overruled: Option<(PathBuf, usize)>,
}

/// An object of one of the files.
#[derive(Debug)]
struct Section {
    path: PathBuf,
    /// `image_processor.`, or nothing where the whole file is meant.
    prefix: &'static str,
    value: Value,
}

const NEWER: &str = "processor_config.json";
const OLDER: &str = "preprocessor_config.json";

impl ProcessorConfig {
    /// Reads the files of a checkpoint's directory, those that exist. A section of the newer file counts before the older file, as in
    /// the reference implementation.
    ///
    /// # Errors
    /// A file cannot be read, or is not JSON.
    pub fn load(dir: &Path) -> Result<ProcessorConfig, ProcessorConfigError> {
        let newer = read(&dir.join(NEWER))?;
        let older = read(&dir.join(OLDER))?;
        let section = |keys: &[(&'static str, &'static str)]| {
            let nested = keys.iter().find_map(|(key, prefix)| {
                let value = newer.as_ref()?.get(key)?;
                value.is_object().then(|| Section {
                    path: dir.join(NEWER),
                    prefix,
                    value: value.clone(),
                })
            });
            let older = older.as_ref().filter(|older| older.is_object());
            nested.or_else(|| {
                older.map(|value| Section {
                    path: dir.join(OLDER),
                    prefix: "",
                    value: value.clone(),
                })
            })
        };
        let mut config = ProcessorConfig {
            dir: dir.to_owned(),
            newer: newer.clone().map(|value| Section {
                path: dir.join(NEWER),
                prefix: "",
                value,
            }),
            image: section(&[("image_processor", "image_processor.")]),
            audio: section(&[
                ("feature_extractor", "feature_extractor."),
                ("audio_processor", "audio_processor."),
            ]),
            overruled: None,
        };
        if let (Ok(Some(size)), Some(value)) = (config.image_side_px(), older) {
            let other = Section {
                path: dir.join(OLDER),
                prefix: "",
                value,
            };
            // What is not asked need not make sense.
            let other = other.side_px().ok().flatten();
            config.overruled = other
                .filter(|&other| other != size)
                .map(|other| (dir.join(OLDER), other));
        }
        Ok(config)
    }

    /// Side of the square that pictures are resized to; `None` where no file says so.
    ///
    /// # Errors
    /// The size is no square's.
    pub fn image_side_px(&self) -> Result<Option<usize>, ProcessorConfigError> {
        self.image.as_ref().map_or(Ok(None), Section::side_px)
    }

    /// Soft tokens that a picture becomes at most: `max_soft_tokens` of the image processor, else `image_seq_length` of the newer file;
    /// `None` where neither is there.
    ///
    /// # Errors
    /// It is none of those that are `allowed`.
    pub fn soft_tokens(
        &self,
        allowed: &'static [usize],
    ) -> Result<Option<usize>, ProcessorConfigError> {
        let places = [
            (&self.image, "max_soft_tokens"),
            (&self.newer, "image_seq_length"),
        ];
        let said = places.into_iter().find_map(|(section, key)| {
            let section = section.as_ref()?;
            let value = section.value.get(key).filter(|value| !value.is_null())?;
            Some((section, key, value))
        });
        let Some((section, key, value)) = said else {
            return Ok(None);
        };
        let found = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match found.filter(|found| allowed.contains(found)) {
            Some(soft_tokens) => Ok(Some(soft_tokens)),
            None => Err(ProcessorConfigError::SoftTokens {
                path: section.path.clone(),
                key: format!("{}{key}", section.prefix),
                allowed,
                found: brief(value),
            }),
        }
    }

    /// The checkpoint's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is said about pictures and not done here, in one line each; `here` is how they become numbers here, by the keys of the
    /// files.
    pub fn image_warnings(&self, here: &Value) -> Vec<String> {
        let mut warnings = self
            .image
            .as_ref()
            .map_or_else(Vec::new, |section| section.differing(here, "pictures"));
        if let (Some((older, side)), Some(section)) = (&self.overruled, &self.image) {
            warnings.push(format!(
                "pictures are resized as {} says, as by transformers 5, and not to {side} pixels as in {}: remove the one that is old",
                section.path.display(),
                older.display()
            ));
        }
        warnings
    }

    /// Likewise about sound.
    pub fn audio_warnings(&self, here: &Value) -> Vec<String> {
        self.audio
            .as_ref()
            .map_or_else(Vec::new, |section| section.differing(here, "sound"))
    }
}

impl Section {
    fn side_px(&self) -> Result<Option<usize>, ProcessorConfigError> {
        let size = match self.value.get("size") {
            None | Some(Value::Null) => return Ok(None),
            Some(size) => size,
        };
        // A bare number is the oldest way to say a square.
        let side = |key: &str| size.as_u64().or_else(|| size.get(key)?.as_u64());
        match (side("height"), side("width")) {
            (Some(height), Some(width)) if height == width => {
                Ok(Some(usize::try_from(height).unwrap_or(usize::MAX)))
            }
            _ => Err(ProcessorConfigError::Size {
                path: self.path.clone(),
                key: format!("{}size", self.prefix),
                found: brief(size),
            }),
        }
    }

    /// The keys of `here` that the section gives otherwise.
    fn differing(&self, here: &Value, what: &str) -> Vec<String> {
        let Value::Object(here) = here else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        for (key, here) in here {
            let Some(there) = self.value.get(key).filter(|there| !same(there, here)) else {
                continue;
            };
            warnings.push(format!(
                "{} says {}{key} = {}, but {what} are prepared as with {here}: answers about them may be wrong",
                self.path.display(),
                self.prefix,
                brief(there),
            ));
        }
        warnings
    }
}

/// Equal, as numbers up to what rounding to 32 bits may change.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs(),
        _ => a == b,
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

fn read(path: &Path) -> Result<Option<Value>, ProcessorConfigError> {
    let json = match files::read(path, MAX_JSON_BYTES) {
        Ok(json) => json,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(ProcessorConfigError::Read { path, source });
        }
    };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|source| ProcessorConfigError::Json {
            path: path.to_owned(),
            source,
        })
}
