//! Damaged checkpoints of Gemma 4, and what it cannot be asked, as people are told of them.

use serde_json::Value;

use super::{CONFIG, Checkpoint, DATA, fixtures_gemma4, gemmad, refused, refused_when, split};

const SCALAR: &str = "model.language_model.layers.1.layer_scalar";
const SEEN: &str = "model.vision_tower.encoder.layers.0.self_attn.q_proj";
const HEARD: &str = "model.audio_tower.layers.0.feed_forward1.ffw_layer_1";

/// A question about a picture or a clip: the encoder whose tensor this is has to be loaded.
fn question(tensor: &str) -> Vec<String> {
    let (option, file) = match tensor.contains("vision") {
        true => ("--image", "photo.png"),
        false => ("--audio", "a0_5.wav"),
    };
    let file = fixtures_gemma4().join("golden").join(file);
    let words = [
        "ask",
        "--max-tokens=1",
        option,
        file.to_str().unwrap(),
        "Hi",
    ];
    words.map(str::to_owned).to_vec()
}

fn told(tensor: &str, checkpoint: &Checkpoint, words: &[&str]) {
    let question = question(tensor);
    let question: Vec<&str> = question.iter().map(String::as_str).collect();
    refused_when(&question, checkpoint, DATA, words);
}

/// Puts a number in the place of a scalar of 16 bits.
fn set(checkpoint: &Checkpoint, tensor: &str, value: f32) {
    let shard = checkpoint.shard_of(tensor);
    let mut file = checkpoint.read(&shard);
    let (header, _) = split(&file);
    let info: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(info[tensor]["dtype"], "BF16");
    let begin = info[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let at = 8 + header.len() + begin;
    file[at..at + 2].copy_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
    checkpoint.write(&shard, &file);
}

/// Takes a tensor away; its bytes stay where they are, under a name that nothing asks for.
fn remove(checkpoint: &Checkpoint, tensor: &str) {
    let rename = |names: &mut Value| {
        let names = names.as_object_mut().unwrap();
        let value = names.shift_remove(tensor).unwrap();
        names.insert(format!("{tensor}.unused"), value);
    };
    checkpoint.edit_header(&checkpoint.shard_of(tensor), rename);
    let index = "model.safetensors.index.json";
    if checkpoint.path().join(index).exists() {
        checkpoint.edit_json(index, |index| rename(&mut index["weight_map"]));
    }
}

#[test]
fn a_sound_one_sees_hears_and_answers() {
    let checkpoint = Checkpoint::gemma4();
    for tensor in [SEEN, HEARD] {
        let question = question(tensor);
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        let output = gemmad(&question, checkpoint.path());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
    }
}

#[test]
fn a_layer_without_its_scalar_is_named() {
    let checkpoint = Checkpoint::gemma4();
    remove(&checkpoint, SCALAR);
    refused(&checkpoint, DATA, &["tensor", SCALAR]);
}

#[test]
fn bounds_that_are_none_are_named() {
    for linear in [SEEN, HEARD] {
        let of = |end: &str| format!("{linear}.{end}");
        let checkpoint = Checkpoint::gemma4();
        remove(&checkpoint, &of("input_min"));
        told(linear, &checkpoint, &["input_min", linear]);
        let checkpoint = Checkpoint::gemma4();
        set(&checkpoint, &of("output_max"), f32::NAN);
        told(
            linear,
            &checkpoint,
            &["output_max", linear, "is not a number"],
        );
        let checkpoint = Checkpoint::gemma4();
        set(&checkpoint, &of("input_min"), 1000.0);
        told(linear, &checkpoint, &["input_min", linear, "1000"]);
    }
}

#[test]
fn without_bounds_nothing_is_cut_off() {
    for linear in [SEEN, HEARD] {
        let checkpoint = Checkpoint::gemma4();
        for end in ["input_min", "input_max", "output_min", "output_max"] {
            remove(&checkpoint, &format!("{linear}.{end}"));
        }
        let question = question(linear);
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        let output = gemmad(&question, checkpoint.path());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
    }
}

#[test]
fn what_it_cannot_be_asked_is_refused() {
    let checkpoint = Checkpoint::gemma4();
    let picture = fixtures_gemma4().join("golden/photo.png");
    let refused = |arguments: &[&str], words: &[&str]| {
        let arguments = [&["ask", "Hi"], arguments].concat();
        refused_when(&arguments, &checkpoint, CONFIG, words);
    };
    refused(&["--context=131073"], &["131072"]);
    refused(&["--matformer=e2b"], &["MatFormer", "\"full\"", "small"]);
    let picture = picture.to_str().unwrap();
    refused(
        &["--soft-tokens=71", "--image", picture],
        &["71", "70", "140", "280", "560", "1120"],
    );
}
