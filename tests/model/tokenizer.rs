//! The tokenizer against the goldens of the reference implementation and against the `tokenizers` library.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gemmad::model::family;
use gemmad::model::tokenizer::{Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::Value;

fn fixtures() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a"),
        PathBuf::from,
    )
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// One tokenizer twice: ours and the library's.
struct Both {
    ours: Tokenizer,
    library: tokenizers::Tokenizer,
    /// The library told to leave special tokens in text alone.
    library_text: tokenizers::Tokenizer,
}

impl Both {
    fn parse(json: &str) -> Both {
        let mut library_text = json.parse::<tokenizers::Tokenizer>().unwrap();
        library_text.set_encode_special_tokens(true);
        Both {
            ours: Tokenizer::parse(json, Path::new("tokenizer.json")).unwrap(),
            library: json.parse().unwrap(),
            library_text,
        }
    }

    fn load(dir: &Path) -> Both {
        Both::parse(&std::fs::read_to_string(dir.join("tokenizer.json")).unwrap())
    }

    /// Both give the same ids, and the ids give the text back.
    fn agree(&self, text: &str) {
        let ids = self.ours.encode(text);
        assert_eq!(
            ids,
            self.library.encode_fast(text, false).unwrap().get_ids(),
            "{text:?}"
        );
        let decoded = self.ours.decode(&ids).unwrap();
        assert_eq!(decoded, text.replace('\u{2581}', " "));
        assert_eq!(decoded, self.library.decode(&ids, false).unwrap());
    }

    /// Both give the same ids when nothing in the text may be a control token.
    fn agree_as_text(&self, text: &str) {
        let ids = self.ours.encode_text(text);
        assert_eq!(
            ids,
            self.library_text
                .encode_fast(text, false)
                .unwrap()
                .get_ids(),
            "{text:?}"
        );
        assert!(
            !ids.iter().any(|&id| self.ours.is_special(id)),
            "{text:?} gives {ids:?}"
        );
        assert_eq!(
            self.ours.decode(&ids).unwrap(),
            text.replace('\u{2581}', " ")
        );
    }
}

static FIXTURE: LazyLock<Both> = LazyLock::new(|| Both::load(&fixtures()));
static DEMO: LazyLock<Both> = LazyLock::new(|| Both::load(&demo()));
static BIG: LazyLock<Both> =
    LazyLock::new(|| Both::parse(&gemmad::pack::SyntheticSize::E4b.tokenizer_json()));

const TEXTS: [&str; 10] = [
    "",
    "Turn off the kitchen light.",
    "¿Dónde está el niño? ¡Mañana, señor!",
    "台所の電気を消してください。コーヒー",
    "أطفئ ضوء المطبخ من فضلك",
    "Семья 👨‍👩‍👧‍👦 и флаг 🇪🇸, 😀",
    "  two  spaces\tand\ttabs \n\n\n\nfour newlines\r\n",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<image_soft_token>\n\n<start_of_audio><pad>",
    "<0x41><0xZZ> \u{0} \u{7f} \u{fffd} \u{10ffff} e\u{301}",
    "a▁b ▁▁ ▁",
];

#[test]
fn ids_and_texts_are_those_of_the_reference() {
    let manifest = std::fs::read_to_string(fixtures().join("golden/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let tokenizer = Tokenizer::load(&fixtures()).unwrap();
    let cases = manifest["tokenizer_cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids_no_bos"].clone()).unwrap();
        let with_bos: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(
            [&[tokenizer.control().bos], &ids[..]].concat(),
            with_bos,
            "{text:?}"
        );
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            case["decoded"].as_str().unwrap()
        );
    }
}

#[test]
fn chosen_texts_agree_with_the_library() {
    for both in [&*FIXTURE, &*DEMO, &*BIG] {
        for text in TEXTS {
            both.agree(text);
        }
    }
    for both in [&*FIXTURE, &*DEMO] {
        for text in TEXTS {
            both.agree_as_text(text);
        }
    }
}

#[test]
fn merges_never_spell_a_control_token() {
    // The library itself falls for this one: `<` + `pad>` is a merge of the published kind.
    let text = "<pad><bos> <eos>";
    let spelled = BIG.library_text.encode_fast(text, false).unwrap();
    assert!(spelled.get_ids().iter().any(|&id| BIG.ours.is_special(id)));
    let ids = BIG.ours.encode_text(text);
    assert!(!ids.iter().any(|&id| BIG.ours.is_special(id)), "{ids:?}");
    assert_eq!(BIG.ours.decode(&ids).unwrap(), text);
}

#[test]
fn invalid_bytes_become_replacement_characters() {
    let tokenizer = &FIXTURE.ours;
    let byte = |byte: u8| tokenizer.id_of(&format!("<0x{byte:02X}>")).unwrap();
    for (bytes, text) in [
        (&[0xe3, 0x81, 0x82][..], "あ"),
        (&[0xe3, 0x81], "\u{fffd}\u{fffd}"),
        (&[0xff], "\u{fffd}"),
        // The library gives up the whole run here; a stream has already printed the valid part.
        (&[0x41, 0xff, 0xc3, 0xa9], "A\u{fffd}é"),
    ] {
        let ids: Vec<u32> = bytes.iter().map(|&b| byte(b)).collect();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.token_bytes(byte(0xff)), Some(vec![0xff]));
    let error = tokenizer.decode(&[5, 9_999_999]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("token id 9999999 is not in the vocabulary"),
        "{error}"
    );
}

