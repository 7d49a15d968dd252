//! `generation_config.json`: how the checkpoint's makers want answers to be sampled.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{self, MAX_JSON_BYTES};
use super::sampler::Sampling;

/// The file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum GenerationConfigError {
    /// The operating system refused to read the file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not JSON, or a key has the wrong type.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A number is out of its range.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The range.
        expected: &'static str,
        /// The number.
        found: f64,
    },
}

/// Sampling and stop tokens of a checkpoint.
///
/// Where the whole file is missing the published values of Gemma 3n and Gemma 4 stand: `temperature` 1.0, `top_k` 64, `top_p` 0.95, no
/// `eos_token_id`. Where a key is missing the reference implementation's default stands: `do_sample` false (greedy),
/// `temperature` 1.0, `top_k` 50, and `top_p`, `min_p`, `repetition_penalty` off, no `suppress_tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Any of these ends an answer, besides what `config.json` says.
    pub eos_token_ids: Vec<u32>,
    /// None of these is ever chosen, besides those that stand in the places of media.
    pub suppress_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct File {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    eos_token_id: Option<OneOrMany>,
    suppress_tokens: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl GenerationConfig {
    /// Reads `generation_config.json` in a checkpoint's directory, where it exists.
    ///
    /// # Errors
    /// The file is unreadable, malformed, or holds a number out of range.
    pub fn load(dir: &Path) -> Result<Self, GenerationConfigError> {
        let path = dir.join("generation_config.json");
        match files::read(&path, MAX_JSON_BYTES) {
            Ok(json) => Self::parse(&json, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(GenerationConfig {
                sampling: Sampling::PUBLISHED,
                eos_token_ids: Vec::new(),
                suppress_tokens: Vec::new(),
            }),
            Err(source) => Err(GenerationConfigError::Read { path, source }),
        }
    }

    /// Reads the bytes of a `generation_config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`GenerationConfig::load`].
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, GenerationConfigError> {
        let file: File =
            serde_json::from_slice(json).map_err(|source| GenerationConfigError::Json {
                path: path.to_owned(),
                source,
            })?;
        let sampling = Sampling {
            temperature: match (file.do_sample.unwrap_or(false), file.temperature) {
                (false, _) => 0.0,
                (true, temperature) => temperature.unwrap_or(1.0) as f32,
            },
            top_k: file.top_k.unwrap_or(50),
            top_p: file.top_p.unwrap_or(1.0) as f32,
            min_p: file.min_p.unwrap_or(0.0) as f32,
            repetition_penalty: file.repetition_penalty.unwrap_or(1.0) as f32,
        };
        if let Err(error) = sampling.check() {
            return Err(GenerationConfigError::Value {
                path: path.to_owned(),
                key: error.key,
                expected: error.expected,
                found: f64::from(error.found),
            });
        }
        let eos_token_ids = match file.eos_token_id {
            None => Vec::new(),
            Some(OneOrMany::One(id)) => vec![id],
            Some(OneOrMany::Many(ids)) => ids,
        };
        Ok(GenerationConfig {
            sampling,
            eos_token_ids,
            suppress_tokens: file.suppress_tokens.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<GenerationConfig, String> {
        let path = Path::new("generation_config.json");
        GenerationConfig::parse(json.as_bytes(), path).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_file_and_missing_keys_have_their_documented_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let missing = GenerationConfig::load(dir.path()).unwrap();
        assert_eq!(missing.sampling, Sampling::PUBLISHED);
        let empty = parse("{}").unwrap();
        assert_eq!(empty.sampling.temperature, 0.0);
        assert!(empty.eos_token_ids.is_empty() && empty.suppress_tokens.is_empty());
        let sampled = parse(r#"{"do_sample": true, "eos_token_id": 1, "top_k": null}"#).unwrap();
        let expected = Sampling {
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        };
        assert_eq!(
            sampled,
            GenerationConfig {
                sampling: expected,
                eos_token_ids: vec![1],
                suppress_tokens: Vec::new(),
            }
        );
    }

    #[test]
    fn the_published_forms_are_read() {
        let published = parse(
            r#"{"bos_token_id": 2, "eos_token_id": [1, 106], "do_sample": true, "temperature": 1.0, "top_k": 64, "top_p": 0.95,
                "cache_implementation": "hybrid"}"#,
        );
        let expected = GenerationConfig {
            sampling: Sampling::PUBLISHED,
            eos_token_ids: vec![1, 106],
            suppress_tokens: Vec::new(),
        };
        assert_eq!(published.unwrap(), expected);
        let gemma4 = parse(
            r#"{"bos_token_id": 2, "eos_token_id": [1, 106, 50], "pad_token_id": 0, "do_sample": true, "temperature": 1.0, "top_k": 64,
                "top_p": 0.95, "suppress_tokens": [258883, 258882]}"#,
        );
        let expected = GenerationConfig {
            eos_token_ids: vec![1, 106, 50],
            suppress_tokens: vec![258_883, 258_882],
            ..expected
        };
        assert_eq!(gemma4.unwrap(), expected);
    }

    #[test]
    fn broken_files_are_named() {
        for (json, parts) in [
            ("{", ["generation_config.json", "EOF"]),
            (r#"{"top_k": -1}"#, ["generation_config.json", "-1"]),
            (
                r#"{"do_sample": true, "temperature": -0.5}"#,
                ["temperature: expected", "found -0.5"],
            ),
            (
                r#"{"suppress_tokens": [-1]}"#,
                ["generation_config.json", "-1"],
            ),
            (r#"{"top_p": 1.5}"#, ["top_p: expected", "found 1.5"]),
            (
                r#"{"repetition_penalty": 0}"#,
                ["repetition_penalty: expected", "found 0"],
            ),
        ] {
            let error = parse(json).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
