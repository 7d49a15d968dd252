//! Text to token ids and back, as Gemma's published `tokenizer.json` says.
//!
//! 1. Added tokens (control tokens, runs of newlines) are cut out of the text and become one id each.
//! 2. What is left has every space replaced by U+2581 and is split into characters; a character without an id becomes
//!    its UTF-8 bytes, one `<0xHH>` token each.
//! 3. Neighbours are merged by rank until nothing can be merged.
//!
//! Decoding is the concatenation of each token's bytes: U+2581 is a space, `<0xHH>` a byte.
//!
//! The tables are compact ones of our own, read from the file in one go, and tested against the `tokenizers` library. For
//! 262,144 tokens and half a million merges they take 16 MB (46 MB while loading) where the library takes 208 MB (464 MB),
//! and load in 0.3 s of x86_64 CPU time where the library takes 1.0 s; `benches/tokenizer_load.rs` measures both.

mod added;
mod control;
mod error;
mod json;
mod merges;
mod vocabulary;

use std::path::{Path, PathBuf};

use added::{Matcher, Piece};
pub use control::{ControlTokens, MediaTokens, ThoughtTokens, ToolTokens};
pub use error::TokenizerError;
use merges::Merges;
use vocabulary::Vocabulary;

/// Stands for a space in the texts of tokens.
const SPACE_MARK: char = '\u{2581}';

