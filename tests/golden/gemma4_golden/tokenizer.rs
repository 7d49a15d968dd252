//! Ids and texts, control tokens, and what the files must agree on.

use std::path::Path;

use gemmad::model::family;
use gemmad::model::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::manifest;
use crate::common::fixtures_gemma4;

fn json_file(name: &str) -> Value {
    let bytes = std::fs::read(fixtures_gemma4().join(name)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn ids_and_texts_are_those_of_the_reference() {
    let tokenizer = Tokenizer::load(&fixtures_gemma4()).unwrap();
    let manifest = manifest();
    let cases = manifest["tokenizer_cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            case["decoded"].as_str().unwrap()
        );
    }
}

/// Every token that the file adds controls something, and no text becomes one; runs of newlines are ordinary words.
#[test]
fn added_tokens_are_control_tokens() {
    let tokenizer = Tokenizer::load(&fixtures_gemma4()).unwrap();
    let file = json_file("tokenizer.json");
    let added = file["added_tokens"].as_array().unwrap();
    assert_eq!(added.len(), 24);
    for token in added {
        let text = token["content"].as_str().unwrap();
        let id = token["id"].as_u64().unwrap() as u32;
        assert!(tokenizer.is_special(id), "{text}");
        assert_eq!(tokenizer.encode(text), [id], "{text}");
        let ids = tokenizer.encode_text(text);
        assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{text}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert!(!tokenizer.is_special(tokenizer.id_of("\n\n").unwrap()));
}

/// Without tokenizer_config.json the published names stand, and control tokens are guarded although nothing calls them special.
#[test]
fn control_tokens_are_found_by_their_published_names() {
    let with_config = Tokenizer::load(&fixtures_gemma4()).unwrap();
    let mut file = json_file("tokenizer.json");
    for token in file["added_tokens"].as_array_mut().unwrap() {
        token["special"] = json!(false);
    }
    let bare = Tokenizer::parse(&file.to_string(), Path::new("tokenizer.json")).unwrap();
    assert_eq!(bare.control(), with_config.control());
    let control = bare.control();
    let (thoughts, tools) = (control.thoughts.unwrap(), control.tools.unwrap());
    for (id, text) in [
        (thoughts.ask, "<|think|>"),
        (thoughts.start, "<|channel>"),
        (thoughts.end, "<channel|>"),
        (control.start_of_turn, "<|turn>"),
        (control.end_of_turn, "<turn|>"),
        (tools.call[0], "<|tool_call>"),
        (tools.response[0], "<|tool_response>"),
        (tools.quote, "<|\"|>"),
        (control.image.unwrap().soft, "<|image|>"),
        (control.video.unwrap(), "<|video|>"),
    ] {
        assert_eq!(Some(id), bare.id_of(text), "{text}");
        assert!(
            bare.encode_text(text)
                .iter()
                .all(|&id| !bare.is_special(id))
        );
    }
}

#[test]
fn files_that_disagree_are_named() {
    let dir = fixtures_gemma4();
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let path = dir.join("config.json");
    let check = |config: &Value| {
        let model = family::parse(config.to_string().as_bytes(), &path).unwrap();
        let (ids, rows) = (&model.spec().ids, model.spec().vocab_size);
        let checked = tokenizer.check_config(ids, rows, &path);
        checked.map_err(|error| error.to_string())
    };
    let config = json_file("config.json");
    check(&config).unwrap();
    for (key, token) in [
        ("boi_token_id", "<|image>"),
        ("image_token_id", "<|image|>"),
        ("eoi_token_id", "<image|>"),
        ("boa_token_id", "<|audio>"),
        ("audio_token_id", "<|audio|>"),
        ("eoa_token_id", "<audio|>"),
    ] {
        let mut other = config.clone();
        other[key] = json!(7);
        let error = check(&other).unwrap_err();
        let said = format!("{key} = 7");
        for part in ["tokenizer.json gives ", token, "config.json", &said] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}
