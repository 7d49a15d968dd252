//! Drafters of another model, of another kind, or damaged: each is refused by one line, before a pack is made of it, and in a pack.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};

use super::common::{fixtures, fixtures_gemma4, fixtures_gemma4_drafter};
use super::{Checkpoint, DATA, NO_INPUT, gemmad, refused, split};

const FILE: &str = "model.safetensors";
const ORDERING: &str = "masked_embedding.token_ordering";

fn drafter() -> Checkpoint {
    Checkpoint::copy_of(&fixtures_gemma4_drafter())
}

/// Packs a model with a drafter; gives what was said, the exit code, and where the pack would be.
fn pack(model: &Path, drafter: &Path) -> (String, Option<i32>, tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command.args(["pack", "--from"]).arg(model);
    command.arg("--drafter").arg(drafter).arg("--to").arg(&to);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    (message, output.status.code(), home, to)
}

/// That must fail with one line that says all of `words`.
#[track_caller]
fn refuses(model: &Path, drafter: &Path, code: i32, words: &[&str]) {
    let (message, found, _home, to) = pack(model, drafter);
    assert_eq!(found, Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    assert!(!to.exists(), "{message}");
}

#[track_caller]
fn refuses_config(pointer: &str, value: Value, words: &[&str]) {
    let drafter = drafter();
    drafter.edit_json("config.json", |config| {
        *config.pointer_mut(pointer).unwrap() = value;
    });
    refuses(&fixtures_gemma4(), drafter.path(), DATA, words);
}

#[test]
fn the_drafter_of_another_model_is_refused() {
    let own = "take that model's own drafter";
    for (pointer, words) in [
        ("/backbone_hidden_size", ["backbone_hidden_size", "is 7,"]),
        ("/text_config/vocab_size", ["vocab_size", "is 7,"]),
        ("/text_config/sliding_window", ["sliding_window", "is 7,"]),
        ("/text_config/head_dim", ["layer 0", "× 7"]),
        ("/text_config/num_key_value_heads", ["layer 0", "7 ×"]),
    ] {
        refuses_config(pointer, json!(7), &["config.json", words[0], words[1], own]);
    }
    let rope = "/text_config/rope_parameters/full_attention/rope_theta";
    refuses_config(rope, json!(7.0), &["layer 3", "positions", own]);
    refuses_config(
        "/text_config/final_logit_softcapping",
        json!(30.0),
        &["no cap"],
    );
    refuses_config(
        "/text_config/num_kv_shared_layers",
        json!(1),
        &["no keys of its own"],
    );
    refuses_config("/num_centroids", json!(7), &["7 clusters"]);
    refuses_config(
        "/centroid_intermediate_top_k",
        json!(1 << 20),
        &["centroid_intermediate_top_k"],
    );
    // Not a drafter at all, and a family that has none.
    let model = fixtures_gemma4();
    refuses(&model, &model, DATA, &["model_type", "-assistant"]);
    let words = ["no drafters for Gemma 3n", "leave --drafter out"];
    refuses(&fixtures(), drafter().path(), DATA, &words);
    let file = fixtures_gemma4_drafter().join(FILE);
    refuses(&model, &file, DATA, &["a drafter", "directory"]);
    refused(
        &drafter(),
        DATA,
        &["model_type", "of a drafter", "--drafter"],
    );
    let nowhere = model.join("nowhere");
    refuses(&model, &nowhere, NO_INPUT, &["cannot read", "nowhere"]);
}

#[test]
fn a_damaged_drafter_is_refused() {
    let model = fixtures_gemma4();
    let damaged = drafter();
    let whole = damaged.read(FILE);
    for end in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        damaged.write(FILE, &whole[..end]);
        refuses(&model, damaged.path(), DATA, &[FILE, "bytes"]);
    }
    for (tensor, words) in [
        ("pre_projection.weight", "has shape"),
        ("model.layers.1.self_attn.q_norm.weight", "has shape"),
        ("masked_embedding.centroids.weight", "has shape"),
        ("model.embed_tokens.weight", "has shape"),
        (ORDERING, "has shape"),
    ] {
        let reshaped = drafter();
        reshaped.edit_header(FILE, |header| {
            let shape = header[tensor]["shape"].as_array_mut().unwrap();
            // As many numbers, in other rows.
            shape.insert(0, json!(1));
        });
        let name = tensor.strip_prefix("model.").unwrap_or(tensor);
        refuses(&model, reshaped.path(), DATA, &[name, words]);
    }
    let renamed = drafter();
    renamed.edit_header(FILE, |header| {
        let header = header.as_object_mut().unwrap();
        let found = header.remove("model.layers.2.mlp.up_proj.weight").unwrap();
        header.insert("model.layers.2.mlp.sideways.weight".to_owned(), found);
    });
    refuses(
        &model,
        renamed.path(),
        DATA,
        &["layers.2.mlp.up_proj", "missing"],
    );
}

