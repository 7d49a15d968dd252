//! `tokenizer.json`: read once, straight into compact tables.
//!
//! The file is read as one string and the two large values (vocabulary, merges) are parsed from it without building a
//! JSON tree: the published file of 33 MB needs its own size while it is read, and about 16 MB afterwards.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::files::{self, SmallValue};
use super::SPACE_MARK;
use super::added::AddedToken;
use super::error::TokenizerError;
use super::merges::{Merge, Merges};
use super::vocabulary::Vocabulary;

/// The most that is read of a tokenizer's file; the published one has 33 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// Four times the published merges; each costs more memory than its few bytes in the file.
const MAX_MERGES: usize = 1 << 21;
/// The texts of all added tokens, which become an automaton with a state for nearly every byte; the published ones have 80 kB.
const MAX_ADDED_BYTES: usize = 512 << 10;

/// The file as tables.
pub(super) struct Parsed {
    pub(super) vocabulary: Vocabulary,
    pub(super) merges: Merges,
    pub(super) added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    normalizer: SmallValue,
    #[serde(default)]
    pre_tokenizer: SmallValue,
    #[serde(default)]
    decoder: SmallValue,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type", default)]
    kind: SmallValue,
    #[serde(default)]
    dropout: SmallValue,
    #[serde(default)]
    continuing_subword_prefix: SmallValue,
    #[serde(default)]
    end_of_word_suffix: SmallValue,
    #[serde(default)]
    byte_fallback: SmallValue,
    #[serde(default)]
    ignore_merges: SmallValue,
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow)]
    merges: &'a RawValue,
}

/// Reads a text file of bounded size.
pub(super) fn read(path: &Path) -> Result<String, TokenizerError> {
    let not_text = |_| {
        let what = "it is not valid UTF-8";
        std::io::Error::new(std::io::ErrorKind::InvalidData, what)
    };
    files::read(path, MAX_FILE_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).map_err(not_text))
        .map_err(|source| TokenizerError::Read {
            path: path.to_owned(),
            source,
        })
}

/// Parses the text of a `tokenizer.json`; `path` is named in errors.
pub(super) fn parse(text: &str, path: &Path) -> Result<Parsed, TokenizerError> {
    let json = |key| {
        move |source| TokenizerError::Json {
            path: path.to_owned(),
            key,
            source,
        }
    };
    let file: File<'_> = serde_json::from_str(text).map_err(json("the file"))?;
    check_structure(&file, path)?;
    let model = &file.model;

    let mut vocabulary = Vocabulary::default();
    VocabularySeed(&mut vocabulary)
        .deserialize(&mut serde_json::Deserializer::from_str(model.vocab.get()))
        .map_err(json("model.vocab"))?;
    let merges = MergesSeed(&vocabulary)
        .deserialize(&mut serde_json::Deserializer::from_str(model.merges.get()))
        .map_err(json("model.merges"))?;
    let merges = Merges::new(merges);
    let added = file.added_tokens.iter();
    let added_bytes: usize = added.map(|token| token.content.len()).sum();
    if added_bytes > MAX_ADDED_BYTES {
        return Err(TokenizerError::Value {
            path: path.to_owned(),
            key: "added_tokens".to_owned(),
            expected: format!("texts of {MAX_ADDED_BYTES} bytes at most in all"),
            found: added_bytes.to_string(),
        });
    }
    for token in &file.added_tokens {
        let value = |expected: String, found: String| TokenizerError::Value {
            path: path.to_owned(),
            key: format!("added_tokens, {:?}", token.content),
            expected,
            found,
        };
        if token.content.is_empty() {
            return Err(value(
                "a text".into(),
                format!("an empty one with id {}", token.id),
            ));
        }
        if token.single_word {
            return Err(value(
                "single_word = false".into(),
                "true, which is not supported".into(),
            ));
        }
        match vocabulary.id(&token.content) {
            Some(id) if id == token.id => {}
            Some(id) => {
                let expected = format!("id {id}, as in model.vocab or before in added_tokens");
                return Err(value(expected, token.id.to_string()));
            }
            None => vocabulary
                .insert(&token.content, token.id)
                .map_err(|found| value("a free id".into(), found))?,
        }
    }
    vocabulary.shrink_to_fit();
    Ok(Parsed {
        vocabulary,
        merges,
        added_tokens: file.added_tokens,
    })
}