/// Text with a bit of everything: any Unicode, several scripts, and what looks like tokens.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-z ]{0,12}",
        2 => "\\PC{0,6}",
        1 => any::<String>(),
        1 => "[\\x00-\\x7f]{0,8}",
        1 => "[ぁ-ん一-龥ا-ي а-яñáéíóú¿¡😀-🙏]{0,8}",
        2 => prop::sample::select(vec![
            "\n", "\n\n", "\n\n\n\n\n\n", " ", "  ", "\u{2581}", "<bos>", "<start_of_turn>", "<end_of_turn", "<pad>", "<",
            "<0x0A>", "<unused7>", "<image_soft_token>", "<h1>", "os>", "\r\n",
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_agrees_with_the_library(text in texts()) {
        for both in [&*FIXTURE, &*DEMO] {
            both.agree(&text);
            both.agree_as_text(&text);
        }
        BIG.agree(&text);
    }

    #[test]
    fn any_text_is_safe_with_the_big_vocabulary(text in texts()) {
        let ids = BIG.ours.encode_text(&text);
        prop_assert!(!ids.iter().any(|&id| BIG.ours.is_special(id)));
        prop_assert_eq!(BIG.ours.decode(&ids).unwrap(), text.replace('\u{2581}', " "));
    }

    #[test]
    fn any_ids_decode_as_in_the_library(ids in prop::collection::vec(0..2048_u32, 0..40)) {
        let decoded = FIXTURE.ours.decode(&ids).unwrap();
        let library = FIXTURE.library.decode(&ids, false).unwrap();
        // Where bytes are broken the library gives up whole runs of them, so only then may the two differ.
        prop_assert!(decoded == library || library.contains('\u{fffd}'), "{:?}\n{:?}", decoded, library);
    }
}

/// Flags and forms that Gemma's files do not use today but that the format has.
#[test]
fn other_flags_and_the_older_form_agree_with_the_library() {
    let json = std::fs::read_to_string(fixtures().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&json).unwrap();
    let added = file["added_tokens"].as_array_mut().unwrap();
    for token in added.iter_mut() {
        match token["content"].as_str().unwrap() {
            "<mask>" => token["lstrip"] = true.into(),
            "<start_of_image>" => token["rstrip"] = true.into(),
            "<unk>" => token["normalized"] = true.into(),
            _ => {}
        }
    }
    let vocab_size = 1 + file["model"]["vocab"]
        .as_object()
        .unwrap()
        .values()
        .map(|id| id.as_u64().unwrap())
        .max()
        .unwrap();
    let flags = serde_json::json!({"single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false});
    let mut token = flags.clone();
    token["id"] = vocab_size.into();
    token["content"] = "of the".into();
    file["added_tokens"].as_array_mut().unwrap().push(token);
    let merges = file["model"]["merges"].as_array_mut().unwrap();
    for merge in merges.iter_mut() {
        *merge = format!(
            "{} {}",
            merge[0].as_str().unwrap(),
            merge[1].as_str().unwrap()
        )
        .into();
    }
    let both = Both::parse(&file.to_string());
    for text in [
        "the light of the house of  the<unk>\n<unk> x",
        "a  \t<mask> b<mask><mask>  <mask>",
        "<start_of_image> \n\n x<start_of_image><start_of_image>  \n<mask>",
        "of▁the",
    ] {
        let ids = both.ours.encode(text);
        assert_eq!(
            ids,
            both.library.encode_fast(text, false).unwrap().get_ids(),
            "{text:?}"
        );
        let ids = both.ours.encode_text(text);
        assert_eq!(
            ids,
            both.library_text
                .encode_fast(text, false)
                .unwrap()
                .get_ids(),
            "{text:?}"
        );
    }
}

/// Loads tiny-a's `tokenizer.json` after a change, and gives the error.
fn error_after(change: impl FnOnce(&mut Value)) -> String {
    let json = std::fs::read_to_string(fixtures().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&json).unwrap();
    change(&mut file);
    let error = Tokenizer::parse(&file.to_string(), Path::new("dir/tokenizer.json"))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("dir/tokenizer.json: "), "{error}");
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_is_not_supported_is_named() {
    type Case = (fn(&mut Value), &'static [&'static str]);
    let cases: [Case; 18] = [
        (
            |file| file["model"]["type"] = "Unigram".into(),
            &["model.type", "\"BPE\"", "\"Unigram\""],
        ),
        (
            |file| file["normalizer"] = serde_json::json!({"type": "NFKC"}),
            &["normalizer", "Replace", "NFKC"],
        ),
        (
            |file| file["normalizer"] = Value::Null,
            &["normalizer", "found null"],
        ),
        (
            |file| file["pre_tokenizer"] = serde_json::json!({"type": "ByteLevel"}),
            &["pre_tokenizer", "ByteLevel"],
        ),
        (
            |file| file["decoder"] = serde_json::json!({"type": "WordPiece"}),
            &["decoder", "WordPiece"],
        ),
        (
            |file| file["model"]["byte_fallback"] = false.into(),
            &["model.byte_fallback", "expected true"],
        ),
        (
            |file| file["model"]["ignore_merges"] = true.into(),
            &["model.ignore_merges"],
        ),
        (
            |file| file["model"]["dropout"] = 0.1.into(),
            &["model.dropout", "0.1"],
        ),
        (
            |file| file["model"]["end_of_word_suffix"] = "</w>".into(),
            &["model.end_of_word_suffix", "</w>"],
        ),
        (
            |file| file["model"]["vocab"]["new"] = 4_000_000_000_u32.into(),
            &["model.vocab", "below 1048576", "4000000000"],
        ),
        (
            |file| file["model"]["vocab"]["new"] = (-1).into(),
            &["model.vocab", "-1"],
        ),
        (
            |file| file["model"]["vocab"]["new"] = 7.into(),
            &["id 7 belongs to two tokens", "\"new\""],
        ),
        (
            |file| file["model"]["merges"][3] = serde_json::json!(["zzz", "q"]),
            &["model.merges", "merge 3", "\"zzz\""],
        ),
        (
            |file| file["model"]["merges"][3] = "a b c".into(),
            &["model.merges", "one space between", "a b c"],
        ),
        (
            |file| file["model"]["merges"][3] = serde_json::json!(["a"]),
            &["model.merges", "two token texts"],
        ),
        (
            |file| file["added_tokens"][0]["id"] = 9.into(),
            &["added_tokens", "\"<pad>\"", "expected id 0", "found 9"],
        ),
        (
            |file| file["added_tokens"][0]["single_word"] = true.into(),
            &["\"<pad>\"", "single_word = false"],
        ),
        (
            |file| {
                let vocab = file["model"]["vocab"].as_object_mut().unwrap();
                vocab.remove("<0x7F>");
            },
            &["model.vocab", "<0x00> to <0xFF>"],
        ),
    ];
    for (change, expected) in cases {
        let error = error_after(change);
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
    let missing = error_after(|file| {
        file["model"].as_object_mut().unwrap().remove("merges");
    });
    assert!(missing.contains("missing field `merges`"), "{missing}");
}

#[test]
fn unreadable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let load = || Tokenizer::load(dir.path()).unwrap_err();
    assert!(matches!(load(), TokenizerError::Read { .. }));
    let write = |bytes: &[u8]| std::fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
    write(b"{\"model\": \"\xff\"}");
    assert!(load().to_string().contains("UTF-8"));
    write(b"{\"model\": {\"vocab\": {");
    assert!(matches!(load(), TokenizerError::Json { .. }));
    write("[".repeat(100_000).as_bytes());
    assert!(matches!(load(), TokenizerError::Json { .. }));
    let file = std::fs::File::create(dir.path().join("tokenizer.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(load().to_string().contains("more than"), "{}", load());
}

#[test]
fn names_of_control_tokens_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        demo().join("tokenizer.json"),
        dir.path().join("tokenizer.json"),
    )
    .unwrap();
    let config =
        |json: &str| std::fs::write(dir.path().join("tokenizer_config.json"), json).unwrap();
    let published = Tokenizer::load(&demo()).unwrap();
    assert_eq!(
        Tokenizer::load(dir.path()).unwrap().control(),
        published.control()
    );
    config(r#"{"boi_token": {"content": "<unused3>", "lstrip": false}, "pad_token": null}"#);
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(
        tokenizer.control().image.unwrap().start,
        tokenizer.id_of("<unused3>").unwrap()
    );
    assert!(tokenizer.is_special(tokenizer.id_of("<unused3>").unwrap()));
    config(r#"{"eoa_token": "<no such>"}"#);
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    for part in [
        "tokenizer_config.json",
        "eoa_token",
        "\"<no such>\"",
        "tokenizer.json",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn ids_must_be_those_of_the_models_configuration() {
    for dir in [fixtures(), demo()] {
        let tokenizer = Tokenizer::load(&dir).unwrap();
        let path = dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let check = |config: &Value| {
            let model = family::parse(config.to_string().as_bytes(), &path).unwrap();
            tokenizer
                .check_config(&model.spec().ids, model.spec().vocab_size, &path)
                .map_err(|error| error.to_string())
        };
        check(&config).unwrap();
        let keys = [
            "bos_token_id",
            "boi_token_id",
            "eoi_token_id",
            "image_token_id",
            "boa_token_id",
            "eoa_token_id",
            "audio_token_id",
        ];
        for key in keys {
            let right = config[key].take();
            config[key] = 9.into();
            let error = check(&config).unwrap_err();
            for part in ["tokenizer.json gives <", "config.json says", key, "9"] {
                assert!(error.contains(part), "{part} is not in {error}");
            }
            config[key] = right;
        }
    }
}
