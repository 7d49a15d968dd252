//! What is kept of a file in memory is a small multiple of the file, whatever it claims and however it is made.

use std::path::Path;

use gemmad::model::gemma3n::config::Config;
use gemmad::model::generation_config::GenerationConfig;
use gemmad::model::processor_config::ProcessorConfig;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::weights::Checkpoint;
use gemmad::pack::{PackOptions, pack_gguf};
use kernels::{Isa, Pool};

use crate::{ALONE, HEAP};

/// Opening any program's files takes this much.
const BASE_BYTES: usize = 2 << 20;

/// Runs `work`, which must fail, and compares what it held at its highest point with `times` the bytes of its file.
#[track_caller]
fn bounded<T>(
    name: &str,
    file_bytes: usize,
    times: usize,
    work: impl FnOnce() -> Result<T, String>,
) {
    let (result, peak_bytes) = HEAP.peak_of(work);
    let allowed = times * file_bytes + BASE_BYTES;
    assert!(
        peak_bytes <= allowed,
        "{name}: {peak_bytes} bytes at the peak of a file of {file_bytes}, {allowed} allowed"
    );
    let error = result.err().unwrap_or_else(|| panic!("{name} was taken"));
    assert!(error.len() < 1000, "{name}: {error}");
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// A GGUF file of these keys, each as its bytes from the kind on, and of no tensors.
fn gguf(keys: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut file, key.as_bytes());
        file.extend(value);
    }
    file
}

/// A list of `n` items of a kind, with the bytes of all of them.
fn list(kind: u32, n: usize, items: &[u8]) -> Vec<u8> {
    let mut value = 9_u32.to_le_bytes().to_vec();
    value.extend(kind.to_le_bytes());
    value.extend((n as u64).to_le_bytes());
    value.extend(items);
    value
}

fn texts<'t>(all: impl Iterator<Item = &'t [u8]>) -> Vec<u8> {
    let (mut n, mut items) = (0, Vec::new());
    for one in all {
        text(&mut items, one);
        n += 1;
    }
    list(8, n, &items)
}

fn pack(file: &[u8]) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let from = home.path().join("a.gguf");
    std::fs::write(&from, file).unwrap();
    let pool = Pool::new(Isa::best(), 1);
    let options = PackOptions::default();
    pack_gguf(
        &from,
        None,
        &home.path().join("a.pack"),
        options,
        &pool,
        &mut |_, _| {},
    )
    .map(drop)
    .map_err(|error| error.to_string())
}

/// tiny-a's file with other tokens: everything else is in order, so that they are taken as far as they go.
fn with_tokens(tokens: &[Vec<u8>]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/tiny-a.gguf");
    let whole = std::fs::read(path).unwrap();
    // The lists of tokens stand one behind the other, and the keys behind them are three ids.
    let find = |key: &[u8]| {
        whole
            .windows(key.len())
            .position(|window| window == key)
            .unwrap()
    };
    let start = find(b"tokenizer.ggml.tokens") - 8;
    let end = find(b"tokenizer.ggml.bos_token_id") - 8;
    let mut file = whole[..start].to_vec();
    let n = tokens.len();
    for (key, value) in [
        (
            "tokenizer.ggml.tokens",
            texts(tokens.iter().map(|token| &token[..])),
        ),
        ("tokenizer.ggml.scores", list(6, n, &vec![0; 4 * n])),
        (
            "tokenizer.ggml.token_type",
            list(5, n, &1_i32.to_le_bytes().repeat(n)),
        ),
    ] {
        text(&mut file, key.as_bytes());
        file.extend(value);
    }
    file.extend(&whole[end..]);
    // The tensors' places count from the end of the header, in steps of 32 bytes: a header of any length serves.
    file.resize(file.len() + 64, 0);
    file
}

#[test]
fn a_gguf_costs_what_it_holds() {
    let _alone = ALONE.lock();
    // Each splits in as many ways as it is long, and all of them are tokens: half a megabyte made 2 GB.
    let nested: Vec<Vec<u8>> = (1..1000).map(|n| vec![b'a'; n]).collect();
    let file = with_tokens(&nested);
    let tokens: usize = nested.iter().map(Vec::len).sum();
    let tensors = file.len() - tokens;
    assert!(tokens < 500_000);
    // The tensors of the file are not read for it.
    bounded("nested tokens", file.len() - tensors, 64, || pack(&file));

    let long = with_tokens(&[vec![b'a'; 500_000]]);
    bounded("a long token", 500_000, 8, || pack(&long));

    let architecture = [&8_u32.to_le_bytes()[..], &7_u64.to_le_bytes(), b"gemma3n"].concat();
    let n = 400_000;
    let keys: [(&str, Vec<u8>); 5] = [
        ("tokenizer.ggml.tokens", texts((0..n / 8).map(|_| &b""[..]))),
        ("tokenizer.ggml.merges", texts((0..n / 8).map(|_| &b""[..]))),
        ("tokenizer.ggml.scores", list(0, n, &vec![0; n])),
        ("gemma3n.activation_sparsity_scale", list(7, n, &vec![0; n])),
        (
            "tokenizer.chat_template",
            texts((0..n / 8).map(|_| &b""[..])),
        ),
    ];
    for (key, value) in keys {
        let file = gguf(&[("general.architecture", architecture.clone()), (key, value)]);
        bounded(key, file.len(), 12, || pack(&file));
    }
    // Many keys with nothing in them.
    let names: Vec<String> = (0..16_000).map(|n| format!("gemma3n.{n}")).collect();
    let keys: Vec<(&str, Vec<u8>)> = names
        .iter()
        .map(|name| (&name[..], list(0, 0, &[])))
        .collect();
    let file = gguf(&keys);
    bounded("empty lists", file.len(), 16, || pack(&file));
}