/// Accepts the structure of Gemma's tokenizers and nothing else: anything else would give other ids without a word.
fn check_structure(file: &File<'_>, path: &Path) -> Result<(), TokenizerError> {
    let [normalizer, pre_tokenizer, decoder] =
        [&file.normalizer, &file.pre_tokenizer, &file.decoder].map(|value| &value.0);
    let model = &file.model;
    let [kind, dropout, byte_fallback, ignore_merges] = [
        &model.kind,
        &model.dropout,
        &model.byte_fallback,
        &model.ignore_merges,
    ]
    .map(|value| &value.0);
    let [prefix, suffix] =
        [&model.continuing_subword_prefix, &model.end_of_word_suffix].map(|value| &value.0);
    let unset = |value: &Value| value.is_null() || value == "";
    let is_space = |step: &Value| step["pattern"]["String"] == " ";
    let all = |value: &Value, list: &str, step: &dyn Fn(&Value) -> bool| {
        value.is_null() || steps(value, list).into_iter().all(step)
    };
    let mark = SPACE_MARK.to_string();
    let normalizers = steps(normalizer, "normalizers");
    let decoders = steps(decoder, "decoders");
    let checks = [
        (
            "normalizer",
            normalizer,
            matches!(normalizers[..], [step]
                if step["type"] == "Replace" && is_space(step) && step["content"] == mark.as_str()),
            "Replace of \" \" by \"\u{2581}\"",
        ),
        (
            "pre_tokenizer",
            pre_tokenizer,
            all(pre_tokenizer, "pretokenizers", &|step| {
                step["type"] == "Split" && is_space(step)
            }),
            "null, or Split on \" \"",
        ),
        (
            "decoder",
            decoder,
            matches!(decoders[..], [replace, bytes, fuse]
                if replace["type"] == "Replace"
                    && replace["pattern"]["String"] == mark.as_str()
                    && replace["content"] == " "
                    && bytes["type"] == "ByteFallback"
                    && fuse["type"] == "Fuse"),
            "Sequence of Replace of \"\u{2581}\" by \" \", ByteFallback, Fuse",
        ),
        (
            "model.type",
            kind,
            kind.is_null() || kind == "BPE",
            "\"BPE\"",
        ),
        (
            "model.dropout",
            dropout,
            dropout.is_null() || dropout.as_f64() == Some(0.0),
            "null",
        ),
        (
            "model.continuing_subword_prefix",
            prefix,
            unset(prefix),
            "null",
        ),
        ("model.end_of_word_suffix", suffix, unset(suffix), "null"),
        (
            "model.byte_fallback",
            byte_fallback,
            byte_fallback.as_bool() == Some(true),
            "true",
        ),
        (
            "model.ignore_merges",
            ignore_merges,
            ignore_merges.is_null() || ignore_merges.as_bool() == Some(false),
            "false",
        ),
    ];
    for (key, found, ok, expected) in checks {
        if !ok {
            return Err(TokenizerError::Value {
                path: path.to_owned(),
                key: key.to_owned(),
                expected: format!("{expected} (the structure of Gemma's tokenizers)"),
                found: brief(found),
            });
        }
    }
    Ok(())
}

/// The steps of a `Sequence`, or the one step that stands there alone.
fn steps<'v>(value: &'v Value, list: &str) -> Vec<&'v Value> {
    match value[list].as_array() {
        Some(steps) if value["type"] == "Sequence" => steps.iter().collect(),
        _ => vec![value],
    }
}

/// A JSON value for an error message: one line, at most 120 characters.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A string that borrows from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads `{"text": id, …}` into a vocabulary.
struct VocabularySeed<'v>(&'v mut Vocabulary);

impl<'de> DeserializeSeed<'de> for VocabularySeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for VocabularySeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of token texts and ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(text), id)) = map.next_entry()? {
            self.0.insert(&text, id).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Reads `[["a", "b"], …]`, or `["a b", …]` of older files, into merges; the position is the rank.
struct MergesSeed<'v>(&'v Vocabulary);

impl<'de> DeserializeSeed<'de> for MergesSeed<'_> {
    type Value = Vec<Merge>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Merge>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MergesSeed<'_> {
    type Value = Vec<Merge>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Merge>, A::Error> {
        let mut merges = Vec::new();
        let mut joined = String::new();
        while let Some(Pair(left, right)) = seq.next_element()? {
            if merges.len() == MAX_MERGES {
                return Err(A::Error::custom(format!(
                    "more than {MAX_MERGES} merges, the most that are read"
                )));
            }
            let rank = merges.len() as u32;
            let id = |text: &str| {
                self.0.id(text).ok_or_else(|| {
                    let merge = format!("merge {rank} of {left:?} and {right:?}");
                    A::Error::custom(format!(
                        "{merge}: expected tokens of model.vocab, found {text:?}"
                    ))
                })
            };
            joined.clear();
            joined.push_str(&left);
            joined.push_str(&right);
            let (left, right, result) = (id(&left)?, id(&right)?, id(&joined)?);
            merges.push(Merge {
                left,
                right,
                rank,
                result,
            });
        }
        Ok(merges)
    }
}

/// The two sides of a merge.
struct Pair<'a>(Cow<'a, str>, Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairVisitor;

        impl<'de> Visitor<'de> for PairVisitor {
            type Value = Pair<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two token texts as [\"a\", \"b\"] or \"a b\"")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair<'de>, A::Error> {
                let (Some(Text(left)), Some(Text(right)), None) = (
                    seq.next_element()?,
                    seq.next_element()?,
                    seq.next_element::<Text<'de>>()?,
                ) else {
                    return Err(A::Error::custom("expected two token texts"));
                };
                Ok(Pair(left, right))
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> Result<Pair<'de>, E> {
                let (left, right) = sides(text)?;
                Ok(Pair(left.into(), right.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Pair<'de>, E> {
                let (left, right) = sides(text)?;
                Ok(Pair(left.to_owned().into(), right.to_owned().into()))
            }
        }

        fn sides<E: serde::de::Error>(text: &str) -> Result<(&str, &str), E> {
            let mut parts = text.split(' ');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(left), Some(right), None) => Ok((left, right)),
                _ => Err(E::custom(format!(
                    "expected two token texts with one space between, found {text:?}"
                ))),
            }
        }

        deserializer.deserialize_any(PairVisitor)
    }
}
