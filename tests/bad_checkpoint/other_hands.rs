//! Checkpoints as other people's programs leave them: what serves answers as the sound one does, what does not is told by its name.

use std::path::Path;

use gemmad::model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::{Checkpoint, DATA, EMBED, Q_PROJ, fixtures, gemmad, refused, refused_when, split};

const INDEX: &str = "model.safetensors.index.json";
const CLIP: (&str, &str) = ("009_both.wav", "Set the office lamp to twenty percent.");
const PICTURE: (&str, &str) = ("002_picture.png", "A person is standing at the front door.");

fn demo() -> Checkpoint {
    Checkpoint::copy_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"))
}

fn heldout(kind: &str, name: &str) -> String {
    let top = env!("CARGO_MANIFEST_DIR");
    format!("{top}/models/demo/heldout/{kind}/{name}")
}

/// Text and warnings of a command that succeeds.
#[track_caller]
fn answer(arguments: &[&str], dir: &Path) -> (String, String) {
    let output = gemmad(arguments, dir);
    let [text, warnings] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{warnings}");
    (text.trim_end().to_owned(), warnings)
}

#[track_caller]
fn heard(dir: &Path) -> (String, String) {
    answer(&["transcribe", &heldout("audio", CLIP.0)], dir)
}

#[track_caller]
fn seen(dir: &Path) -> (String, String) {
    answer(&["describe", &heldout("images", PICTURE.0)], dir)
}

fn sound(text: &str) -> (String, String) {
    (text.to_owned(), String::new())
}

/// As transformers 5 saves it: everything in processor_config.json.
fn nest_processor(checkpoint: &Checkpoint) {
    let flat: Value = serde_json::from_slice(&checkpoint.read("preprocessor_config.json")).unwrap();
    let nested = json!({
        "audio_seq_length": 188, "image_seq_length": 16, "processor_class": "Gemma3nProcessor",
        "feature_extractor": flat, "image_processor": flat,
    });
    checkpoint.write("processor_config.json", nested.to_string().as_bytes());
    std::fs::remove_file(checkpoint.path().join("preprocessor_config.json")).unwrap();
}

#[test]
fn the_processor_of_transformers_5_is_read_and_packed() {
    let checkpoint = demo();
    nest_processor(&checkpoint);
    assert_eq!(seen(checkpoint.path()), sound(PICTURE.1));
    assert_eq!(heard(checkpoint.path()), sound(CLIP.1));
    let home = tempfile::tempdir().unwrap();
    let pack = home.path().join("a.pack");
    let output = assert_cmd::Command::cargo_bin("gemmad")
        .unwrap()
        .args(["pack", "--recipe", "q8", "--from"])
        .arg(checkpoint.path())
        .arg("--to")
        .arg(&pack)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(seen(&pack), sound(PICTURE.1));
}

