//! Control tokens by their meaning, and the check that the tokenizer and `config.json` agree on them.

use std::path::Path;

use serde_json::Value;

use super::super::files;
use super::Tokenizer;
use super::error::TokenizerError;
use super::json::brief;
use super::vocabulary::Vocabulary;
use crate::model::special_ids::SpecialIds;

/// Ids of the control tokens that prompts are made of.
///
/// Their names are those of `tokenizer_config.json` (`bos_token`, `boi_token`, …) where it gives them, else the published
/// ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlTokens {
    /// `<bos>`, the start of every prompt.
    pub bos: u32,
    /// `<eos>`, the end of a text.
    pub eos: u32,
    /// `<pad>`, where the tokenizer has one. Nothing here pads, so it does not matter what `pad_token` says.
    pub pad: Option<u32>,
    /// `<start_of_turn>`
    pub start_of_turn: u32,
    /// `<end_of_turn>`, the end of an answer.
    pub end_of_turn: u32,
    /// Tokens of images, where the tokenizer has them.
    pub image: Option<MediaTokens>,
    /// Tokens of audio clips, where the tokenizer has them.
    pub audio: Option<MediaTokens>,
}

/// The keys of `tokenizer_config.json` that are read.
const NAMED: [&str; 10] = [
    "bos_token",
    "eos_token",
    "sot_token",
    "eot_token",
    "boi_token",
    "image_token",
    "eoi_token",
    "boa_token",
    "audio_token",
    "eoa_token",
];

/// Ids around and inside one kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaTokens {
    /// `<start_of_image>` or `<start_of_audio>`
    pub start: u32,
    /// `<image_soft_token>` or `<audio_soft_token>`, the place of one soft token
    pub soft: u32,
    /// `<end_of_image>` or `<end_of_audio>`
    pub end: u32,
}

impl ControlTokens {
    /// Finds the control tokens in a vocabulary; `config` is the text and path of a `tokenizer_config.json`.
    pub(super) fn read(
        vocabulary: &Vocabulary,
        path: &Path,
        config: Option<(&str, &Path)>,
    ) -> Result<Self, TokenizerError> {
        let (names, config_path) = match config {
            Some((text, path)) => {
                let json = |source| TokenizerError::Json {
                    path: path.to_owned(),
                    key: "the file",
                    source,
                };
                (files::keys(text.as_bytes(), &NAMED).map_err(json)?, path)
            }
            None => (Value::Null, path),
        };
        // A name that the configuration gives must exist; a published name may be missing.
        let find = |key: &str, published: &str| -> Result<Option<u32>, TokenizerError> {
            let error = |found: String| TokenizerError::Value {
                path: config_path.to_owned(),
                key: key.to_owned(),
                expected: format!("the text of a token of {}", path.display()),
                found,
            };
            let given = match names.get(key).unwrap_or(&Value::Null) {
                Value::Null => return Ok(vocabulary.id(published)),
                Value::String(name) => name,
                // Older files write the token with all its flags.
                Value::Object(token) => match token.get("content") {
                    Some(Value::String(name)) => name,
                    _ => return Err(error(brief(&names[key]))),
                },
                other => return Err(error(brief(other))),
            };
            vocabulary
                .id(given)
                .map(Some)
                .ok_or_else(|| error(format!("{given:?}, which is none")))
        };
        let require = |key: &str, published: &str| {
            find(key, published)?.ok_or_else(|| TokenizerError::Value {
                path: path.to_owned(),
                key: "model.vocab".to_owned(),
                expected: format!("a token {published}"),
                found: "none".to_owned(),
            })
        };
        let media = |start, soft, end| match (start, soft, end) {
            (Some(start), Some(soft), Some(end)) => Some(MediaTokens { start, soft, end }),
            _ => None,
        };
        Ok(ControlTokens {
            bos: require("bos_token", "<bos>")?,
            eos: require("eos_token", "<eos>")?,
            pad: vocabulary.id("<pad>"),
            start_of_turn: require("sot_token", "<start_of_turn>")?,
            end_of_turn: require("eot_token", "<end_of_turn>")?,
            image: media(
                find("boi_token", "<start_of_image>")?,
                find("image_token", "<image_soft_token>")?,
                find("eoi_token", "<end_of_image>")?,
            ),
            audio: media(
                find("boa_token", "<start_of_audio>")?,
                find("audio_token", "<audio_soft_token>")?,
                find("eoa_token", "<end_of_audio>")?,
            ),
        })
    }

    /// All ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        let media = [self.image, self.audio].into_iter().flatten();
        [self.bos, self.eos, self.start_of_turn, self.end_of_turn]
            .into_iter()
            .chain(self.pad)
            .chain(media.flat_map(|media| [media.start, media.soft, media.end]))
    }
}

impl Tokenizer {
    /// Checks that `config.json` (at `config_path`, for errors) means the same tokens by its `ids` as this tokenizer, and has a row for each of
    /// them: `vocab_size` rows.
    ///
    /// # Errors
    /// A control token has another id in `config.json`, or an id of the tokenizer has no row in the embedding.
    pub fn check_config(
        &self,
        ids: &SpecialIds,
        vocab_size: usize,
        config_path: &Path,
    ) -> Result<(), TokenizerError> {
        let control = &self.control;
        let disagreement = |id: u32, key, config_id| TokenizerError::Disagreement {
            tokenizer_path: self.path.clone(),
            config_path: config_path.to_owned(),
            token: self.vocabulary.text(id).unwrap_or_default().to_owned(),
            tokenizer_id: id,
            key,
            config_id,
        };
        // What ends a text differs in many a fine-tune; whatever either file names ends an answer.
        let mut pairs = vec![("bos_token_id", Some(control.bos), ids.bos)];
        if let Some(media) = &ids.media {
            let image = control.image;
            let audio = control.audio;
            pairs.extend([
                ("boi_token_id", image.map(|token| token.start), media.boi),
                ("image_token_id", image.map(|token| token.soft), media.image),
                ("eoi_token_id", image.map(|token| token.end), media.eoi),
                ("boa_token_id", audio.map(|token| token.start), media.boa),
                ("audio_token_id", audio.map(|token| token.soft), media.audio),
                ("eoa_token_id", audio.map(|token| token.end), media.eoa),
            ]);
        }
        for (key, tokenizer, config) in pairs {
            match tokenizer {
                Some(id) if id == config => {}
                Some(id) => return Err(disagreement(id, key, config.to_string())),
                None => {
                    return Err(TokenizerError::Value {
                        path: self.path.clone(),
                        key: "added_tokens".to_owned(),
                        expected: format!(
                            "the token that {} means by {key} = {config}",
                            config_path.display()
                        ),
                        found: "none of that name".to_owned(),
                    });
                }
            }
        }
        if self.vocab_size() > vocab_size {
            return Err(TokenizerError::Value {
                path: self.path.clone(),
                key: "model.vocab".to_owned(),
                expected: format!(
                    "ids below {vocab_size} (text_config.vocab_size of {})",
                    config_path.display()
                ),
                found: (self.vocab_size() - 1).to_string(),
            });
        }
        Ok(())
    }
}
