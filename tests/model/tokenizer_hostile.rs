//! Damaged tokenizer files: an error or a tokenizer that keeps its promises, never a panic.

use std::path::Path;
use std::sync::LazyLock;

use crate::common::fixtures;
use gemmad::model::generation_config::GenerationConfig;
use gemmad::model::tokenizer::Tokenizer;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

static FILE: LazyLock<String> =
    LazyLock::new(|| std::fs::read_to_string(fixtures().join("tokenizer.json")).unwrap());

const TEXT: &str =
    "Hola, ¿qué tal?  <start_of_turn>user\n\n\n日本 <0x41>\u{2581}the light<pad>\r\n";

/// What holds for every tokenizer that loads, whatever its file says.
fn keeps_its_promises(json: &str) {
    let Ok(tokenizer) = Tokenizer::parse(json, Path::new("tokenizer.json")) else {
        return;
    };
    for ids in [tokenizer.encode(TEXT), tokenizer.encode_text(TEXT)] {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids).unwrap();
    }
    let ids = tokenizer.encode_text(TEXT);
    assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{ids:?}");
    assert!(tokenizer.decode(&[u32::MAX]).is_err());
    assert_eq!(tokenizer.token_bytes(u32::MAX), None);
}

/// A value that stands where another was expected.
fn values() -> impl Strategy<Value = Value> {
    let texts = prop::sample::select(vec![
        "",
        " ",
        "\u{2581}",
        "a",
        "\n",
        "<pad>",
        "<0x41>",
        "<0xZZ>",
        "<end_of_turn>",
        "é",
    ]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u32..2200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts.prop_map(Value::from),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!(["a", "b"])),
    ]
}

/// Follows indices down into a value and puts another in its place.
fn replace(value: &mut Value, path: &[Index], new: Value) {
    let child = match (value, path) {
        (value, []) => return *value = new,
        (Value::Object(map), [first, ..]) if !map.is_empty() => {
            let at = first.index(map.len());
            map.values_mut().nth(at)
        }
        (Value::Array(list), [first, ..]) if !list.is_empty() => {
            let at = first.index(list.len());
            list.get_mut(at)
        }
        (leaf, _) => return *leaf = new,
    };
    replace(child.unwrap(), &path[1..], new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_bytes_do_no_harm(edits in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6)) {
        let mut bytes = FILE.clone().into_bytes();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        keeps_its_promises(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_cut_file_is_refused(at in any::<Index>()) {
        let at = at.index(FILE.trim_end().len());
        let cut = String::from_utf8_lossy(&FILE.as_bytes()[..at]).into_owned();
        let error = Tokenizer::parse(&cut, Path::new("tokenizer.json")).unwrap_err().to_string();
        prop_assert!(error.starts_with("tokenizer.json: "), "{}", error);
    }

    #[test]
    fn changed_values_do_no_harm(
        changes in prop::collection::vec((prop::collection::vec(any::<Index>(), 1..5), values()), 1..4),
    ) {
        let mut file: Value = serde_json::from_str(&FILE).unwrap();
        for (path, new) in changes {
            replace(&mut file, &path, new);
        }
        keeps_its_promises(&file.to_string());
    }

    #[test]
    fn tokens_may_be_called_anything(
        renames in prop::collection::vec((any::<Index>(), values()), 1..4), flags in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let mut file: Value = serde_json::from_str(&FILE).unwrap();
        let added = file["added_tokens"].as_array_mut().unwrap();
        for (at, content) in renames {
            let at = at.index(added.len());
            added[at]["content"] = content;
        }
        for flag in flags {
            let (at, flag) = (flag.index(added.len() * 5) / 5, flag.index(added.len() * 5) % 5);
            let flag = ["single_word", "lstrip", "rstrip", "normalized", "special"][flag];
            added[at][flag] = true.into();
        }
        keeps_its_promises(&file.to_string());
    }

    #[test]
    fn other_files_of_the_checkpoint_do_no_harm(changes in prop::collection::vec((any::<Index>(), values()), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), &*FILE).unwrap();
        for name in ["tokenizer_config.json", "generation_config.json"] {
            let mut file: Value = serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap();
            for (path, new) in &changes {
                replace(&mut file, &[*path], new.clone());
            }
            std::fs::write(dir.path().join(name), file.to_string()).unwrap();
        }
        if let Ok(tokenizer) = Tokenizer::load(dir.path()) {
            assert!(tokenizer.is_special(tokenizer.control().bos));
        }
        if let Ok(config) = GenerationConfig::load(dir.path()) {
            assert_eq!(config.sampling.check(), Ok(()));
        }
    }
}
