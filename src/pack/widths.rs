//! The widths that the config.json of a mobile checkpoint gives its layers (`quantization_config`).
//!
//! Source: `src/model/gemma4/mobile.md` section 1.1.

use std::path::{Path, PathBuf};

use fancy_regex::Regex;
use serde_json::Value;

use super::error::PackError;
use super::plan::{FilePlan, Store};
use crate::model::weights::mobile::{HEAD, layer_of};

/// More patterns than this nobody needs: the published files have ten.
const MAX_PATTERNS: usize = 256;

/// Bits by the name of a layer.
#[derive(Debug)]
pub(super) struct Widths {
    path: PathBuf,
    /// Of what no pattern fits.
    others: u64,
    /// Tried in this order, anywhere in a name; the first that fits counts.
    patterns: Vec<(Regex, u64)>,
    /// Layers that stay as they are, by a part of their names from a dot on.
    plain: Vec<String>,
}

impl Widths {
    /// Reads them of a config.json; `path` is named in errors.
    ///
    /// # Errors
    /// There are none, they are another program's, or a pattern is none.
    pub(super) fn of(config: &Value, path: &Path) -> Result<Widths, PackError> {
        let section = &config["quantization_config"];
        let bad = |key: &str, reason: String| PackError::Quantization {
            path: path.to_owned(),
            key: key.to_owned(),
            reason,
        };
        if section["quant_method"] != "gemma" {
            let found = &section["quant_method"];
            let reason = format!("is {found}, and the weights are those of method \"gemma\"");
            return Err(bad("quant_method", reason));
        }
        let bits = |key: &str, value: &Value| match value.as_u64() {
            Some(bits @ (2 | 4 | 8)) => Ok(bits),
            _ => Err(bad(key, format!("is {value}: weights have 2, 4 or 8 bits"))),
        };
        let map = section["module_quant_configs"].as_object();
        let map = map.into_iter().flatten().take(MAX_PATTERNS);
        let patterns = map.map(|(pattern, rule)| {
            let key = format!("module_quant_configs[{pattern:?}]");
            let regex = Regex::new(pattern).map_err(|error| bad(&key, error.to_string()))?;
            Ok((regex, bits(&format!("{key}.num_bits"), &rule["num_bits"])?))
        });
        let plain = section["modules_to_not_convert"].as_array();
        Ok(Widths {
            path: path.to_owned(),
            others: match &section["num_bits"] {
                Value::Null => 4,
                value => bits("num_bits", value)?,
            },
            patterns: patterns.collect::<Result<_, PackError>>()?,
            plain: (plain.into_iter().flatten())
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
        })
    }

    /// Bits of the weights of a layer; `None` where they are not quantised.
    ///
    /// # Errors
    /// A pattern takes too long.
    pub(super) fn bits(&self, layer: &str) -> Result<Option<u64>, PackError> {
        let names = |part: &String| {
            let mut places = layer.match_indices(part.as_str());
            places.any(|(at, _)| at == 0 || layer[..at].ends_with('.'))
        };
        if self.plain.iter().any(names) {
            return Ok(None);
        }
        for (pattern, bits) in &self.patterns {
            let fits = pattern.is_match(layer);
            if fits.map_err(|error| self.wrong(pattern.as_str(), error.to_string()))? {
                return Ok(Some(*bits));
            }
        }
        Ok(Some(self.others))
    }

    /// Compares a layout with them.
    ///
    /// # Errors
    /// A matrix has another width.
    pub(super) fn check(&self, files: &[FilePlan]) -> Result<(), PackError> {
        for entry in files.iter().flat_map(|file| &file.entries) {
            let Store::Trained(blocks) = &entry.store else {
                continue;
            };
            let layer = layer_of(&entry.source);
            // It has that name in the files, too.
            let layer = if layer == HEAD { "lm_head" } else { layer };
            let said = self.bits(layer)?;
            let found = blocks.format.bits() as u64;
            if said != Some(found) {
                let said = said.map_or("no width".to_owned(), |bits| format!("{bits} bits"));
                let reason = format!("gives {layer} {said}, but its weights are stored in {found}");
                return Err(self.wrong("", reason));
            }
        }
        Ok(())
    }

    fn wrong(&self, pattern: &str, reason: String) -> PackError {
        let key = match pattern {
            "" => "module_quant_configs".to_owned(),
            pattern => format!("module_quant_configs[{pattern:?}]"),
        };
        PackError::Quantization {
            path: self.path.clone(),
            key,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    fn of(section: Value) -> Result<Widths, PackError> {
        let config = json!({"quantization_config": section});
        Widths::of(&config, Path::new("config.json"))
    }

    /// The published order: the first pattern that is found anywhere in a name counts.
    #[test]
    fn the_first_pattern_that_fits_counts() {
        let widths = of(json!({
            "quant_method": "gemma",
            "module_quant_configs": {
                r"^lm_head$": {"num_bits": 2},
                r"language_model\.layers\.(\d|1[0-4])\.mlp\.": {"num_bits": 4},
                r"language_model\.layers\.\d+\.mlp\.": {"num_bits": 2},
                r"audio_tower(?!.*lconv1d\.linear_start)": {"num_bits": 2},
                r"audio_tower\.layers\.\d+\.lconv1d\.linear_start\.": {"num_bits": 8},
            },
            "modules_to_not_convert": ["relative_k_proj", "model.embed_audio"],
        }))
        .unwrap();
        for (layer, bits) in [
            ("lm_head", Some(2)),
            ("model.lm_head", Some(4)),
            ("model.language_model.layers.9.mlp.up_proj", Some(4)),
            ("model.language_model.layers.14.mlp.up_proj", Some(4)),
            ("model.language_model.layers.15.mlp.up_proj", Some(2)),
            (
                "model.audio_tower.layers.0.self_attn.q_proj.linear",
                Some(2),
            ),
            (
                "model.audio_tower.layers.0.lconv1d.linear_start.linear",
                Some(8),
            ),
            ("model.audio_tower.layers.0.self_attn.relative_k_proj", None),
            ("model.embed_audio.embedding_projection", None),
            ("model.embed_audios.embedding_projection", None),
            ("my_model.embed_audio", Some(4)),
            ("what.nobody.named", Some(4)),
        ] {
            assert_eq!(widths.bits(layer).unwrap(), bits, "{layer}");
        }
    }

    #[test]
    fn what_is_no_width_is_told() {
        for (section, word) in [
            (json!({"quant_method": "fp8"}), "fp8"),
            (json!(null), "quant_method"),
            (
                json!({"quant_method": "gemma", "num_bits": 3}),
                "num_bits: is 3",
            ),
            (
                json!({"quant_method": "gemma", "module_quant_configs": {"(": {"num_bits": 4}}}),
                "module_quant_configs[\"(\"]",
            ),
            (
                json!({"quant_method": "gemma", "module_quant_configs": {"mlp": {}}}),
                "is null",
            ),
        ] {
            let text = of(section).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    /// A pattern that would be tried for ages is given up.
    #[test]
    fn a_pattern_without_end_ends() {
        let widths = of(json!({
            "quant_method": "gemma",
            "module_quant_configs": {r"^(a+)+(?=b)\1$": {"num_bits": 4}},
        }))
        .unwrap();
        let text = widths.bits(&"a".repeat(60)).unwrap_err().to_string();
        assert!(
            text.contains("config.json") && text.contains("a+"),
            "{text}"
        );
    }
}
