//! Bad input: damaged checkpoints end in one line that names the file and what is wrong with it, never in a panic, a
//! signal, or an allocation sized by a number that nobody vouches for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/allocator.rs"]
mod allocator;
#[path = "../common/mod.rs"]
mod common;
mod drafter;
mod gemma4;
mod gguf;
mod mmproj;
mod mobile;
mod mutated;
mod other_hands;
mod pictures;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use assert_cmd::Command;
use common::{fixtures, fixtures_gemma4};
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::sampler::Sampling;
use gemmad::pipeline::{
    Engine, EngineOptions, Generation, Media, Message, Part, PictureOptions, Request,
};
use serde_json::{Value, json};
use tempfile::TempDir;

#[global_allocator]
static WATCHED: allocator::Watched = allocator::Watched;

/// No buffer of the fixtures' few megabytes comes near; a number of a damaged file taken at its word would.
const MAX_BYTES: usize = 1 << 30;

/// A copy of the fixtures' checkpoint, to be damaged.
struct Checkpoint {
    dir: TempDir,
}

/// The fixtures' checkpoint as a pack, made once.
static PACK: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| packed(&fixtures()));

/// Likewise the one of Gemma 4.
static GEMMA4_PACK: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| packed(&fixtures_gemma4()));

fn packed(from: &Path) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("model.pack");
    Command::cargo_bin("gemmad")
        .unwrap()
        .args(["pack", "--from"])
        .arg(from)
        .arg("--to")
        .arg(&to)
        .assert()
        .success();
    (home, to)
}

impl Checkpoint {
    fn copy() -> Checkpoint {
        Checkpoint::copy_of(&fixtures())
    }

    fn pack() -> Checkpoint {
        Checkpoint::copy_of(&PACK.1)
    }

    fn gemma4() -> Checkpoint {
        Checkpoint::copy_of(&fixtures_gemma4())
    }

    fn copy_of(from: &Path) -> Checkpoint {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        Checkpoint { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The weight files, in order.
    fn shards(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".safetensors"))
            .collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.read(name)).unwrap();
        edit(&mut value);
        self.write(name, &serde_json::to_vec(&value).unwrap());
    }

    /// Rewrites the header of a weight file; the bytes behind it stay.
    fn edit_header(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let (header, data) = split(&self.read(name));
        let mut header: Value = serde_json::from_slice(&header).unwrap();
        edit(&mut header);
        self.write(name, &join(&serde_json::to_vec(&header).unwrap(), &data));
    }

    /// As [`Checkpoint::edit_header`], and puts the file's new size into `pack.json`, which would tell at once.
    fn edit_header_in_place(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        self.edit_header(name, edit);
        let bytes = self.read(name).len();
        self.edit_json("pack.json", |pack| {
            pack["files"][name]["bytes"] = bytes.into()
        });
    }

    /// The weight file that holds a tensor.
    fn shard_of(&self, tensor: &str) -> String {
        let holds = |name: &String| {
            let (header, _) = split(&self.read(name));
            serde_json::from_slice::<Value>(&header)
                .unwrap()
                .get(tensor)
                .is_some()
        };
        self.shards().into_iter().find(holds).unwrap()
    }
}

fn split(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (file[8..8 + length].to_vec(), file[8 + length..].to_vec())
}

/// Headers are padded with spaces to a multiple of 8, as the library writes them.
fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

fn gemmad(arguments: &[&str], dir: &Path) -> std::process::Output {
    Command::cargo_bin("gemmad")
        .unwrap()
        .args(arguments)
        .arg("--model")
        .arg(dir)
        .output()
        .unwrap()
}

/// Asks the damaged checkpoint something: the command must fail with one line that says all of `words`, and this code.
#[track_caller]
fn refused(checkpoint: &Checkpoint, code: i32, words: &[&str]) {
    refused_when(&["ask", "--max-tokens=1", "Hi"], checkpoint, code, words);
}

