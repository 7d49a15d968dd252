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
/// Their names are those of `tokenizer_config.json` (`bos_token`, `boi_token`, …) where it gives them, else published ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlTokens {
    /// `<bos>`, the start of every prompt.
    pub bos: u32,
    /// `<eos>`, the end of a text.
    pub eos: u32,
    /// `<pad>`, where the tokenizer has one. Nothing here pads, so it does not matter what `pad_token` says.
    pub pad: Option<u32>,
    /// `<start_of_turn>` or `<|turn>`
    pub start_of_turn: u32,
    /// `<end_of_turn>` or `<turn|>`, the end of an answer.
    pub end_of_turn: u32,
    /// Tokens of images, where the tokenizer has them.
    pub image: Option<MediaTokens>,
    /// Tokens of audio clips, where the tokenizer has them.
    pub audio: Option<MediaTokens>,
    /// `<|video|>`, the place of a soft token of a film's picture, where the tokenizer has it.
    pub video: Option<u32>,
    /// Tokens around thoughts, where the tokenizer has them.
    pub thoughts: Option<ThoughtTokens>,
    /// Tokens of tools, where the tokenizer has them.
    pub tools: Option<ToolTokens>,
}

/// Ids around and inside one kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaTokens {
    /// `<start_of_image>` or `<start_of_audio>`; `<|image>` or `<|audio>`
    pub start: u32,
    /// `<image_soft_token>` or `<audio_soft_token>`; `<|image|>` or `<|audio|>`: the place of one soft token
    pub soft: u32,
    /// `<end_of_image>` or `<end_of_audio>`; `<image|>` or `<audio|>`
    pub end: u32,
}

/// Ids around what the model thinks before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThoughtTokens {
    /// `<|think|>`, which asks for thoughts.
    pub ask: u32,
    /// `<|channel>`
    pub start: u32,
    /// `<channel|>`
    pub end: u32,
}

/// Ids around tools: what they are, calls of them, and what came of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolTokens {
    /// `<|tool>` and `<tool|>`
    pub declaration: [u32; 2],
    /// `<|tool_call>` and `<tool_call|>`
    pub call: [u32; 2],
    /// `<|tool_response>`, where the model waits for what comes of its calls, and `<tool_response|>`
    pub response: [u32; 2],
    /// `<|"|>`, on both sides of a text among arguments.
    pub quote: u32,
}

/// What is named: a key of `tokenizer_config.json`, and the names that Gemma 3n and Gemma 4 have for it.
type Name = (&'static str, &'static [&'static str]);

const BOS: Name = ("bos_token", &["<bos>"]);
const EOS: Name = ("eos_token", &["<eos>"]);
const TURN: [Name; 2] = [
    ("sot_token", &["<start_of_turn>", "<|turn>"]),
    ("eot_token", &["<end_of_turn>", "<turn|>"]),
];
const IMAGE: [Name; 3] = [
    ("boi_token", &["<start_of_image>", "<|image>"]),
    ("image_token", &["<image_soft_token>", "<|image|>"]),
    ("eoi_token", &["<end_of_image>", "<image|>"]),
];
const AUDIO: [Name; 3] = [
    ("boa_token", &["<start_of_audio>", "<|audio>"]),
    ("audio_token", &["<audio_soft_token>", "<|audio|>"]),
    ("eoa_token", &["<end_of_audio>", "<audio|>"]),
];
const THOUGHTS: [Name; 3] = [
    ("think_token", &["<|think|>"]),
    ("soc_token", &["<|channel>"]),
    ("eoc_token", &["<channel|>"]),
];
const TOOLS: [Name; 7] = [
    ("std_token", &["<|tool>"]),
    ("etd_token", &["<tool|>"]),
    ("stc_token", &["<|tool_call>"]),
    ("etc_token", &["<tool_call|>"]),
    ("str_token", &["<|tool_response>"]),
    ("etr_token", &["<tool_response|>"]),
    ("escape_token", &["<|\"|>"]),
];

/// The keys of `tokenizer_config.json` that are read.
fn keys() -> Vec<&'static str> {
    let singles = [BOS, EOS].into_iter();
    let all = singles.chain(TURN).chain(IMAGE).chain(AUDIO);
    all.chain(THOUGHTS)
        .chain(TOOLS)
        .map(|(key, _)| key)
        .collect()
}

/// Names of control tokens, and where they stand.
struct Names<'a> {
    vocabulary: &'a Vocabulary,
    /// The tokenizer's file.
    path: &'a Path,
    /// What `tokenizer_config.json` says of [`keys`], and that file.
    given: Value,
    config_path: &'a Path,
}

