//! `config.json` of a checkpoint, in both dialects: the released one and the one that transformers 5 writes.
//!
//! Every value is fetched by key, checked before anything is sized by it, and named in the error when it does not fit. Which keys there
//! are, the family knows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{self, MAX_JSON_BYTES};

/// The largest value that any dimension may have: far above the real ones (262400 rows), far below what could overflow.
pub(super) const MAX_DIMENSION: u64 = 1 << 24;

/// The largest width of a layer: every token in work has a buffer of that many values, also where the file spends few
/// bytes on it. The real models' largest is 16384.
pub(super) const MAX_WIDTH: usize = 1 << 18;

/// The most layers that a decoder or an encoder may have: it bounds every list sized by their number.
pub(super) const MAX_LAYERS: usize = 1024;

/// What a layer's attention sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// The last `sliding_window` tokens, the query's own included.
    Sliding,
    /// Every token so far.
    Full,
}

impl LayerType {
    /// The layer whose K and V a layer reads: itself below `first_shared`, else the last one below of the same type
    /// ([`Section::check_kv_producers`] refused a model that has none).
    pub(super) fn kv_source(types: &[LayerType], first_shared: usize, layer: usize) -> usize {
        if layer < first_shared {
            return layer;
        }
        let same_type = |&producer: &usize| types[producer] == types[layer];
        (0..first_shared).rev().find(same_type).unwrap_or(layer)
    }
}

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
    #[error("{path} is no checkpoint of Gemma 3n or Gemma 4: {reason}")]
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

/// Reads `config.json` in a checkpoint's directory; gives its path too, for errors.
///
/// # Errors
/// The file is missing or no JSON.
pub(crate) fn read(dir: &Path) -> Result<(Value, PathBuf), ConfigError> {
    read_file(dir.join("config.json")).map_err(|error| match error {
        ConfigError::Io { path, source } => match files::instead_of_checkpoint(dir) {
            Some(reason) if !path.exists() => ConfigError::NotACheckpoint {
                path: dir.to_owned(),
                reason,
            },
            _ => ConfigError::Io { path, source },
        },
        other => other,
    })
}

/// Likewise a file of any name.
///
/// # Errors
/// It is missing or no JSON.
pub(crate) fn read_file(path: PathBuf) -> Result<(Value, PathBuf), ConfigError> {
    match files::read(&path, MAX_JSON_BYTES) {
        Ok(text) => Ok((parse(&text, &path)?, path)),
        Err(source) => Err(ConfigError::Io { path, source }),
    }
}

/// Reads the bytes of a `config.json`; `path` is named in errors.
///
/// # Errors
/// They are no JSON.
pub(crate) fn parse(json: &[u8], path: &Path) -> Result<Value, ConfigError> {
    serde_json::from_slice(json).map_err(|source| ConfigError::Json {
        path: path.to_owned(),
        source,
    })
}

/// One section of the file, for errors that name the key with its section.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) value: &'a Value,
    pub(super) name: &'a str,
    pub(super) path: &'a Path,
}

