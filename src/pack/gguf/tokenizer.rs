//! `tokenizer.json` from the tokens of a GGUF file.
//!
//! llama.cpp keeps the pieces of a SentencePiece model with their scores and no merges. A piece's score is the rank of the
//! merge that makes it, so the merges are found again: every way to split a piece into two others, in the order of the scores.
//! Source: `generate_merges` of the reference implementation's converter.

use std::collections::HashMap;
use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::super::error::PackError;
use super::config::Ids;
use super::header::{Header, Value};
use super::others::GEMMA_4;

// Kinds of tokens, as llama.cpp numbers them.
const NORMAL: f64 = 1.0;
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// What ends an answer of Gemma 4: a file's one key names one of these, not always the same.
const STOPS: [&str; 3] = ["<eos>", "<turn|>", "<|tool_response>"];

/// Tokens of Gemma 4 that control something, of whatever type they are in a file: some have to be seen where llama.cpp prints answers.
const CONTROLS: [&str; 12] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];

/// The ids of `<bos>` and `<pad>`, and those that end an answer.
pub(super) fn ids(header: &Header) -> Ids {
    let id = |key: &str| match header.values.get(&format!("tokenizer.ggml.{key}_token_id")) {
        Some(Value::Number(id)) if *id >= 0.0 && *id < 16_777_216.0 => Some(*id as u32),
        _ => None,
    };
    let tokens: &[String] = match header.values.get("tokenizer.ggml.tokens") {
        Some(Value::Texts(tokens)) => tokens,
        _ => &[],
    };
    let named = |name: &str, among: usize| {
        let place = tokens.iter().take(among).position(|token| token == name);
        place.map(|id| id as u32)
    };
    let mut eos: Vec<u32> = Vec::new();
    if header.architecture() == Some(GEMMA_4) {
        eos.extend(STOPS.iter().filter_map(|name| named(name, tokens.len())));
    }
    if eos.is_empty() {
        eos.push(id("eos").unwrap_or(1));
        eos.extend(id("eot"));
        eos.extend(named("<end_of_turn>", tokens.len()));
        // Some files name `<end_of_turn>` as what ends a text; `<eos>` ends one too.
        eos.extend(named("<eos>", 16));
    }
    eos.sort_unstable();
    eos.dedup();
    Ids {
        bos: id("bos").unwrap_or(2),
        pad: id("padding").unwrap_or(0),
        eos,
    }
}

/// Builds the file; the error says to give a tokenizer where the GGUF file has none of Gemma's kind.
pub(super) fn tokenizer_json(header: &Header, path: &Path) -> Result<String, PackError> {
    let bad = |reason: &str| PackError::Gguf {
        path: path.to_owned(),
        reason: format!(
            "{reason}: give --tokenizer DIR, the directory of the model's tokenizer.json"
        ),
    };
    let value = |key: &str| header.values.get(&format!("tokenizer.ggml.{key}"));
    let Some(Value::Texts(tokens)) = value("tokens") else {
        return Err(bad("it has no tokens"));
    };
    let numbers = |key: &str| match value(key) {
        Some(Value::Numbers(list)) if list.len() == tokens.len() => Some(list),
        _ => None,
    };
    let kinds = numbers("token_type").ok_or_else(|| bad("its tokens have no types"))?;
    // Published files have some texts twice: of such a text the later id counts.
    let vocabulary: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .map(|(id, text)| (text.as_str(), id))
        .collect();
    let merges = match (value("merges"), numbers("scores")) {
        (Some(Value::Texts(merges)), _) => merges
            .iter()
            .map(|merge| merge.split_once(' '))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad("a merge has no two sides"))?,
        (_, Some(scores)) => merges_by_score(tokens, scores, kinds, &vocabulary)
            .ok_or_else(|| bad("its tokens can be split in more ways than those of any Gemma"))?,
        _ => return Err(bad("its tokens have neither scores nor merges")),
    };
    let is_gemma4 = header.architecture() == Some(GEMMA_4);
    let controls = |text: &str| is_gemma4 && CONTROLS.contains(&text);
    let added = tokens
        .iter()
        .zip(kinds)
        .enumerate()
        .filter(|(id, (text, kind))| {
            let is_added = [UNKNOWN, CONTROL, USER_DEFINED].contains(kind) || controls(text);
            is_added && vocabulary.get(text.as_str()) == Some(id)
        })
        .map(|(id, (content, &kind))| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: kind != USER_DEFINED || controls(content),
        })
        .collect();
    drop(vocabulary);
    let file = File {
        version: "1.0",
        added_tokens: added,
        normalizer: json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}),
        pre_tokenizer: json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
        post_processor: (),
        decoder: json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]}),
        model: Model {
            kind: "BPE",
            dropout: (),
            unk_token: "<unk>",
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: true,
            byte_fallback: true,
            ignore_merges: false,
            vocab: Vocabulary(tokens),
            merges,
        },
    };
    serde_json::to_string(&file).map_err(|error| bad(&error.to_string()))
}

/// The file as it is written, of texts that stay where they are: a tree of values would take ten times its bytes.
#[derive(Serialize)]
struct File<'t> {
    version: &'static str,
    added_tokens: Vec<AddedToken<'t>>,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: (),
    decoder: Json,
    model: Model<'t>,
}

#[derive(Serialize)]
struct AddedToken<'t> {
    id: usize,
    content: &'t str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Model<'t> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: (),
    unk_token: &'static str,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'t>,
    merges: Vec<(&'t str, &'t str)>,
}

/// Texts by id, written as ids by text.
struct Vocabulary<'t>(&'t [String]);

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().map(|(id, text)| (text, id)))
    }
}

/// What merges may take for each byte of the tokens and of the eight that say how long each is: the published vocabulary takes 7.
/// Texts that contain one another could take the square of their length.
const MERGE_BYTES_PER_BYTE: usize = 16;

/// Every split of every piece into two tokens; high scores first, and of one piece the longest left side. `None` where there are too
/// many.
fn merges_by_score<'t>(
    tokens: &'t [String],
    scores: &[f64],
    kinds: &[f64],
    vocabulary: &HashMap<&str, usize>,
) -> Option<Vec<(&'t str, &'t str)>> {
    let bytes: usize = tokens.iter().map(|text| text.len() + 8).sum();
    let mut room = bytes * MERGE_BYTES_PER_BYTE;
    let mut merges = Vec::new();
    for ((text, &score), kind) in tokens.iter().zip(scores).zip(kinds) {
        if ![NORMAL, USER_DEFINED].contains(kind) {
            continue;
        }
        for (length, (at, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(at);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                let merge = (score, length, left, right);
                room = room.checked_sub(size_of_val(&merge) + text.len())?;
                merges.push(merge);
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let sides = merges.into_iter().map(|(.., left, right)| (left, right));
    Some(sides.collect())
}
