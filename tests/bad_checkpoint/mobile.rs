//! Damaged checkpoints that were trained in 2, 4 and 8 bits, as who packs them is told, and a damaged pack of one.

use std::path::Path;

use serde_json::{Value, json};

use super::{Checkpoint, Command, DATA, refused, split};

const USAGE: i32 = 64;
const FILE: &str = "model.safetensors";
const LAYER: &str = "model.language_model.layers.1.self_attn.q_proj";
const SEEN: &str = "model.vision_tower.encoder.layers.0.self_attn.q_proj.linear";
const HEARD: &str = "model.audio_tower.layers.0.lconv1d.linear_start.linear";
const TABLE: &str = "model.language_model.embed_tokens_per_layer";

/// What is compared here are the names and dimensions of this set, whichever one the goldens are taken from.
fn copy() -> Checkpoint {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    Checkpoint::copy_of(&top.join("tests/fixtures/tiny-g4a-qat-mobile"))
}

/// Packs it: what the command prints, on which of its two ways.
fn pack(checkpoint: &Checkpoint, more: &[&str]) -> (Option<i32>, String, Checkpoint) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["pack", "--from"])
        .arg(checkpoint.path())
        .arg("--to")
        .arg(home.path().join("a.pack"))
        .args(more)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code();
    (
        code,
        String::from_utf8(text).unwrap(),
        Checkpoint { dir: home },
    )
}

/// Lines beside the one that says what is to be made.
fn complaints(message: &str) -> usize {
    let lines = message.lines();
    lines
        .filter(|line| !line.contains("recipe mobile: the weights were trained"))
        .count()
}