#[test]
fn of_two_sizes_the_newer_file_has_the_word() {
    let checkpoint = demo();
    let flat = checkpoint.read("preprocessor_config.json");
    nest_processor(&checkpoint);
    checkpoint.write("preprocessor_config.json", &flat);
    assert_eq!(seen(checkpoint.path()), sound(PICTURE.1), "both say 128");
    checkpoint.edit_json("preprocessor_config.json", |file| {
        file["size"] = json!({"height": 768, "width": 768});
    });
    let (text, warnings) = seen(checkpoint.path());
    assert_eq!(text, PICTURE.1);
    for part in ["/processor_config.json", "preprocessor_config.json", "768"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    // A bare number is a square, too.
    checkpoint.edit_json("processor_config.json", |file| {
        file["image_processor"]["size"] = json!(128);
    });
    assert_eq!(seen(checkpoint.path()).0, PICTURE.1);
    checkpoint.edit_json("processor_config.json", |file| {
        file["image_processor"]["size"] = json!({"shortest_edge": 128});
    });
    refused(
        &checkpoint,
        DATA,
        &[
            "processor_config.json",
            "image_processor.size",
            "shortest_edge",
        ],
    );
}

#[test]
fn what_is_guessed_or_not_done_is_said() {
    let checkpoint = demo();
    std::fs::remove_file(checkpoint.path().join("preprocessor_config.json")).unwrap();
    let (_, warnings) = seen(checkpoint.path());
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    for part in [
        "warning",
        "preprocessor_config.json",
        "768",
        "resolution_px",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    let picture = heldout("images", PICTURE.0);
    let told = ["describe", "--resolution", "128", &picture];
    assert_eq!(answer(&told, checkpoint.path()), sound(PICTURE.1));

    for (section, key, value) in [
        ("image_processor", "do_normalize", json!(true)),
        ("image_processor", "rescale_factor", json!(0.0078)),
        ("image_processor", "resample", json!(3)),
        ("feature_extractor", "hop_length", json!(320)),
        ("feature_extractor", "feature_size", json!(80)),
        ("feature_extractor", "per_bin_mean", json!([0.0, 0.1])),
    ] {
        let checkpoint = demo();
        nest_processor(&checkpoint);
        checkpoint.edit_json("processor_config.json", |file| file[section][key] = value);
        let (_, warnings) = answer(&["ask", "--max-tokens=1", "Hi"], checkpoint.path());
        assert_eq!(warnings.lines().count(), 1, "{warnings}");
        let named = format!("{section}.{key}");
        assert!(warnings.contains(&named), "{named}: {warnings}");
    }
}

#[test]
fn a_whole_file_wins_over_a_stale_index() {
    let checkpoint = demo();
    let whole = checkpoint.read("model.safetensors");
    let header: Value = serde_json::from_slice(&split(&whole).0).unwrap();
    let names = || {
        header
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "__metadata__")
    };
    let index = |file: &str| {
        let map: Map<_, _> = names().map(|name| (name.clone(), file.into())).collect();
        json!({"metadata": {}, "weight_map": map}).to_string()
    };
    let old = "model-00001-of-00003.safetensors";
    checkpoint.write(INDEX, index(old).as_bytes());
    let expect = |checkpoint: &Checkpoint| {
        let (text, warnings) = heard(checkpoint.path());
        assert_eq!(text, CLIP.1);
        assert_eq!(warnings.lines().count(), 1, "{warnings}");
        for part in ["warning", "/model.safetensors,", INDEX] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    };
    expect(&checkpoint);
    // The old shards are still there, and would answer something else.
    let mut other = whole.clone();
    let data = 8 + split(&whole).0.len();
    other[data..].fill(0);
    checkpoint.write(old, &other);
    expect(&checkpoint);
    checkpoint.write(INDEX, b"{");
    expect(&checkpoint);
    let (_, warnings) = answer(&["inspect"], checkpoint.path());
    assert!(warnings.contains(INDEX), "{warnings}");
    // Where the one that counts is damaged, both are named.
    checkpoint.write("model.safetensors", &whole[..whole.len() / 2]);
    refused(
        &checkpoint,
        DATA,
        &["model.safetensors: ", "truncated", INDEX],
    );
    checkpoint.write("model.safetensors", &whole);
    // One that names the whole file is no contradiction.
    checkpoint.write(INDEX, index("model.safetensors").as_bytes());
    assert_eq!(heard(checkpoint.path()), sound(CLIP.1));
}

#[test]
fn what_is_tied_may_be_listed_and_may_be_what_is_saved() {
    let ask = ["ask", "--max-tokens=8", "--temperature=0", "Hi"];
    let right = answer(&ask, &fixtures());
    let checkpoint = Checkpoint::copy();
    let shard = checkpoint.shard_of(EMBED);
    checkpoint.edit_json(INDEX, |index| {
        index["weight_map"]["lm_head.weight"] = shard.clone().into();
    });
    assert_eq!(answer(&ask, checkpoint.path()), right);
    checkpoint.edit_json(INDEX, |index| {
        index["weight_map"].as_object_mut().unwrap().remove(EMBED);
    });
    checkpoint.edit_header(&shard, |header| {
        let info = header.as_object_mut().unwrap().remove(EMBED).unwrap();
        header["lm_head.weight"] = info;
    });
    assert_eq!(answer(&ask, checkpoint.path()), right);
}

#[test]
fn no_pad_is_ever_used() {
    for pad in ["<eos>", "<end_of_turn>", "[PAD]"] {
        let checkpoint = demo();
        checkpoint.edit_json("tokenizer_config.json", |file| {
            file["pad_token"] = pad.into()
        });
        assert_eq!(heard(checkpoint.path()), sound(CLIP.1), "{pad}");
    }
    for pad in [json!(1), json!(106), json!(-1), json!(null), json!(1 << 30)] {
        let checkpoint = demo();
        checkpoint.edit_json("config.json", |file| file["pad_token_id"] = pad.clone());
        assert_eq!(heard(checkpoint.path()), sound(CLIP.1), "{pad}");
    }
}

#[test]
fn whatever_a_file_names_as_the_end_ends_an_answer() {
    let checkpoint = demo();
    let tokenizer = Tokenizer::load(checkpoint.path()).unwrap();
    let ids = tokenizer.encode(CLIP.1);
    let (cut, id) = (ids.len() / 2, ids[ids.len() / 2]);
    assert!(!ids[..cut].contains(&id), "it comes for the first time");
    let until = tokenizer.decode(&ids[..cut]).unwrap();
    let name = String::from_utf8(tokenizer.token_bytes(id).unwrap())
        .unwrap()
        .replace(' ', "\u{2581}");
    let edits: [(&str, &str, Value); 5] = [
        ("config.json", "eos_token_id", json!(id)),
        ("config.json", "eos_token_id", json!([1, id])),
        ("generation_config.json", "eos_token_id", json!(id)),
        ("generation_config.json", "eos_token_id", json!([106, id])),
        ("tokenizer_config.json", "eos_token", json!(name)),
    ];
    for (file, key, value) in edits {
        let checkpoint = demo();
        checkpoint.edit_json(file, |file| file[key] = value);
        assert_eq!(heard(checkpoint.path()), sound(until.trim()), "{file}");
    }
    // As fine-tunes have it: three files, three opinions, and none is in the way.
    let checkpoint = demo();
    checkpoint.edit_json("config.json", |file| file["eos_token_id"] = json!(9));
    checkpoint.edit_json("generation_config.json", |file| {
        file["eos_token_id"] = json!([1])
    });
    checkpoint.edit_json("tokenizer_config.json", |file| {
        file["eos_token"] = "<end_of_turn>".into();
    });
    assert_eq!(heard(checkpoint.path()), sound(CLIP.1));
}

/// The demo model with a tensor more, of `bytes` zeros.
fn with_tensor(name: &str, dtype: &str, bytes: usize) -> Checkpoint {
    let checkpoint = demo();
    let file = "model.safetensors";
    let end = split(&checkpoint.read(file)).1.len();
    let width = if dtype == "U8" { 1 } else { 2 };
    checkpoint.edit_header(file, |header| {
        header[name] = json!({"dtype": dtype, "shape": [bytes / width], "data_offsets": [end, end + bytes]});
    });
    let mut whole = checkpoint.read(file);
    whole.resize(whole.len() + bytes, 0);
    checkpoint.write(file, &whole);
    checkpoint
}

#[test]
fn weights_that_another_program_quantized_are_named() {
    for (ending, dtype, program) in [
        ("weight.absmax", "U8", "bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", "U8", "bitsandbytes"),
        ("SCB", "F16", "bitsandbytes"),
        ("qweight", "U8", "GPTQ or AWQ"),
        ("g_idx", "U8", "GPTQ or AWQ"),
        ("weight_scale", "BF16", "compressed-tensors"),
        ("weight_scale_inv", "BF16", "compressed-tensors"),
        ("scales", "BF16", "MLX"),
        ("biases", "BF16", "MLX"),
    ] {
        let tensor = Q_PROJ.replace("weight", ending);
        let checkpoint = with_tensor(&tensor, dtype, 64);
        let words = [program, &tensor, "bfloat16", "gemmad pack"];
        refused(&checkpoint, DATA, &words);
        refused_when(&["inspect"], &checkpoint, DATA, &words);
    }
    let lora = Q_PROJ.replace("weight", "lora_A.default.weight");
    refused(
        &with_tensor(&lora, "BF16", 64),
        DATA,
        &["LoRA", &lora, "merge"],
    );
    // What is left behind in config.json after the weights were made whole again says nothing about them.
    let checkpoint = demo();
    checkpoint.edit_json("config.json", |file| {
        file["quantization_config"] = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    });
    assert_eq!(heard(checkpoint.path()), sound(CLIP.1));
}

#[test]
fn tensors_of_other_names_are_named() {
    let renamed = |rename: fn(&str) -> String| {
        let checkpoint = demo();
        checkpoint.edit_header("model.safetensors", |header| {
            let old = std::mem::take(header.as_object_mut().unwrap());
            let new = old.into_iter().map(|(name, info)| (rename(&name), info));
            *header = new.collect::<Map<_, _>>().into();
        });
        checkpoint
    };
    let mlx = renamed(|name| match name.strip_prefix("model.language_model.") {
        Some(rest) => format!("language_model.model.{rest}"),
        None => name.trim_start_matches("model.").to_owned(),
    });
    refused(
        &mlx,
        DATA,
        &["MLX", "language_model.model.", "4.53", "Google"],
    );
    let wrapped = renamed(|name| match name {
        "__metadata__" => name.to_owned(),
        name => format!("module.{name}"),
    });
    refused(&wrapped, DATA, &["module.model.", "save_pretrained"]);
}

#[test]
fn an_adapter_alone_is_no_model_and_one_beside_a_model_is_not_applied() {
    let home = tempfile::tempdir().unwrap();
    let dir = Checkpoint { dir: home };
    let config = json!({"peft_type": "LORA", "base_model_name_or_path": "google/gemma-3n-E2B-it"});
    dir.write("adapter_config.json", config.to_string().as_bytes());
    dir.write("adapter_model.safetensors", &[0; 100]);
    let words = [
        "LoRA adapter alone",
        "google/gemma-3n-E2B-it",
        "merge",
        "is no checkpoint",
    ];
    refused(&dir, DATA, &words);
    refused_when(&["inspect"], &dir, DATA, &words);
    refused_when(
        &["plan", "--memory-gib=8", "--read-gb-s=10"],
        &dir,
        DATA,
        &words,
    );
    // Some programs put the base model's config.json beside it.
    dir.write("config.json", &demo().read("config.json"));
    refused(&dir, DATA, &words);

    let checkpoint = demo();
    checkpoint.write("adapter_config.json", config.to_string().as_bytes());
    let (text, warnings) = heard(checkpoint.path());
    assert_eq!(text, CLIP.1);
    for part in ["adapter_config.json", "is not applied"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn what_stands_for_a_file_is_told() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 33442553\n";
    let page = b"\n<!DOCTYPE html>\n<html><head><title>Log in</title>";
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "slices.toml",
        "model.safetensors",
    ] {
        let checkpoint = demo();
        checkpoint.write(name, pointer);
        refused(
            &checkpoint,
            DATA,
            &[name, "Git LFS pointer", "git lfs pull"],
        );
        checkpoint.write(name, page);
        refused(&checkpoint, DATA, &[name, "web page", "download"]);
    }
    let checkpoint = Checkpoint::copy();
    for name in [INDEX, "model.safetensors"] {
        checkpoint.write(name, pointer);
        refused(&checkpoint, DATA, &[name, "git lfs pull"]);
        // What to do is said once.
        let told = gemmad(&["inspect"], checkpoint.path()).stderr;
        let told = String::from_utf8(told).unwrap();
        assert_eq!(told.matches("download").count(), 1, "{told}");
    }
    let checkpoint = Checkpoint::pack();
    checkpoint.write("pack.json", pointer);
    refused(&checkpoint, DATA, &["pack.json", "git lfs pull"]);
    // A mark that some editors put in front is no harm.
    let checkpoint = demo();
    for name in [
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "slices.toml",
    ] {
        let marked = [b"\xef\xbb\xbf", &checkpoint.read(name)[..]].concat();
        checkpoint.write(name, &marked);
    }
    assert_eq!(heard(checkpoint.path()), sound(CLIP.1));
}

#[test]
fn what_stands_for_a_checkpoint_is_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = Checkpoint { dir: home };
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/blocks.gguf");
    let commands: [&[&str]; 6] = [
        &["ask", "Hi"],
        &["inspect"],
        &["inspect", "--verify"],
        &["transcribe", "a.wav"],
        &["describe", "a.jpg"],
        &["plan", "--memory-gib=8", "--read-gb-s=10"],
    ];
    for command in commands {
        let output = gemmad(command, &gguf);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(DATA), "{message}");
        let advice = format!("gemmad pack --from {}", gguf.display());
        assert!(message.contains(&advice), "{command:?}: {message}");
    }
    let files: [(&str, &[u8], &[&str]); 3] = [
        ("gemma-3n.task", b"PK\x03\x04", &["LiteRT", "safetensors"]),
        ("gemma.bin", b"whatever", &["it is a file", "directory"]),
        (
            "x.gguf",
            b"version https://git-lfs.github.com/spec/v1\n",
            &["git lfs pull"],
        ),
    ];
    for (name, bytes, words) in files {
        dir.write(name, bytes);
        let output = gemmad(&["ask", "Hi"], &dir.path().join(name));
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(DATA), "{message}");
        assert!(
            words.iter().all(|word| message.contains(word)),
            "{name}: {message}"
        );
    }
    refused(
        &dir,
        DATA,
        &["it holds x.gguf", "gemmad pack --from", "x.gguf"],
    );
    std::fs::remove_file(dir.path().join("x.gguf")).unwrap();
    refused(&dir, DATA, &["gemma-3n.task", "LiteRT"]);
    std::fs::remove_file(dir.path().join("gemma-3n.task")).unwrap();

    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("config.json"), "{}").unwrap();
    refused(&dir, DATA, &["its config.json lies in inner"]);
    std::fs::create_dir(dir.path().join("snapshots")).unwrap();
    std::fs::create_dir(dir.path().join("refs")).unwrap();
    refused(&dir, DATA, &["download cache", "snapshots"]);

    // Weights under other names, and in other formats.
    let checkpoint = demo();
    let to = |name: &str| checkpoint.path().join(name);
    std::fs::rename(to("model.safetensors"), to("merged.safetensors")).unwrap();
    refused(
        &checkpoint,
        DATA,
        &["merged.safetensors", "call them model.safetensors"],
    );
    std::fs::copy(to("merged.safetensors"), to("a.safetensors")).unwrap();
    refused(&checkpoint, DATA, &["a.safetensors and others", INDEX]);
    std::fs::remove_file(to("a.safetensors")).unwrap();
    std::fs::rename(to("merged.safetensors"), to("pytorch_model.bin")).unwrap();
    refused(
        &checkpoint,
        DATA,
        &["pytorch_model.bin", "save the model again as safetensors"],
    );
}
