//! mmproj files of another model, of another kind, or damaged: each is refused by one line, and a text model that lacks its towers says
//! how it gets them.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::gguf::{F32, Gguf, bool_value, text_value, u32_value};
use super::common::{fixtures, fixtures_gemma4, text_alone};
use super::{Checkpoint, DATA, refused_when};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// What is of these dimensions, whichever set the goldens are taken from.
fn tiny() -> PathBuf {
    fixture("tiny-g4a")
}

fn mmproj() -> Gguf {
    Gguf::read(&fixture("tiny-g4a-gguf/mmproj-bf16.gguf"))
}

/// A text model, and a place for files.
struct Home {
    text: TempDir,
    dir: TempDir,
}

impl Home {
    /// With a config.json that says nothing of towers.
    fn of(text: &Path) -> Home {
        let home = Home {
            text: text_alone(text),
            dir: tempfile::tempdir().unwrap(),
        };
        home.edit_config(|config| {
            let config = config.as_object_mut().unwrap();
            config.retain(|key, _| !["vision_config", "audio_config"].contains(&key.as_str()));
        });
        home
    }

    fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.text.path().join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pack(&self, from: &Path, mmproj: &Path) -> std::process::Output {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        command.args(["pack", "--force", "--from"]).arg(from);
        command.arg("--mmproj").arg(mmproj);
        command.arg("--to").arg(self.path("a.pack"));
        command.output().unwrap()
    }

    /// Packs the text model with these bytes as `mmproj.gguf`: that must fail with one line that says all of `words`.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], words: &[&str]) {
        let path = self.path("mmproj.gguf");
        std::fs::write(&path, bytes).unwrap();
        self.refuses_of(self.text.path(), &path, words);
    }

    #[track_caller]
    fn refuses_of(&self, from: &Path, mmproj: &Path, words: &[&str]) {
        let output = self.pack(from, mmproj);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(DATA), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
        assert!(!self.path("a.pack").exists(), "{message}");
    }

    /// Likewise what is made of the file by `edit`.
    #[track_caller]
    fn refuses_edited(&self, edit: impl FnOnce(&mut Gguf), words: &[&str]) {
        let mut file = mmproj();
        edit(&mut file);
        let path = self.path("mmproj.gguf");
        file.write(&path);
        self.refuses_of(self.text.path(), &path, words);
    }
}

#[test]
fn the_towers_of_another_model_are_refused() {
    let home = Home::of(&tiny());
    home.refuses_edited(
        |file| file.set("clip.vision.projection_dim", &u32_value(2560)),
        &[
            "mmproj.gguf",
            "width 2560",
            "is 96",
            "mmproj of the same model",
        ],
    );
    home.refuses_edited(
        |file| file.set("clip.audio.projection_dim", &u32_value(95)),
        &["width 95"],
    );
    for (tower, kind) in [
        ("vision", "gemma4uv"),
        ("audio", "gemma4ua"),
        ("vision", "gemma3"),
        ("vision", "qwen2vl_merger"),
    ] {
        let key = format!("clip.{tower}.projector_type");
        let told = format!("{tower} projector is {kind:?}");
        home.refuses_edited(
            |file| file.set(&key, &text_value(kind)),
            &[&told, "another model", "gemma4v", "gemma3nv"],
        );
    }
    // An older file has one key for both.
    home.refuses_edited(
        |file| {
            file.remove("clip.vision.projector_type");
            file.remove("clip.audio.projector_type");
            file.set("clip.has_audio_encoder", &bool_value(false));
            file.set("clip.projector_type", &text_value("gemma3"));
        },
        &["\"gemma3\""],
    );
    home.refuses_edited(
        |file| file.set("clip.vision.projector_type", &text_value("gemma3nv")),
        &["two families"],
    );
    home.refuses_edited(
        |file| file.add("v.std_bias", &[48], F32, &[0.0; 48]),
        &["v.std_bias", "larger Gemma 4"],
    );
    home.refuses_edited(
        |file| file.add("v.blk.3.ln1.weight", &[48], F32, &[0.0; 48]),
        &["v.blk.3.ln1.weight", "no Gemma 4 has"],
    );
    let other = Home::of(&fixture("tiny-a"));
    other.refuses_edited(
        |_| (),
        &["towers of Gemma 4", "is a Gemma 3n", "same model"],
    );
    // What its config.json says of a tower that is not there.
    home.edit_config(|config| config["vision_config"] = json!({"num_hidden_layers": 16}));
    home.refuses_edited(
        |_| (),
        &[
            "num_hidden_layers is 3",
            "vision_config.num_hidden_layers",
            "is 16",
        ],
    );
}

#[test]
fn files_in_each_others_places_are_told() {
    let home = Home::of(&tiny());
    let (text, towers) = (
        fixture("gguf/tiny-a.gguf"),
        fixture("tiny-g4a-gguf/mmproj-bf16.gguf"),
    );
    home.refuses_of(
        home.text.path(),
        &text,
        &["no mmproj", "\"gemma3n\"", "--from"],
    );
    home.refuses_of(&towers, &text, &["no mmproj", "\"gemma3n\"", "--mmproj"]);
    home.refuses_of(&towers, &towers, &["no text model", "--from", "--mmproj"]);
    home.refuses_of(&text, &towers, &["towers of Gemma 4", "is a Gemma 3n"]);
    // One that has them itself.
    home.refuses_of(
        &tiny(),
        &towers,
        &["audio tensors of its own", "leave out --mmproj"],
    );
    // A directory of safetensors, and what is nothing of the kind.
    home.refuses(
        b"version https://git-lfs.github.com/spec/v1\noid",
        &["git lfs pull"],
    );
    home.refuses(b"no model at all, and long enough", &["no GGUF file"]);
    home.refuses_edited(
        |file| file.set("split.count", &u32_value(2)),
        &["a model in 2 files"],
    );
}