/// Gemma's tokenizer.
///
/// Source: `GemmaTokenizer` of the reference implementation (SentencePiece BPE with byte fallback).
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    vocabulary: Vocabulary,
    merges: Merges,
    /// Token of each byte.
    bytes: Vec<u32>,
    /// Added tokens looked for in the text as it is.
    raw: Matcher,
    /// Added tokens looked for after spaces have been replaced.
    normalized: Matcher,
    control: ControlTokens,
    /// Ids of control tokens, sorted: no user text and no merge gives them.
    special: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the names of control tokens from `tokenizer_config.json` where that exists.
    ///
    /// # Errors
    /// A file is unreadable, no UTF-8, no JSON, contradicts itself or is built differently from Gemma's.
    pub fn load(dir: &Path) -> Result<Tokenizer, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let text = json::read(&path)?;
        let config_path = dir.join("tokenizer_config.json");
        let config = if config_path.exists() {
            Some(json::read(&config_path)?)
        } else {
            None
        };
        Tokenizer::build(
            &text,
            &path,
            config
                .as_deref()
                .map(|config| (config, config_path.as_path())),
        )
    }

    /// Builds a tokenizer from the text of a `tokenizer.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn parse(json: &str, path: &Path) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::build(json, path, None)
    }

    fn build(
        json: &str,
        path: &Path,
        config: Option<(&str, &Path)>,
    ) -> Result<Self, TokenizerError> {
        let json::Parsed {
            vocabulary,
            mut merges,
            added_tokens,
        } = json::parse(json, path)?;
        let value = |key: &str, expected: &str, found: String| TokenizerError::Value {
            path: path.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let bytes = (0..=u8::MAX)
            .map(|byte| vocabulary.id(&format!("<0x{byte:02X}>")))
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(|| {
                value(
                    "model.vocab",
                    "byte tokens from <0x00> to <0xFF>",
                    "not all of them".into(),
                )
            })?;
        let control = ControlTokens::read(&vocabulary, path, config)?;
        let mut special: Vec<u32> = added_tokens
            .iter()
            .filter(|token| token.special)
            .map(|token| token.id)
            .collect();
        special.extend(control.ids());
        special.sort_unstable();
        special.dedup();
        if let Some(byte) = bytes
            .iter()
            .position(|id| special.binary_search(id).is_ok())
        {
            return Err(value(
                "added_tokens",
                "no byte token",
                format!("<0x{byte:02X}> as a control token"),
            ));
        }
        // Published merges spell out some control tokens (`<` + `pad>`); text must never become one that way.
        merges.forbid(&special);

        let (normalized, raw): (Vec<_>, Vec<_>) =
            added_tokens.into_iter().partition(|token| token.normalized);
        let normalized = normalized
            .into_iter()
            .map(|token| added::AddedToken {
                content: mark_spaces(&token.content),
                ..token
            })
            .collect();
        let matcher = |tokens| {
            Matcher::new(tokens)
                .map_err(|error| value("added_tokens", "texts to search for", error.to_string()))
        };
        Ok(Tokenizer {
            path: path.to_owned(),
            raw: matcher(raw)?,
            normalized: matcher(normalized)?,
            vocabulary,
            merges,
            bytes,
            control,
            special,
        })
    }

    /// Ids of a rendered prompt, in which `<start_of_turn>` and the like are control tokens; no `<bos>` is put in front.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_skipping(text, |_| false)
    }

    /// Ids of text from outside: what looks like a control token is spelled out and never becomes one.
    ///
    /// Added tokens that control nothing, such as runs of newlines, are found as in [`Tokenizer::encode`].
    pub fn encode_text(&self, text: &str) -> Vec<u32> {
        self.encode_skipping(text, |id| self.is_special(id))
    }

    /// Ids of bytes that need not be whole characters, as [`Tokenizer::encode_text`]; what is no UTF-8 becomes byte tokens.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            ids.extend(self.encode_text(chunk.valid()));
            let byte_token = |&byte: &u8| self.bytes[usize::from(byte)];
            ids.extend(chunk.invalid().iter().map(byte_token));
        }
        ids
    }

    fn encode_skipping(&self, text: &str, skip: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut symbols = Vec::new();
        self.raw.split(text, &skip, |piece| match piece {
            Piece::Token(id) => ids.push(id),
            Piece::Text(text) => {
                self.normalized
                    .split(&mark_spaces(text), &skip, |piece| match piece {
                        Piece::Token(id) => ids.push(id),
                        Piece::Text(text) => {
                            symbols.clear();
                            self.symbols(text, &mut symbols);
                            self.merges.apply(&symbols, &mut ids);
                        }
                    })
            }
        });
        ids
    }

    /// One id per character that has one, one per byte of the others.
    fn symbols(&self, text: &str, symbols: &mut Vec<u32>) {
        let mut utf8 = [0; 4];
        for character in text.chars() {
            let character = character.encode_utf8(&mut utf8);
            match self
                .vocabulary
                .id(character)
                .filter(|&id| !self.is_special(id))
            {
                Some(id) => symbols.push(id),
                None => symbols.extend(character.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }

    /// The text of a sequence of ids, control tokens included.
    ///
    /// A byte that is no part of valid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// An id that no token has.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            if !self.append_token_bytes(id, &mut bytes) {
                return Err(TokenizerError::UnknownId {
                    path: self.path.clone(),
                    id,
                    vocab_size: self.vocab_size(),
                });
            }
        }
        let mut text = String::with_capacity(bytes.len());
        push_lossy(&bytes, &mut text);
        Ok(text)
    }

    /// Appends the bytes that a token stands for; false, and nothing appended, where no token has the id.
    ///
    /// A token may end in the middle of a UTF-8 character. Allocates nothing where `out` has room.
    pub fn append_token_bytes(&self, id: u32, out: &mut Vec<u8>) -> bool {
        let Some(text) = self.vocabulary.text(id) else {
            return false;
        };
        match byte_of(text) {
            Some(byte) => out.push(byte),
            None => {
                for (at, part) in text.split(SPACE_MARK).enumerate() {
                    if at > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
        true
    }

    /// The bytes that a token stands for; `None` where no token has the id.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_token_bytes(id, &mut bytes).then_some(bytes)
    }

    /// The id of a token by its text as it stands in the file (U+2581 for a space).
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    /// Whether an id is a control token, which structures a prompt and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// One more than the highest id; ids below it may have holes.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// The control tokens that prompts are made of.
    pub fn control(&self) -> &ControlTokens {
        &self.control
    }
}

/// The normaliser: every space becomes U+2581.
fn mark_spaces(text: &str) -> String {
    text.replace(' ', "\u{2581}")
}

/// The byte of a `<0xHH>` token.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hex {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// Appends bytes as text, with one U+FFFD for each byte that is no part of valid UTF-8.
pub(super) fn push_lossy(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}