#[track_caller]
fn not_packed_as(checkpoint: &Checkpoint, more: &[&str], wanted: i32, words: &[&str]) {
    let (code, message, home) = pack(checkpoint, more);
    assert_eq!(code, Some(wanted), "{message}");
    assert_eq!(complaints(&message), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    let left = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left");
}

#[track_caller]
fn not_packed(checkpoint: &Checkpoint, words: &[&str]) {
    not_packed_as(checkpoint, &[], DATA, words);
}

/// Puts a number of 32 bits at place `at` of a tensor.
fn set(checkpoint: &Checkpoint, file: &str, tensor: &str, at: usize, value: f32) {
    let mut bytes = checkpoint.read(file);
    let (header, _) = split(&bytes);
    let info: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(info[tensor]["dtype"], "F32", "{tensor}");
    let begin = info[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let at = 8 + header.len() + begin + 4 * at;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    checkpoint.write(file, &bytes);
}

/// Changes what the header says of a tensor, or its name.
fn describe(tensor: &str, edit: impl FnOnce(&mut Value)) -> Checkpoint {
    let checkpoint = copy();
    checkpoint.edit_header(FILE, |header| edit(&mut header[tensor]));
    checkpoint
}

fn without(tensor: &str) -> Checkpoint {
    let checkpoint = copy();
    checkpoint.edit_header(FILE, |header| {
        let header = header.as_object_mut().unwrap();
        let value = header.shift_remove(tensor).unwrap();
        header.insert(format!("{tensor}.unused"), value);
    });
    checkpoint
}

#[test]
fn a_sound_one_is_packed_as_it_was_trained_and_runs_from_the_pack_only() {
    let checkpoint = copy();
    let (code, text, home) = pack(&checkpoint, &[]);
    assert_eq!(code, Some(0), "{text}");
    // What is made, and why so.
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("recipe mobile: the weights were trained"),
        "{text}"
    );
    let pack = Checkpoint::copy_of(&home.path().join("a.pack"));
    let output = super::gemmad(&["ask", "--max-tokens=1", "Hi"], pack.path());
    assert!(output.status.success(), "{output:?}");
    refused(&checkpoint, DATA, &["pack it first", "gemmad pack --from"]);
}

#[test]
fn recipes_that_do_not_fit_are_refused() {
    for recipe in ["q8", "balanced", "small"] {
        let words = [recipe, "trained", "--recipe"];
        not_packed_as(&copy(), &["--recipe", recipe], USAGE, &words);
    }
    let words = ["no weights that were trained", "qat-mobile", "balanced"];
    not_packed_as(&Checkpoint::gemma4(), &["--recipe=mobile"], USAGE, &words);
    not_packed_as(&Checkpoint::copy(), &["--recipe=mobile"], USAGE, &words);
}

#[test]
fn scales_of_weights_that_are_none_are_named() {
    for (tensor, at, row) in [
        (format!("{LAYER}.weight_scale"), 3, "row 3"),
        (format!("{TABLE}.embedding_scale"), 47, "row 4"),
        (format!("{HEARD}.weight_scale"), 0, "row 0"),
    ] {
        for value in [0.0, -0.5, f32::NAN, f32::INFINITY, f32::MAX] {
            let checkpoint = copy();
            set(&checkpoint, FILE, &tensor, at, value);
            let tensor = tensor.replace("embedding_scale", "weight_scale");
            not_packed(&checkpoint, &[&tensor, row, &value.to_string()]);
        }
    }
}

#[test]
fn steps_of_activations_that_are_none_are_named_and_0_is_one() {
    for layer in [LAYER, SEEN, HEARD, "lm_head"] {
        for end in ["input_activation_scale", "output_activation_scale"] {
            let tensor = format!("{layer}.{end}");
            for value in [-0.5, f32::NAN, f32::INFINITY] {
                let checkpoint = copy();
                set(&checkpoint, FILE, &tensor, 0, value);
                not_packed(&checkpoint, &[&tensor, &value.to_string()]);
            }
            let checkpoint = copy();
            set(&checkpoint, FILE, &tensor, 0, 0.0);
            let (code, text, _home) = pack(&checkpoint, &[]);
            assert_eq!(code, Some(0), "{text}");
        }
    }
}

#[test]
fn scales_that_are_missing_are_named() {
    for layer in [LAYER, SEEN, HEARD, "lm_head"] {
        let ends = [
            "weight_scale",
            "input_activation_scale",
            "output_activation_scale",
        ];
        for end in ends {
            let tensor = format!("{layer}.{end}");
            // Of the head, which is the token embeddings, they are not missed.
            if tensor != "lm_head.weight_scale" {
                not_packed(&without(&tensor), &[&tensor, "missing"]);
            }
        }
    }
    let scale = format!("{TABLE}.embedding_scale");
    let canonical = format!("{TABLE}.weight_scale");
    not_packed(&without(&scale), &[&canonical, "missing"]);
    let weight = format!("{LAYER}.weight");
    not_packed(&without(&weight), &[&weight, "missing"]);
}

#[test]
fn rows_of_another_length_are_named() {
    // As many bytes, in other rows.
    for (tensor, shape) in [
        (format!("{LAYER}.weight"), json!([64, 96])),
        (format!("{LAYER}.weight"), json!([6144])),
        (format!("{SEEN}.weight"), json!([96, 24])),
        (format!("{HEARD}.weight"), json!([64, 64])),
        (format!("{LAYER}.weight_scale"), json!([64, 2])),
    ] {
        let checkpoint = describe(&tensor, |info| info["shape"] = shape);
        not_packed(&checkpoint, &[&tensor]);
    }
    // An odd number of bytes in each row.
    let tensor = format!("{TABLE}.embedding_quantized");
    let canonical = format!("{TABLE}.weight");
    let checkpoint = describe(&tensor, |info| info["shape"] = json!([2048 * 16, 5]));
    not_packed(&checkpoint, &[&canonical]);
    let checkpoint = copy();
    checkpoint.edit_json("config.json", |config| {
        config["text_config"]["hidden_size"] = 95.into();
    });
    not_packed(&checkpoint, &["tensor", "95"]);
}

#[test]
fn other_types_are_named() {
    for (tensor, dtype) in [
        (format!("{LAYER}.weight"), "I8"),
        (format!("{SEEN}.weight"), "U8"),
        (format!("{HEARD}.weight"), "I8"),
        (format!("{LAYER}.weight_scale"), "I32"),
        (format!("{SEEN}.input_activation_scale"), "I32"),
    ] {
        let checkpoint = describe(&tensor, |info| info["dtype"] = dtype.into());
        not_packed(&checkpoint, &[&tensor]);
    }
}

#[test]
fn widths_that_config_json_does_not_give_are_told() {
    let edited = |edit: &dyn Fn(&mut Value)| {
        let checkpoint = copy();
        checkpoint.edit_json("config.json", |config| {
            edit(&mut config["quantization_config"]);
        });
        checkpoint
    };
    let checkpoint = edited(&|section| section["module_quant_configs"] = json!({}));
    not_packed(&checkpoint, &["config.json", "4 bits", "stored in 2"]);
    let checkpoint = edited(&|section| {
        let plain = section["modules_to_not_convert"].as_array_mut().unwrap();
        plain.push("model.vision_tower".into());
    });
    not_packed(
        &checkpoint,
        &["config.json", "vision_tower", "no width", "stored in 8"],
    );
    let checkpoint = edited(&|section| section["quant_method"] = "fp8".into());
    not_packed(&checkpoint, &["config.json", "quant_method", "fp8"]);
    let checkpoint = edited(&|section| *section = Value::Null);
    not_packed(&checkpoint, &["config.json", "tie_word_embeddings"]);
}

#[test]
fn a_larger_model_is_refused_for_what_it_is() {
    let checkpoint = copy();
    checkpoint.edit_json("config.json", |config| {
        config["text_config"]["enable_moe_block"] = true.into();
    });
    let (code, message, _home) = pack(&checkpoint, &[]);
    assert!(code.is_some_and(|code| code != 0), "{message}");
    assert_eq!(complaints(&message), 1, "{message}");
    assert!(message.contains("enable_moe_block"), "{message}");
}

#[test]
fn a_pack_whose_steps_are_none_is_refused() {
    let (code, text, home) = pack(&copy(), &[]);
    assert_eq!(code, Some(0), "{text}");
    let pack = home.path().join("a.pack");
    for value in [-0.5, f32::NAN, f32::INFINITY] {
        let checkpoint = Checkpoint::copy_of(&pack);
        let tensor = format!("{LAYER}.output_activation_scale");
        set(&checkpoint, "text.safetensors", &tensor, 0, value);
        refused(&checkpoint, DATA, &[&tensor, &value.to_string()]);
    }
}