#[test]
fn a_damaged_file_is_told_by_the_tensor_at_fault() {
    let home = Home::of(&tiny());
    let sound = std::fs::read(fixture("tiny-g4a-gguf/mmproj-bf16.gguf")).unwrap();
    for end in [100, 9_000, sound.len() / 2, sound.len() - 64] {
        home.refuses(&sound[..end], &["truncated"]);
    }
    for name in [
        "v.patch_embd.weight",
        "v.position_embd.weight",
        "v.blk.0.attn_q_norm.weight",
        "v.blk.2.ffn_down.weight",
        "mm.input_projection.weight",
        "a.conv1d.1.weight",
        "a.blk.0.conv_dw.weight",
        "a.blk.2.per_dim_scale.weight",
        "a.blk.1.norm_conv.weight",
        "a.pre_encode.out.bias",
        "mm.a.input_projection.weight",
    ] {
        let missing = format!("tensor {name} is missing");
        home.refuses_edited(
            |file| drop(file.take(name)),
            &[&missing, "download it again"],
        );
    }
    for (name, shape) in [
        ("v.blk.1.attn_q.weight", &[24, 96][..]),
        ("v.patch_embd.weight", &[48, 1, 16, 48]),
        ("v.blk.0.ln1.weight", &[2, 24]),
        ("a.blk.1.conv_dw.weight", &[5, 64]),
        ("a.blk.0.ffn_up.weight", &[64, 256]),
        ("a.conv1d.0.weight", &[128, 9, 1, 1]),
    ] {
        home.refuses_edited(
            |file| file.tensor(name).shape = shape.to_vec(),
            &[name, "shape"],
        );
    }
    let set = |name: &'static str, value: f32| {
        move |file: &mut Gguf| {
            let tensor = file.tensor(name);
            let n = tensor.shape.iter().product::<usize>();
            tensor.kind = F32;
            tensor.data = vec![value; n]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect();
        }
    };
    home.refuses_edited(
        |file| drop(file.take("v.blk.1.ffn_up.output_min")),
        &[
            "v.blk.1.ffn_up.input_min is there",
            "v.blk.1.ffn_up.output_min is not",
            "all four",
        ],
    );
    for (name, value) in [
        ("v.blk.0.attn_k.input_max", f32::NAN),
        ("a.blk.2.conv_pw1.output_min", f32::NAN),
        ("a.blk.0.attn_out.input_min", 1e9),
    ] {
        home.refuses_edited(set(name, value), &[name, "bound nothing"]);
    }
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        home.refuses_edited(
            set("a.blk.0.per_dim_scale.weight", value),
            &["a.blk.0.per_dim_scale.weight", "no softplus"],
        );
    }
    home.refuses_edited(
        set("v.blk.0.attn_v.weight", f32::NAN),
        &["v_proj", "download the file again"],
    );
    for (key, words) in [
        (
            "clip.vision.block_count",
            &["clip.vision.block_count is missing"][..],
        ),
        (
            "clip.audio.attention.head_count",
            &["clip.audio.attention.head_count is missing"],
        ),
        ("general.architecture", &["does not name its architecture"]),
    ] {
        home.refuses_edited(|file| drop(file.remove(key)), words);
    }
    for (key, value, words) in [
        ("clip.vision.block_count", u32::MAX, "num_hidden_layers"),
        ("clip.audio.block_count", 0, "clip.audio.block_count is 0"),
        ("clip.audio.block_count", 2, "a.blk.2."),
        ("clip.vision.block_count", 4, "v.blk.3."),
        ("clip.vision.embedding_length", 1 << 30, "hidden_size"),
        ("clip.vision.patch_size", 14, "patches of 16"),
        ("clip.audio.num_mel_bins", 80, "128 bands"),
        ("clip.audio.attention.head_count", 7, "num_attention_heads"),
    ] {
        home.refuses_edited(|file| file.set(key, &u32_value(value)), &[words]);
    }
}

/// Fillers mean nothing, and a wrong epsilon is not believed.
#[test]
fn fillers_are_ignored() {
    let home = Home::of(&tiny());
    let mut file = mmproj();
    file.set("clip.vision.image_size", &u32_value(1));
    let epsilon = [6_u32.to_le_bytes(), 1e-5f32.to_le_bytes()].concat();
    file.set("clip.audio.attention.layer_norm_epsilon", &epsilon);
    file.set("clip.vision.n_wa_pattern", &u32_value(7));
    let path = home.path("mmproj.gguf");
    file.write(&path);
    let output = home.pack(home.text.path(), &path);
    assert!(output.status.success(), "{output:?}");
    let config = std::fs::read(home.path("a.pack").join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["audio_config"]["rms_norm_eps"], 1e-6);
}

#[test]
fn a_text_model_that_is_to_hear_or_see_names_the_option() {
    for from in [fixtures(), fixtures_gemma4()] {
        let text = text_alone(&from);
        let checkpoint = Checkpoint::copy_of(text.path());
        let media = from.join("golden/a0_5.wav");
        let picture = fixture("images/grey.jpg");
        for (command, medium) in [("transcribe", media), ("describe", picture)] {
            let medium = medium.to_str().unwrap();
            refused_when(
                &[command, medium],
                &checkpoint,
                DATA,
                &["tower", "--mmproj FILE"],
            );
        }
    }
}
