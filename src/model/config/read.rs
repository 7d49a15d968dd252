//! From JSON to [`Config`]: every value is fetched by key, checked, and named in the error when it does not fit.

use std::path::Path;

use serde_json::Value;

use super::{
    AudioConfig, Config, ConfigError, MAX_DIMENSION, MAX_SOFT_TOKENS, MAX_WIDTH, MediaIds,
    SpecialIds, VisionConfig, text,
};

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

    fn required(&self, key: &str) -> Result<&'a Value, ConfigError> {
        self.get(key).ok_or_else(|| self.error(key, "is missing"))
    }

    fn as_integer(&self, key: &str, value: &Value, max: u64) -> Result<u64, ConfigError> {
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

    fn id(&self, key: &str) -> Result<u32, ConfigError> {
        Ok(self.as_integer(key, self.required(key)?, MAX_DIMENSION)? as u32)
    }

    fn id_or(&self, key: &str, default: u32) -> Result<u32, ConfigError> {
        if self.get(key).is_none() {
            Ok(default)
        } else {
            self.id(key)
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

    fn sizes<const N: usize>(
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

    fn pairs(&self, key: &str, default: [[usize; 2]; 2]) -> Result<[[usize; 2]; 2], ConfigError> {
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

pub(super) fn config(value: &Value, path: &Path) -> Result<Config, ConfigError> {
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
    let model_type = top.get("model_type").and_then(Value::as_str).unwrap_or("");
    let complete = match model_type {
        "gemma3n" => true,
        "gemma3n_text" => false,
        other => {
            return Err(top.error(
                "model_type",
                format!(
                    "is {other:?}; only Gemma 3n (\"gemma3n\" or \"gemma3n_text\") is supported"
                ),
            ));
        }
    };
    let text_section = if complete {
        top.section("text_config")
            .ok_or_else(|| top.error("text_config", "is missing"))?
    } else {
        top
    };
    let text = text::read(&text_section)?;
    let vision = if complete {
        top.section("vision_config")
            .map(|s| vision(&s))
            .transpose()?
    } else {
        None
    };
    let audio = if complete {
        top.section("audio_config").map(|s| audio(&s)).transpose()?
    } else {
        None
    };
    let ids = special_ids(&top, &text_section, complete)?;
    let mut all = [ids.bos].into_iter().chain(ids.eos.iter().copied());
    if let Some(id) = all.find(|&id| id as usize >= text.vocab_size) {
        return Err(top.error(
            "bos/eos_token_id",
            format!("id {id} is outside vocab_size {}", text.vocab_size),
        ));
    }
    Ok(Config {
        text,
        vision,
        audio,
        ids,
        vision_soft_tokens_per_image: soft_tokens(&top, "vision_soft_tokens_per_image", 256)?,
        audio_soft_tokens_per_image: soft_tokens(&top, "audio_soft_tokens_per_image", 188)?,
    })
}

fn soft_tokens(top: &Section<'_>, key: &str, default: usize) -> Result<usize, ConfigError> {
    top.at_most(MAX_SOFT_TOKENS, key, top.size_or(key, default)?)
}

fn special_ids(
    top: &Section<'_>,
    text: &Section<'_>,
    complete: bool,
) -> Result<SpecialIds, ConfigError> {
    // The released files repeat the ids in the text section; the outer one wins, as in the reference.
    let place = |key: &str| if top.get(key).is_some() { *top } else { *text };
    let eos_place = place("eos_token_id");
    let eos = match eos_place.get("eos_token_id") {
        None => vec![1],
        Some(Value::Array(list)) if list.len() <= 64 => list
            .iter()
            .map(|value| Ok(eos_place.as_integer("eos_token_id", value, MAX_DIMENSION)? as u32))
            .collect::<Result<_, ConfigError>>()?,
        Some(value) => vec![eos_place.as_integer("eos_token_id", value, MAX_DIMENSION)? as u32],
    };
    let media = if complete {
        Some(MediaIds {
            boi: top.id("boi_token_id")?,
            eoi: top.id("eoi_token_id")?,
            image: top.id("image_token_id")?,
            boa: top.id("boa_token_id")?,
            eoa: top.id("eoa_token_id")?,
            audio: top.id("audio_token_id")?,
        })
    } else {
        None
    };
    Ok(SpecialIds {
        bos: place("bos_token_id").id_or("bos_token_id", 2)?,
        eos,
        media,
    })
}

fn vision(section: &Section<'_>) -> Result<VisionConfig, ConfigError> {
    Ok(VisionConfig {
        hidden_size: section.size_or("hidden_size", 2048)?,
        vocab_size: section.size_or("vocab_size", 128)?,
        vocab_offset: section.size_or("vocab_offset", 262_144)?,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        model_args: section.get("model_args").cloned(),
    })
}

/// A 1024-point spectrum has 513 bins: more mel bins than that are no features.
const MAX_MEL_BINS: usize = 513;
/// The real kernels are 3 wide and step by 2.
const MAX_CONVOLUTION: usize = 64;

fn audio(section: &Section<'_>) -> Result<AudioConfig, ConfigError> {
    let config = AudioConfig {
        hidden_size: section.size_or("hidden_size", 1536)?,
        input_feat_size: section.size_or("input_feat_size", 128)?,
        conf_num_hidden_layers: section.size_or("conf_num_hidden_layers", 12)?,
        conf_num_attention_heads: section.size_or("conf_num_attention_heads", 8)?,
        conf_attention_chunk_size: section.size_or("conf_attention_chunk_size", 12)?,
        conf_attention_context_left: section.size_or("conf_attention_context_left", 13)?,
        conf_attention_context_right: section
            .get("conf_attention_context_right")
            .map_or(Ok(0), |_| section.count("conf_attention_context_right"))?,
        conf_attention_logit_cap: section.positive_or("conf_attention_logit_cap", 50.0)? as f32,
        conf_conv_kernel_size: section.size_or("conf_conv_kernel_size", 5)?,
        conf_reduction_factor: section.size_or("conf_reduction_factor", 4)?,
        conf_residual_weight: section.number_or("conf_residual_weight", 0.5)? as f32,
        gradient_clipping: section.positive_or("gradient_clipping", 1e10)? as f32,
        sscp_conv_channel_size: section.sizes("sscp_conv_channel_size", [128, 32])?,
        sscp_conv_kernel_size: section.pairs("sscp_conv_kernel_size", [[3, 3], [3, 3]])?,
        sscp_conv_stride_size: section.pairs("sscp_conv_stride_size", [[2, 2], [2, 2]])?,
        sscp_conv_group_norm_eps: section.positive_or("sscp_conv_group_norm_eps", 1e-3)? as f32,
        rms_norm_eps: section.positive_or("rms_norm_eps", 1e-6)? as f32,
        vocab_size: section.size_or("vocab_size", 128)?,
        vocab_offset: section.size_or("vocab_offset", 262_272)?,
    };
    if !config
        .hidden_size
        .is_multiple_of(config.conf_num_attention_heads)
    {
        return Err(section.error("conf_num_attention_heads", "does not divide hidden_size"));
    }
    // Bounds on what no tensor's shape limits: buffers of a frame, and products of kernel sizes.
    section.at_most(MAX_WIDTH, "hidden_size", config.hidden_size)?;
    section.at_most(MAX_MEL_BINS, "input_feat_size", config.input_feat_size)?;
    for (key, pairs) in [
        ("sscp_conv_kernel_size", config.sscp_conv_kernel_size),
        ("sscp_conv_stride_size", config.sscp_conv_stride_size),
    ] {
        for &size in pairs.as_flattened() {
            section.at_most(MAX_CONVOLUTION, key, size)?;
        }
    }
    if config.conf_attention_context_right != 0 {
        return Err(section.error(
            "conf_attention_context_right",
            "is not 0; looking ahead is not supported",
        ));
    }
    Ok(config)
}
