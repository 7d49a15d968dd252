//! Which family a config.json names: the only place that lists them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::architecture::Architecture;
use super::config::{self, ConfigError, Section, brief};
use super::gemma3n::Gemma3n;
use super::gemma4::Gemma4;

/// Reads `config.json` in a checkpoint's directory, by the family that it names.
///
/// # Errors
/// The file is missing or malformed, names no family that is known, or says what its family cannot be.
pub fn load(dir: &Path) -> Result<Arc<dyn Architecture>, ConfigError> {
    let (value, path) = config::read(dir)?;
    of(&value, &path)
}

/// Likewise the bytes of a `config.json`; `path` is named in errors.
///
/// # Errors
/// As [`load`].
pub fn parse(json: &[u8], path: &Path) -> Result<Arc<dyn Architecture>, ConfigError> {
    of(&config::parse(json, path)?, path)
}

fn of(value: &Value, path: &Path) -> Result<Arc<dyn Architecture>, ConfigError> {
    let top = Section {
        value,
        name: "",
        path,
    };
    if !value.is_object() {
        return Err(top.error(
            "config.json",
            format!("expected an object, found {}", brief(value)),
        ));
    }
    match top.get("model_type").and_then(Value::as_str).unwrap_or("") {
        "gemma3n" | "gemma3n_text" => Ok(Arc::new(Gemma3n::new(value, path)?)),
        "gemma4" | "gemma4_text" => Ok(Arc::new(Gemma4::new(value, path)?)),
        "gemma4_assistant" => Err(top.error(
            "model_type",
            "is that of a drafter, which guesses the tokens of a model: give the model, and this directory to `gemmad pack --drafter`",
        )),
        other => Err(top.error(
            "model_type",
            format!(
                "is {other:?}; supported are Gemma 3n (\"gemma3n\" or \"gemma3n_text\") and Gemma 4 (\"gemma4\" or \"gemma4_text\")"
            ),
        )),
    }
}