#[test]
fn an_order_of_ids_that_is_none_is_refused() {
    let whole = drafter().read(FILE);
    let (header, data) = split(&whole);
    let header: Value = serde_json::from_slice(&header).unwrap();
    let start = header[ORDERING]["data_offsets"][0].as_u64().unwrap() as usize;
    let place = whole.len() - data.len() + start;
    let second = &whole[place + 8..place + 16];
    for id in [
        second,
        &(-1_i64).to_le_bytes(),
        &(1_i64 << 40).to_le_bytes(),
    ] {
        let damaged = drafter();
        let mut file = whole.clone();
        file[place..place + 8].copy_from_slice(id);
        damaged.write(FILE, &file);
        let words = ["token_ordering", "names", "download it again"];
        refuses(&fixtures_gemma4(), damaged.path(), DATA, &words);
    }
    let floats = drafter();
    floats.edit_header(FILE, |header| header[ORDERING]["dtype"] = json!("F64"));
    refuses(
        &fixtures_gemma4(),
        floats.path(),
        DATA,
        &["token_ordering", "I64"],
    );
}

/// What becomes of a sound pack later is told when it is opened, and not when the first guess is wanted.
#[test]
fn a_damaged_drafter_in_a_pack_is_refused() {
    let (message, code, _home, sound) = pack(&fixtures_gemma4(), &fixtures_gemma4_drafter());
    assert_eq!(code, Some(0), "{message}");
    let answered = gemmad(&["ask", "--max-tokens=1", "Hi"], &sound);
    assert!(answered.status.success());
    let packed = |edit: &dyn Fn(&Checkpoint)| {
        let pack = Checkpoint::copy_of(&sound);
        edit(&pack);
        pack
    };
    let file = "drafter.safetensors";
    let truncated = packed(&|pack| {
        let whole = pack.read(file);
        pack.write(file, &whole[..whole.len() / 2]);
    });
    refused(&truncated, DATA, &[file, "bytes instead of"]);
    let config = "drafter_config.json";
    let missing = packed(&|pack| std::fs::remove_file(pack.path().join(config)).unwrap());
    refused(&missing, NO_INPUT, &["cannot read", config]);
    let edit_config = |edit: &dyn Fn(&mut Value)| {
        packed(&|pack| {
            pack.edit_json(config, edit);
            let bytes = pack.read(config).len();
            pack.edit_json("pack.json", |json| {
                json["files"][config]["bytes"] = bytes.into()
            });
        })
    };
    let other = edit_config(&|config| config["backbone_hidden_size"] = json!(7));
    refused(&other, DATA, &[config, "own drafter"]);
    let narrower = edit_config(&|config| config["text_config"]["intermediate_size"] = json!(8));
    refused(&narrower, DATA, &[file, "mlp", "has shape"]);
    let ordering = "model.drafter.masked_embedding.token_ordering";
    let unordered = packed(&|pack| {
        let mut whole = pack.read(file);
        let (header, data) = split(&whole);
        let header: Value = serde_json::from_slice(&header).unwrap();
        let start = header[ordering]["data_offsets"][0].as_u64().unwrap() as usize;
        let place = whole.len() - data.len() + start;
        whole.copy_within(place..place + 4, place + 4);
        pack.write(file, &whole);
    });
    refused(&unordered, DATA, &[file, "token_ordering", "ids once"]);
}