#[test]
fn a_safetensors_header_costs_what_it_holds() {
    let _alone = ALONE.lock();
    let open = |header: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        Checkpoint::open(dir.path())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let many = |each: &dyn Fn(usize) -> String, n: usize| {
        let entries: Vec<String> = (0..n).map(each).collect();
        format!("{{{}}}", entries.join(","))
    };
    let tensors = many(
        &|n| format!(r#""{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#),
        40_000,
    );
    bounded("tensors", tensors.len(), 20, || open(&tensors));
    let metadata = many(&|n| format!(r#""{n}":"""#), 100_000);
    let metadata = format!(r#"{{"__metadata__":{metadata}}}"#);
    bounded("metadata", metadata.len(), 20, || open(&metadata));
    let shape = vec!["0"; 500_000].join(",");
    let shape = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,0]}}}}"#);
    bounded("a shape", shape.len(), 30, || open(&shape));
    // Not more than all files may have, however many there are.
    let large = " ".repeat(5 << 20);
    bounded("a long header", large.len(), 1, || open(&large));
}

#[test]
fn small_files_cost_what_they_hold() {
    let _alone = ALONE.lock();
    let write = |name: &str, text: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        dir
    };
    // A JSON value of two bytes takes seventy in memory, so what is parsed as a tree is short.
    let zeros = |bytes: usize| format!("[{}]", vec!["0"; bytes / 2].join(","));
    let objects = |bytes: usize| format!("[{}]", vec!["{}"; bytes / 3].join(","));
    for make in [&zeros as &dyn Fn(usize) -> String, &objects] {
        for bytes in [250_000, 3_000_000] {
            let tree = format!(r#"{{"model_type":"gemma3n","x":{}}}"#, make(bytes));
            let dir = write("config.json", &tree);
            bounded("config.json", bytes.min(300_000), 100, || {
                Config::load(dir.path())
                    .map(drop)
                    .map_err(|error| error.to_string())
            });
            let dir = write(
                "generation_config.json",
                &format!(r#"{{"eos_token_id":{}}}"#, make(bytes)),
            );
            let (_, peak_bytes) = HEAP.peak_of(|| GenerationConfig::load(dir.path()).is_ok());
            assert!(
                peak_bytes < 32 << 20,
                "generation_config.json: {peak_bytes}"
            );
            for name in ["processor_config.json", "preprocessor_config.json"] {
                let dir = write(
                    name,
                    &format!(r#"{{"image_processor":{{"size":{}}}}}"#, make(bytes)),
                );
                let (_, peak_bytes) = HEAP.peak_of(|| ProcessorConfig::load(dir.path()).is_ok());
                assert!(peak_bytes < 64 << 20, "{name}: {peak_bytes}");
            }
            let dir = write("pack.json", &tree);
            bounded("pack.json", bytes.min(300_000), 100, || {
                Checkpoint::open(dir.path())
                    .map(drop)
                    .map_err(|error| error.to_string())
            });
        }
    }
    let names: Vec<String> = (0..120_000).map(|n| format!(r#""{n}":"{n}""#)).collect();
    let index = format!(r#"{{"weight_map":{{{}}}}}"#, names.join(","));
    let dir = write("model.safetensors.index.json", &index);
    bounded("the index", index.len(), 20, || {
        Checkpoint::open(dir.path())
            .map(drop)
            .map_err(|error| error.to_string())
    });
}

#[test]
fn a_tokenizer_costs_what_it_holds() {
    let _alone = ALONE.lock();
    let parse = |text: &str| {
        Tokenizer::parse(text, Path::new("tokenizer.json"))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a/tokenizer.json");
    let sound: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let marker = "\"MARKER\"";
    let with = |pointer: &str, value: &str| {
        let mut file = sound.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap()[key] = "MARKER".into();
        file.to_string().replace(marker, value)
    };
    let list = |item: &str, n: usize| format!("[{}]", vec![item; n].join(","));
    for pointer in [
        "/normalizer",
        "/pre_tokenizer",
        "/decoder",
        "/model/type",
        "/model/dropout",
    ] {
        for item in ["0", "{}", "[]", "\"\""] {
            let file = with(pointer, &list(item, 500_000));
            bounded(pointer, file.len(), 2, || parse(&file));
        }
    }
    let added = list(r#"{"id":1,"content":"a"}"#, 50_000);
    let file = with("/added_tokens", &added);
    bounded("added tokens", file.len(), 10, || parse(&file));
    // An automaton has a state for nearly every byte.
    let one = format!(r#"[{{"id":2000000,"content":"{}"}}]"#, "ab".repeat(1 << 20));
    let file = with("/added_tokens", &one);
    bounded("a long added token", file.len(), 10, || parse(&file));
    let file = with("/model/merges", &list(r#""a b""#, 2_100_000));
    bounded("merges", file.len(), 10, || parse(&file));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), sound.to_string()).unwrap();
    let config = format!(
        r#"{{"x":{},"bos_token":"<no such>"}}"#,
        list("0", 1_000_000)
    );
    std::fs::write(dir.path().join("tokenizer_config.json"), &config).unwrap();
    let both = config.len() + sound.to_string().len();
    bounded("tokenizer_config.json", both, 4, || {
        Tokenizer::load(dir.path())
            .map(drop)
            .map_err(|error| error.to_string())
    });
}
