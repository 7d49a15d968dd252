//! What `config.json` of a Gemma 4 E checkpoint says.
//!
//! Names are those of the file. Nothing is assumed that can be read; what is read is checked before anything is sized
//! by it. Source: reference section 1.

mod audio;
mod drafter;
mod text;
mod vision;

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

pub use self::audio::AudioConfig;
pub use self::drafter::{Clusters, DrafterConfig};
pub use self::text::TextConfig;
pub use self::vision::{SOFT_TOKENS, VisionConfig};
use crate::model::config::{self, ConfigError, Section};
use crate::model::special_ids::{MediaIds, SpecialIds};

/// Everything that `config.json` says about a Gemma 4 checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower; `None` in a text-only checkpoint.
    pub vision: Option<VisionConfig>,
    /// The audio tower; `None` in a text-only checkpoint.
    pub audio: Option<AudioConfig>,
    /// Token ids with a meaning.
    pub ids: SpecialIds,
    /// The place of a video frame's soft tokens; `None` in a text-only checkpoint.
    pub video_token_id: Option<u32>,
}

impl Config {
    /// Reads and checks `config.json` in a checkpoint's directory.
    ///
    /// # Errors
    /// The file is missing or malformed, or a key is missing or out of range.
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let (value, path) = config::read(dir)?;
        Config::of(&value, &path)
    }

    /// Checks what `config.json` says; `path` is named in errors.
    ///
    /// # Errors
    /// A key is missing or out of range.
    pub(in crate::model) fn of(value: &Value, path: &Path) -> Result<Config, ConfigError> {
        let top = Section {
            value,
            name: "",
            path,
        };
        // A text-only checkpoint has the keys of the text model at the top.
        let complete = top.get("model_type").and_then(Value::as_str) != Some("gemma4_text");
        let text_section = if complete {
            top.section("text_config")
                .ok_or_else(|| top.error("text_config", "is missing"))?
        } else {
            top
        };
        let section = |key| top.section(key).filter(|_| complete);
        // A head that was trained in few bits is stored beside the embeddings, which it mostly equals.
        let quantization = top.get("quantization_config");
        if quantization.is_none_or(Value::is_null) {
            text_section.only("tie_word_embeddings", &Value::from(true))?;
        }
        let text = text::read(&text_section)?;
        let vision = section("vision_config")
            .map(|section| vision::read(&section, &top))
            .transpose()?;
        let audio = section("audio_config")
            .map(|section| audio::read(&section))
            .transpose()?;
        let has_media = vision.is_some() || audio.is_some();
        let config = Config {
            ids: special_ids(&top, &text_section, has_media)?,
            video_token_id: if has_media {
                top.optional_id("video_token_id")?
            } else {
                None
            },
            text,
            vision,
            audio,
        };
        let SpecialIds { bos, eos, media } = &config.ids;
        let media = media.iter().flat_map(MediaIds::all);
        let mut all = eos.iter().copied().chain([*bos]).chain(media);
        let mut all = all.by_ref().chain(config.video_token_id);
        if let Some(id) = all.find(|&id| id as usize >= config.text.vocab_size) {
            return Err(top.error(
                "…_token_id",
                format!("id {id} is outside vocab_size {}", config.text.vocab_size),
            ));
        }
        Ok(config)
    }

    /// The ids in whose places soft tokens stand; of both tables of embeddings, row 0 is read there (reference sections 2.1, 2.2).
    pub fn placeholders(&self) -> Vec<u32> {
        let media = self.ids.media.iter();
        media
            .flat_map(|media| [media.image, media.audio])
            .chain(self.video_token_id)
            .collect()
    }

    /// The same as ranges.
    pub fn row_ids(&self) -> Vec<Range<u32>> {
        let ids = self.placeholders().into_iter();
        ids.map(|id| id..id + 1).collect()
    }
}

fn special_ids(
    top: &Section<'_>,
    text: &Section<'_>,
    has_media: bool,
) -> Result<SpecialIds, ConfigError> {
    let place = |key: &str| if top.get(key).is_some() { *top } else { *text };
    let media = if has_media {
        Some(MediaIds {
            boi: top.id("boi_token_id")?,
            eoi: top.id("eoi_token_id")?,
            image: top.id("image_token_id")?,
            boa: top.id("boa_token_id")?,
            // Both spellings occur.
            eoa: match top.get("eoa_token_id") {
                Some(_) => top.id("eoa_token_id")?,
                None => top.id("eoa_token_index")?,
            },
            audio: top.id("audio_token_id")?,
        })
    } else {
        None
    };
    Ok(SpecialIds {
        bos: place("bos_token_id").id_or("bos_token_id", 2)?,
        eos: place("eos_token_id").ids_or("eos_token_id", &[1, 106])?,
        media,
    })
}

#[cfg(test)]
mod tests;