impl<'a> Section<'a> {
    pub(super) fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        let key = if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        };
        ConfigError::Key {
            path: self.path.to_owned(),
            key,
            reason: reason.into(),
        }
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn section(&self, key: &'a str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        Some(Section {
            value,
            name: key,
            path: self.path,
        })
    }

    pub(super) fn required(&self, key: &str) -> Result<&'a Value, ConfigError> {
        self.get(key).ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn as_integer(
        &self,
        key: &str,
        value: &Value,
        max: u64,
    ) -> Result<u64, ConfigError> {
        let number = value.as_u64().ok_or_else(|| {
            self.error(
                key,
                format!("expected a whole number, found {}", brief(value)),
            )
        })?;
        if number > max {
            return Err(self.error(
                key,
                format!("{number} is more than {max}, the most that is supported"),
            ));
        }
        Ok(number)
    }

    /// A dimension: at least 1.
    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size_of(key, self.required(key)?)
    }

    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        self.get(key)
            .map_or(Ok(default), |value| self.size_of(key, value))
    }

    pub(super) fn size_of(&self, key: &str, value: &Value) -> Result<usize, ConfigError> {
        match self.as_integer(key, value, MAX_DIMENSION)? {
            0 => Err(self.error(key, "is 0; it must be at least 1")),
            n => Ok(n as usize),
        }
    }

    /// A dimension of at most `max`.
    pub(super) fn at_most(
        &self,
        max: usize,
        key: &str,
        value: usize,
    ) -> Result<usize, ConfigError> {
        if value <= max {
            Ok(value)
        } else {
            Err(self.error(
                key,
                format!("{value} is more than {max}, the most that is supported"),
            ))
        }
    }

    /// A count that may be 0.
    pub(super) fn count(&self, key: &str) -> Result<usize, ConfigError> {
        Ok(self.as_integer(key, self.required(key)?, MAX_DIMENSION)? as usize)
    }

    pub(super) fn id(&self, key: &str) -> Result<u32, ConfigError> {
        Ok(self.as_integer(key, self.required(key)?, MAX_DIMENSION)? as u32)
    }

    pub(super) fn id_or(&self, key: &str, default: u32) -> Result<u32, ConfigError> {
        if self.get(key).is_none() {
            Ok(default)
        } else {
            self.id(key)
        }
    }

    pub(super) fn optional_id(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.get(key).map(|_| self.id(key)).transpose()
    }

    /// One id, or a list of them.
    pub(super) fn ids_or(&self, key: &str, default: &[u32]) -> Result<Vec<u32>, ConfigError> {
        let id = |value| Ok(self.as_integer(key, value, MAX_DIMENSION)? as u32);
        match self.get(key) {
            None => Ok(default.to_vec()),
            Some(Value::Array(list)) if list.len() <= 64 => list.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    /// Refuses every value but one, where there is a value.
    pub(super) fn only(&self, key: &str, expected: &Value) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(value) if value != expected => {
                Err(self.error(key, format!("is {}; supported is {expected}", brief(value))))
            }
            _ => Ok(()),
        }
    }

    /// `layer_types`; `None` where it is left out.
    pub(super) fn layer_types(&self, layers: usize) -> Result<Option<Vec<LayerType>>, ConfigError> {
        const KEY: &str = "layer_types";
        let layer_type = |value: &Value| match value.as_str() {
            Some("sliding_attention") => Ok(LayerType::Sliding),
            Some("full_attention") => Ok(LayerType::Full),
            _ => Err(self.error(
                KEY,
                format!(
                    "expected \"sliding_attention\" or \"full_attention\", found {}",
                    brief(value)
                ),
            )),
        };
        let Some(value) = self.get(KEY) else {
            return Ok(None);
        };
        let types = self.list(KEY, value, layers)?.iter().map(layer_type);
        types.collect::<Result<_, _>>().map(Some)
    }

    /// Refuses layers that are to share the K and V of an earlier one of their type, where there is none.
    pub(super) fn check_kv_producers(
        &self,
        types: &[LayerType],
        first_shared: usize,
    ) -> Result<(), ConfigError> {
        let producers = &types[..first_shared];
        match types.iter().find(|kind| !producers.contains(kind)) {
            None => Ok(()),
            Some(orphan) => Err(self.error(
                "layer_types",
                format!("shared layers of type {orphan:?} have no earlier layer of that type to share K and V with"),
            )),
        }
    }

    /// A finite number.
    pub(super) fn number_of(&self, key: &str, value: &Value) -> Result<f64, ConfigError> {
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.error(key, format!("expected a number, found {}", brief(value))))
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        self.get(key)
            .map_or(Ok(default), |value| self.number_of(key, value))
    }

    pub(super) fn positive_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let number = self.number_or(key, default)?;
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.error(key, format!("is {number}; it must be more than 0")))
        }
    }

    pub(super) fn list(
        &self,
        key: &str,
        value: &'a Value,
        len: usize,
    ) -> Result<&'a [Value], ConfigError> {
        let list = value
            .as_array()
            .ok_or_else(|| self.error(key, format!("expected a list, found {}", brief(value))))?;
        if list.len() == len {
            Ok(list)
        } else {
            Err(self.error(
                key,
                format!("expected a list of {len} values, found {}", list.len()),
            ))
        }
    }

    pub(super) fn sizes<const N: usize>(
        &self,
        key: &str,
        default: [usize; N],
    ) -> Result<[usize; N], ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => self.sizes_of(key, value),
        }
    }

    fn sizes_of<const N: usize>(
        &self,
        key: &str,
        value: &'a Value,
    ) -> Result<[usize; N], ConfigError> {
        let mut out = [0; N];
        for (slot, value) in out.iter_mut().zip(self.list(key, value, N)?) {
            *slot = self.size_of(key, value)?;
        }
        Ok(out)
    }

    pub(super) fn pairs(
        &self,
        key: &str,
        default: [[usize; 2]; 2],
    ) -> Result<[[usize; 2]; 2], ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let list = self.list(key, value, 2)?;
        Ok([self.sizes_of(key, &list[0])?, self.sizes_of(key, &list[1])?])
    }
}

/// A value as an error shows it: never more than a few words of a file that may be anything.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