impl Names<'_> {
    /// The id of a token. A name that the configuration gives must exist; a published name may be missing.
    fn find(&self, (key, published): Name) -> Result<Option<u32>, TokenizerError> {
        let error = |found: String| TokenizerError::Value {
            path: self.config_path.to_owned(),
            key: key.to_owned(),
            expected: format!("the text of a token of {}", self.path.display()),
            found,
        };
        let given = match self.given.get(key).unwrap_or(&Value::Null) {
            Value::Null => {
                let mut ids = published.iter().map(|name| self.vocabulary.id(name));
                return Ok(ids.find_map(|id| id));
            }
            Value::String(name) => name,
            // Older files write the token with all its flags.
            Value::Object(token) => match token.get("content") {
                Some(Value::String(name)) => name,
                _ => return Err(error(brief(&self.given[key]))),
            },
            other => return Err(error(brief(other))),
        };
        let id = self.vocabulary.id(given);
        id.map(Some)
            .ok_or_else(|| error(format!("{given:?}, which is none")))
    }

    fn require(&self, name: Name) -> Result<u32, TokenizerError> {
        self.find(name)?.ok_or_else(|| TokenizerError::Value {
            path: self.path.to_owned(),
            key: "model.vocab".to_owned(),
            expected: format!("a token {}", name.1.join(" or ")),
            found: "none".to_owned(),
        })
    }

    /// The ids of tokens that are of use together only.
    fn all<const N: usize>(&self, names: [Name; N]) -> Result<Option<[u32; N]>, TokenizerError> {
        let mut ids = [0; N];
        let mut is_whole = true;
        for (id, name) in ids.iter_mut().zip(names) {
            match self.find(name)? {
                Some(found) => *id = found,
                None => is_whole = false,
            }
        }
        Ok(is_whole.then_some(ids))
    }

    fn media(&self, names: [Name; 3]) -> Result<Option<MediaTokens>, TokenizerError> {
        let ids = self.all(names)?;
        Ok(ids.map(|[start, soft, end]| MediaTokens { start, soft, end }))
    }
}

impl ControlTokens {
    /// Finds the control tokens in a vocabulary; `config` is the text and path of a `tokenizer_config.json`.
    pub(super) fn read(
        vocabulary: &Vocabulary,
        path: &Path,
        config: Option<(&str, &Path)>,
    ) -> Result<Self, TokenizerError> {
        let (given, config_path) = match config {
            Some((text, path)) => {
                let json = |source| TokenizerError::Json {
                    path: path.to_owned(),
                    key: "the file",
                    source,
                };
                (files::keys(text.as_bytes(), &keys()).map_err(json)?, path)
            }
            None => (Value::Null, path),
        };
        let names = Names {
            vocabulary,
            path,
            given,
            config_path,
        };
        let thoughts = names.all(THOUGHTS)?;
        let tools = names.all(TOOLS)?;
        Ok(ControlTokens {
            bos: names.require(BOS)?,
            eos: names.require(EOS)?,
            pad: vocabulary.id("<pad>"),
            start_of_turn: names.require(TURN[0])?,
            end_of_turn: names.require(TURN[1])?,
            image: names.media(IMAGE)?,
            audio: names.media(AUDIO)?,
            video: vocabulary.id("<|video|>"),
            thoughts: thoughts.map(|[ask, start, end]| ThoughtTokens { ask, start, end }),
            tools: tools.map(
                |[tool, end, call, end_call, response, end_response, quote]| ToolTokens {
                    declaration: [tool, end],
                    call: [call, end_call],
                    response: [response, end_response],
                    quote,
                },
            ),
        })
    }

    /// All ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        let media = self
            .media()
            .flat_map(|media| [media.start, media.soft, media.end]);
        let thoughts = self.thoughts.into_iter();
        let thoughts = thoughts.flat_map(|thoughts| [thoughts.ask, thoughts.start, thoughts.end]);
        let tools = self.tools.into_iter().flat_map(|tools| {
            let pairs = [tools.declaration, tools.call, tools.response];
            pairs.into_iter().flatten().chain([tools.quote])
        });
        [self.bos, self.eos, self.start_of_turn, self.end_of_turn]
            .into_iter()
            .chain(self.pad)
            .chain(media)
            .chain(self.video)
            .chain(thoughts)
            .chain(tools)
    }

    /// Ids that stand in the places of media and behind them: no answer holds one, since nothing would stand in its place.
    pub fn never_said(&self) -> impl Iterator<Item = u32> {
        let media = self.media().flat_map(|media| [media.soft, media.end]);
        media.chain(self.video)
    }

    fn media(&self) -> impl Iterator<Item = MediaTokens> {
        [self.image, self.audio].into_iter().flatten()
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