#[track_caller]
fn refused_when(arguments: &[&str], checkpoint: &Checkpoint, code: i32, words: &[&str]) {
    let output = gemmad(arguments, checkpoint.path());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(output.stdout.is_empty(), "nothing is answered");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

const DATA: i32 = 65;
const NO_INPUT: i32 = 66;
const CONFIG: i32 = 78;
/// A text tensor, a projection.
const Q_PROJ: &str = "model.language_model.layers.0.self_attn.q_proj.weight";
const EMBED: &str = "model.language_model.embed_tokens.weight";

#[test]
fn a_sound_checkpoint_is_answered() {
    let output = gemmad(&["ask", "--max-tokens=1", "Hi"], Checkpoint::copy().path());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn missing_files_are_named() {
    for (name, words) in [
        ("config.json", &["cannot read", "config.json"][..]),
        ("tokenizer.json", &["cannot read", "tokenizer.json"]),
    ] {
        let checkpoint = Checkpoint::copy();
        std::fs::remove_file(checkpoint.path().join(name)).unwrap();
        refused(&checkpoint, NO_INPUT, words);
    }
    let checkpoint = Checkpoint::copy();
    for shard in checkpoint.shards() {
        std::fs::remove_file(checkpoint.path().join(&shard)).unwrap();
        refused(&checkpoint, NO_INPUT, &["safetensors"]);
    }
    let index = checkpoint.path().join("model.safetensors.index.json");
    if index.exists() {
        std::fs::remove_file(index).unwrap();
    }
    refused(&checkpoint, NO_INPUT, &["model.safetensors", "--model"]);
    // What only says how to answer may be missing.
    let checkpoint = Checkpoint::copy();
    std::fs::remove_file(checkpoint.path().join("generation_config.json")).unwrap();
    std::fs::remove_file(checkpoint.path().join("preprocessor_config.json")).unwrap();
    assert!(
        gemmad(&["ask", "--max-tokens=1", "Hi"], checkpoint.path())
            .status
            .success()
    );
}

#[test]
fn an_index_that_lies_is_refused() {
    let index = |map: Value| {
        let checkpoint = Checkpoint::copy();
        checkpoint.write(
            "model.safetensors.index.json",
            json!({ "weight_map": map }).to_string().as_bytes(),
        );
        checkpoint
    };
    let name = "model.safetensors.index.json";
    refused(&index(json!({})), DATA, &[name, "weight_map", "empty"]);
    refused(&index(json!(3)), DATA, &[name]);
    for outside in [
        "../x.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
    ] {
        refused(
            &index(json!({ "a": outside })),
            DATA,
            &[name, "plain file name"],
        );
    }
    let shards = Checkpoint::copy().shards();
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        map.insert(format!("model.no_such_tensor.{i}"), shard.clone().into());
    }
    refused(&index(map.into()), DATA, &[name, "model.no_such_tensor.0"]);
}

#[test]
fn truncated_weights_are_refused() {
    for shard in Checkpoint::copy().shards() {
        let checkpoint = Checkpoint::copy();
        let whole = checkpoint.read(&shard);
        let (header, _) = split(&whole);
        let ends = [0, 1, 7, 8, 9, 8 + header.len() / 2, 8 + header.len()];
        for end in ends.into_iter().chain([whole.len() / 2, whole.len() - 1]) {
            checkpoint.write(&shard, &whole[..end]);
            refused(&checkpoint, DATA, &[&shard, "bytes", "download"]);
        }
        let mut longer = whole.clone();
        longer.push(0);
        checkpoint.write(&shard, &longer);
        refused(&checkpoint, DATA, &[&shard, "bytes"]);
    }
}

#[test]
fn headers_of_absurd_size_are_refused() {
    let checkpoint = Checkpoint::copy();
    let shard = &checkpoint.shards()[0];
    let whole = checkpoint.read(shard);
    for length in [0, 1, 1 << 24, 1 << 25, 1 << 40, u64::MAX - 7, u64::MAX] {
        let mut file = whole.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        checkpoint.write(shard, &file);
        refused(&checkpoint, DATA, &[shard, "header"]);
    }
}

#[test]
fn tensors_that_do_not_lie_where_they_say_are_refused() {
    let set = |pointer: &str, value: Value| {
        let checkpoint = Checkpoint::copy();
        let shard = checkpoint.shard_of(Q_PROJ);
        checkpoint.edit_header(&shard, |header| {
            *header[Q_PROJ].pointer_mut(pointer).unwrap() = value;
        });
        (checkpoint, shard)
    };
    let (checkpoint, shard) = set("/data_offsets/0", json!(0));
    refused(&checkpoint, DATA, &[&shard, Q_PROJ, "overlaps"]);
    let (checkpoint, shard) = set("/data_offsets/1", json!(1_u64 << 60));
    refused(&checkpoint, DATA, &[&shard]);
    let (checkpoint, shard) = set("/data_offsets", json!([8, 0]));
    refused(&checkpoint, DATA, &[&shard]);
    let (checkpoint, shard) = set("/shape", json!([1_u64 << 40, 1_u64 << 40]));
    refused(&checkpoint, DATA, &[&shard]);
    let (checkpoint, shard) = set("/shape", json!([0, u64::MAX, u64::MAX]));
    refused(&checkpoint, DATA, &[&shard]);
    let (checkpoint, shard) = set("/dtype", json!("F64"));
    refused(&checkpoint, DATA, &[&shard]);
    let (checkpoint, shard) = set("/dtype", json!("Q4_K"));
    refused(&checkpoint, DATA, &[&shard, "Q4_K"]);
}

#[test]
fn a_tensor_of_another_name_shape_or_type_is_named() {
    let checkpoint = Checkpoint::copy();
    let shard = checkpoint.shard_of(Q_PROJ);
    let other = "model.language_model.layers.0.self_attn.another.weight";
    checkpoint.edit_header(&shard, |header| {
        let info = header.as_object_mut().unwrap().remove(Q_PROJ).unwrap();
        header[other] = info;
    });
    let index = checkpoint.path().join("model.safetensors.index.json");
    if index.exists() {
        refused(&checkpoint, DATA, &["index.json", Q_PROJ, &shard]);
        checkpoint.edit_json("model.safetensors.index.json", |index| {
            index["weight_map"] = json!({});
            for shard in checkpoint.shards() {
                let (header, _) = split(&checkpoint.read(&shard));
                let header: Value = serde_json::from_slice(&header).unwrap();
                let names = header.as_object().unwrap().keys();
                for name in names.filter(|name| *name != "__metadata__") {
                    index["weight_map"][name] = shard.clone().into();
                }
            }
        });
    }
    refused(
        &checkpoint,
        DATA,
        &["tensor", Q_PROJ, "in none of the files"],
    );

    let checkpoint = Checkpoint::copy();
    let mut shape = Vec::new();
    checkpoint.edit_header(&shard, |header| {
        let list = header[Q_PROJ]["shape"].as_array_mut().unwrap();
        shape = list.clone();
        list.reverse();
    });
    let (rows, columns) = (&shape[0], &shape[1]);
    let expected = format!("config.json asks for [{rows}, {columns}]");
    let found = format!("has shape [{columns}, {rows}]");
    refused(&checkpoint, DATA, &[&shard, Q_PROJ, &found, &expected]);

    let checkpoint = Checkpoint::copy();
    let shard = checkpoint.shard_of(EMBED);
    checkpoint.edit_header(&shard, |header| header[EMBED]["dtype"] = json!("I16"));
    refused(&checkpoint, DATA, &[&shard, EMBED, "I16", "BF16"]);

    // A shape with a 0 in it may say anything else and still match its 0 bytes.
    let checkpoint = Checkpoint::copy();
    let (header, data) = split(&checkpoint.read(&shard));
    let mut header: Value = serde_json::from_slice(&header).unwrap();
    let norm = "model.language_model.norm.weight";
    let at = data.len();
    if header.get(norm).is_some() {
        header["unused"] = header[norm].clone();
    }
    header[norm] =
        json!({"dtype": "BF16", "shape": [0, 1_u64 << 62, 64], "data_offsets": [at, at]});
    checkpoint.write(&shard, &join(&serde_json::to_vec(&header).unwrap(), &data));
    refused(&checkpoint, DATA, &["norm.weight"]);
}

#[test]
fn a_config_of_something_else_is_refused() {
    let config = |edit: fn(&mut Value)| {
        let checkpoint = Checkpoint::copy();
        checkpoint.edit_json("config.json", edit);
        checkpoint
    };
    let name = "config.json";
    refused(
        &config(|c| c["model_type"] = json!("llama")),
        DATA,
        &[name, "model_type", "\"llama\"", "gemma3n"],
    );
    refused(
        &config(|c| *c = json!([1])),
        DATA,
        &[name, "expected an object", "[1]"],
    );
    refused(
        &config(|c| c["text_config"]["hidden_size"] = Value::Null),
        DATA,
        &[name, "text_config.hidden_size", "missing"],
    );
    refused(
        &config(|c| c["text_config"]["head_dim"] = json!("wide")),
        DATA,
        &[
            name,
            "text_config.head_dim",
            "expected a whole number",
            "\"wide\"",
        ],
    );
    refused(
        &config(|c| c["text_config"]["hidden_size"] = json!(1 << 30)),
        DATA,
        &[name, "text_config.hidden_size", "1073741824"],
    );
    refused(
        &config(|c| c["text_config"]["rope_scaling"] = json!({"factor": 8.0})),
        DATA,
        &[name, "rope_scaling", "8.0"],
    );
    refused(
        &config(|c| c["text_config"]["layer_types"][0] = json!("mamba")),
        DATA,
        &[name, "text_config.layer_types", "mamba"],
    );
    refused(
        &config(|c| c["audio_soft_tokens_per_image"] = json!(10_000_000)),
        DATA,
        &[name, "audio_soft_tokens_per_image", "10000000", "4096"],
    );
    // A width that the files do not have: the tensor and both shapes are told.
    refused(
        &config(|c| c["text_config"]["hidden_size"] = json!(4096)),
        DATA,
        &["tensor", "4096", "config.json asks for"],
    );
    let checkpoint = Checkpoint::copy();
    checkpoint.write(name, b"{\"model_type\": \"gemma3n\", ");
    refused(&checkpoint, DATA, &[name, "is not JSON", "line 1"]);
    checkpoint.write(name, b"\xff\xfe{}");
    refused(&checkpoint, DATA, &[name, "is not JSON"]);
    let file = std::fs::File::create(checkpoint.path().join(name)).unwrap();
    file.set_len(1 << 40).unwrap();
    refused(&checkpoint, DATA, &[name, "bytes"]);
}

#[test]
fn a_broken_tokenizer_is_named() {
    let checkpoint = Checkpoint::copy();
    let name = "tokenizer.json";
    let whole = checkpoint.read(name);
    checkpoint.write(name, &whole[..whole.len() / 2]);
    refused(&checkpoint, DATA, &[name]);
    let mut invalid = whole.clone();
    invalid[whole.len() / 2] = 0xff;
    checkpoint.write(name, &invalid);
    refused(&checkpoint, DATA, &[name, "UTF-8"]);
    checkpoint.write(name, b"{}");
    refused(&checkpoint, DATA, &[name]);
    checkpoint.write(name, &whole);
    checkpoint.edit_json(name, |tokenizer| {
        tokenizer["model"]["type"] = json!("Unigram")
    });
    refused(&checkpoint, DATA, &[name, "Unigram", "BPE"]);
    // Ids that config.json and the tokenizer do not agree on.
    let checkpoint = Checkpoint::copy();
    checkpoint.edit_json("config.json", |config| {
        config["bos_token_id"] = json!(9);
        config["text_config"]["bos_token_id"] = json!(9);
    });
    refused(
        &checkpoint,
        DATA,
        &[name, "config.json", "bos_token_id", "<bos>", "9"],
    );
}

#[test]
fn other_files_are_checked_too() {
    let checkpoint = Checkpoint::copy();
    checkpoint.write("generation_config.json", b"{\"top_p\": 7}");
    refused(&checkpoint, DATA, &["generation_config.json", "top_p", "7"]);
    let checkpoint = Checkpoint::copy();
    checkpoint.write("slices.toml", b"[half]\nintermediate_size = \"wide\"\n");
    refused(&checkpoint, DATA, &["slices.toml"]);
    checkpoint.write("slices.toml", b"[half]\nintermediate_size = 99999999\n");
    refused(&checkpoint, DATA, &["half", "99999999"]);
    checkpoint.write(
        "slices.toml",
        b"[half]\nintermediate_size = 8\nskip_layers = [77]\n",
    );
    refused(&checkpoint, DATA, &["slices.toml", "half", "77"]);
    let checkpoint = Checkpoint::copy();
    checkpoint.write("preprocessor_config.json", b"{\"size\": {\"height\": 1}}");
    refused(&checkpoint, DATA, &["preprocessor_config.json", "height"]);
}

#[test]
fn a_prompt_too_long_and_a_context_too_long_are_refused() {
    let checkpoint = Checkpoint::copy();
    refused_when(
        &[
            "ask",
            "--context=8",
            "more words than eight tokens have room for",
        ],
        &checkpoint,
        DATA,
        &["context", "8"],
    );
    refused_when(
        &["ask", "--context=1000000000", "Hi"],
        &checkpoint,
        CONFIG,
        &["context of 1000000000"],
    );
    // A config that promises a context that no memory holds.
    checkpoint.edit_json("config.json", |config| {
        for kind in config["text_config"]["layer_types"].as_array_mut().unwrap() {
            *kind = json!("full_attention");
        }
        config["text_config"]["max_position_embeddings"] = json!(1 << 24);
    });
    refused_when(
        &["ask", "--context=16777216", "Hi"],
        &checkpoint,
        CONFIG,
        &["context of 16777216", "GiB"],
    );
    let words = "word ".repeat(20_000);
    refused_when(&["ask", &words], &checkpoint, DATA, &["context"]);
}

#[test]
fn standard_input_that_is_no_text_is_refused() {
    let output = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["ask", "--model"])
        .arg(fixtures())
        .arg("-")
        .write_stdin(b"caf\xe9".to_vec())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(DATA));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("UTF-8") && message.contains("byte 3"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// Opens a checkpoint and, where that succeeds, has it see, hear and answer. Ok or an error; the error is one line.
fn open_and_answer(dir: &Path) -> Result<(), String> {
    let options = EngineOptions {
        threads: 1,
        context: 512,
        ..EngineOptions::default()
    };
    let result = (|| {
        let mut engine = Engine::open(dir, options)?;
        let clip = AudioClip {
            samples: vec![0.01; 8_000],
            sample_rate_hz: 16_000,
        };
        let image = RgbImage {
            width_px: 8,
            height_px: 8,
            pixels: vec![100; 3 * 8 * 8],
        };
        for media in [
            Some(Media::Clip(clip)),
            Some(Media::Image(image, PictureOptions::default())),
            None,
        ] {
            let mut user: Vec<Part> = media.into_iter().map(Part::Media).collect();
            user.push(Part::Text("Hi".into()));
            let request = Request {
                conversation: None,
                messages: Message::user(user),
                matformer: None,
                thinking: None,
                generation: Generation {
                    sampling: Sampling::GREEDY,
                    seed: 1,
                    max_tokens: 2,
                    stop: Vec::new(),
                    grammar: None,
                    tools: None,
                },
            };
            engine.answer(&request, &mut |_| ControlFlow::Continue(()))?;
        }
        Ok(())
    })();
    assert!(
        allocator::largest() < MAX_BYTES,
        "an allocation of {} bytes",
        allocator::largest()
    );
    result.map_err(|error: gemmad::pipeline::EngineError| error.to_string())
}

/// A pack's header names sizes too: in the metadata, as "FORMAT ROWS COLS".
#[test]
fn a_pack_that_lies_about_its_blocks_is_refused() {
    assert_eq!(open_and_answer(Checkpoint::pack().path()), Ok(()));
    let find = |checkpoint: &Checkpoint| {
        let file = "text.safetensors".to_owned();
        let (header, _) = split(&checkpoint.read(&file));
        let header: Value = serde_json::from_slice(&header).unwrap();
        let metadata = header["__metadata__"].as_object().unwrap().clone();
        let (name, blocks) = metadata
            .into_iter()
            .find(|(_, value)| {
                value
                    .as_str()
                    .is_some_and(|text| text.split(' ').count() == 3)
            })
            .unwrap();
        (file, name, blocks.as_str().unwrap().to_owned())
    };
    for lie in [
        "q4_tiled 18446744073709551615 18446744073709551615",
        "q8_rows 4294967296 4294967296",
        "q8_rows 0 0",
        "q8_rows 1 1",
        "q3_rows 64 64",
        "",
        "q8_rows -1 64",
    ] {
        let checkpoint = Checkpoint::pack();
        let (file, name, _) = find(&checkpoint);
        checkpoint.edit_header_in_place(&file, |header| {
            header["__metadata__"][&name] = lie.into();
        });
        let message = open_and_answer(checkpoint.path()).unwrap_err();
        assert!(message.contains(&file), "{lie}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let checkpoint = Checkpoint::pack();
    let whole = checkpoint.read("text.safetensors");
    checkpoint.write("text.safetensors", &whole[..whole.len() - 64]);
    refused(&checkpoint, DATA, &["pack.json", "text.safetensors"]);
    std::fs::remove_file(checkpoint.path().join("text.safetensors")).unwrap();
    refused(&checkpoint, NO_INPUT, &["text.safetensors"]);
    let checkpoint = Checkpoint::pack();
    checkpoint.edit_json("pack.json", |pack| pack["version"] = json!(99));
    refused(&checkpoint, DATA, &["pack.json", "99"]);
    checkpoint.write("pack.json", b"{");
    refused(&checkpoint, DATA, &["pack.json"]);
}
