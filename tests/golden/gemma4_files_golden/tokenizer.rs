//! The tokenizer that a file brings, and its tokens with a meaning.

use super::{FILES, pack_of};
use crate::common::gguf::Gguf;
use crate::common::{fixtures_gemma4, fixtures_gemma4_gguf};
use gemmad::model::family;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::pack::Recipe;
use serde_json::Value;

fn cases() -> Vec<(String, Vec<u32>, String)> {
    let path = fixtures_gemma4().join("golden/manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = manifest["tokenizer_cases"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    cases
        .iter()
        .map(|case| {
            let ids = serde_json::from_value(case["ids"].clone()).unwrap();
            (text(&case["text"]), ids, text(&case["decoded"]))
        })
        .collect()
}

/// Texts that the file has under two ids: the one before, and the one that counts.
fn doubled(file: &str) -> Vec<[u32; 2]> {
    let gguf = Gguf::read(&fixtures_gemma4_gguf().join(file));
    let (_, tokens) = gguf
        .keys
        .iter()
        .find(|(key, _)| key == "tokenizer.ggml.tokens")
        .unwrap();
    // A list (9) of so many texts (8), each behind its length.
    let (mut texts, mut at) = (Vec::new(), 16);
    while at < tokens.len() {
        let n = u64::from_le_bytes(tokens[at..at + 8].try_into().unwrap()) as usize;
        texts.push(&tokens[at + 8..][..n]);
        at += 8 + n;
    }
    let mut pairs = Vec::new();
    for (id, text) in texts.iter().enumerate() {
        if let Some(before) = texts[..id].iter().position(|other| other == text) {
            pairs.push([before as u32, id as u32]);
        }
    }
    pairs
}

#[test]
fn ids_and_texts_are_those_of_the_checkpoint() {
    let checkpoint = Tokenizer::load(&fixtures_gemma4()).unwrap();
    let cases = cases();
    assert!(!cases.is_empty());
    for file in FILES {
        let dir = tempfile::tempdir().unwrap();
        let pack = pack_of(file, Recipe::Small, dir.path());
        let tokenizer = Tokenizer::load(&pack).unwrap();
        for (text, ids, decoded) in &cases {
            assert_eq!(tokenizer.encode(text), *ids, "{file} {text:?}");
            assert_eq!(tokenizer.decode(ids).unwrap(), *decoded, "{file}");
        }
        let doubled = doubled(file);
        let changed = |id| doubled.iter().flatten().any(|&other| other == id);
        for id in (0..checkpoint.vocab_size() as u32).filter(|&id| !changed(id)) {
            assert_eq!(tokenizer.token_bytes(id), checkpoint.token_bytes(id));
            assert_eq!(tokenizer.is_special(id), checkpoint.is_special(id), "{id}");
        }
        assert_eq!(tokenizer.control(), checkpoint.control());
    }
}

#[test]
fn a_text_under_two_ids_is_told_by_both_and_means_the_later_one() {
    let file = FILES[1];
    let doubled = doubled(file);
    assert!(!doubled.is_empty(), "{file} has such a text");
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&pack_of(file, Recipe::Small, dir.path())).unwrap();
    for [before, later] in doubled {
        let bytes = tokenizer.token_bytes(before).unwrap();
        assert_eq!(Some(&bytes), tokenizer.token_bytes(later).as_ref());
        let text = tokenizer.decode(&[later]).unwrap();
        assert_eq!(tokenizer.id_of(&text.replace(' ', "\u{2581}")), Some(later));
        assert!(!tokenizer.encode(&text).contains(&before), "{text:?}");
    }
}

/// One file names `<turn|>` as what ends a text, the other `<eos>`, and neither `<|tool_response>`: an answer ends with any.
#[test]
fn answers_end_as_those_of_the_checkpoint() {
    let checkpoint = family::load(&fixtures_gemma4()).unwrap();
    let tokenizer = Tokenizer::load(&fixtures_gemma4()).unwrap();
    let stops = ["<eos>", "<turn|>", "<|tool_response>"];
    let stops = stops.map(|name| tokenizer.id_of(name).unwrap());
    for file in FILES {
        let dir = tempfile::tempdir().unwrap();
        let pack = pack_of(file, Recipe::Small, dir.path());
        let packed = family::load(&pack).unwrap();
        let (ours, theirs) = (packed.spec(), checkpoint.spec());
        for stop in stops {
            assert!(ours.ids.eos.contains(&stop), "{file}: {stop}");
        }
        assert_eq!(ours.ids.eos.len(), stops.len());
        assert_eq!(ours.ids.bos, theirs.ids.bos);
        assert_eq!(ours.layers, theirs.layers);
        assert_eq!(ours.max_context, theirs.max_context);
        let template = std::fs::read(pack.join("chat_template.jinja")).unwrap();
        let own = std::fs::read(fixtures_gemma4().join("chat_template.jinja")).unwrap();
        assert_eq!(template, own);
    }
}
