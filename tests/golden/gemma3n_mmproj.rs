//! The vision tower of a Gemma 3n from an mmproj file. The file is made here, by the names that llama.cpp gives these tensors.

use std::path::Path;

use crate::common::gguf::{BF16, F32, Gguf, bool_value, text_value, u32_value};
use crate::common::{Golden, fixtures, pack_of, text_alone};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::vision::VisionTower;
use gemmad::model::weights::{Checkpoint, Group};
use gemmad::pack::{Mmproj, PackError, PackOptions, pack_with_mmproj};
use kernels::{Isa, Pool};
use safetensors::SafeTensors;

/// Source: the name map of llama.cpp's converter for `gemma3nv`.
fn theirs(name: &str) -> Option<String> {
    let name = name.strip_prefix("model.")?;
    for (ours, theirs) in [
        ("vision_tower.timm_model.blocks.", "v.blk."),
        ("vision_tower.timm_model.", "v."),
        ("embed_vision.embedding.", "mm.embedding."),
        ("embed_vision.hard_embedding_norm.", "mm.hard_emb_norm."),
        ("embed_vision.soft_embedding_norm.", "mm.soft_emb_norm."),
        ("embed_vision.embedding_projection.", "mm.input_projection."),
        // Of the audio part it matters only that it is there.
        ("audio_tower.conformer.", "a.blk."),
        ("embed_audio.", "mm.a."),
    ] {
        if let Some(rest) = name.strip_prefix(ours) {
            return Some(format!("{theirs}{rest}"));
        }
    }
    None
}

fn mmproj_of(checkpoint: &Path) -> Gguf {
    let mut file = Gguf::new("clip");
    file.set("clip.has_vision_encoder", &bool_value(true));
    file.set("clip.has_audio_encoder", &bool_value(true));
    file.set("clip.vision.projector_type", &text_value("gemma3nv"));
    file.set("clip.audio.projector_type", &text_value("gemma3na"));
    let config = Config::load(checkpoint).unwrap();
    let width = config.vision.unwrap().hidden_size;
    for (key, value) in [
        ("projection_dim", config.text.hidden_size),
        ("embedding_length", width),
        // What follows is made up, in the published files too.
        ("block_count", 128),
        ("feed_forward_length", 4 * width),
        ("attention.head_count", 8),
        ("patch_size", 3),
        ("image_size", 192),
    ] {
        file.set(&format!("clip.vision.{key}"), &u32_value(value as u32));
    }
    for entry in std::fs::read_dir(checkpoint).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let Some(theirs) = theirs(&name) else {
                continue;
            };
            let halves = view.data().as_chunks::<2>().0.iter();
            let values: Vec<f32> = halves
                .map(|&half| half::bf16::from_le_bytes(half).to_f32())
                .collect();
            let mut shape = view.shape().to_vec();
            if theirs == "v.conv_stem.conv.bias" {
                shape = vec![1, shape[0], 1, 1];
            }
            let is_matrix = shape.len() > 1 && !theirs.starts_with("v.conv_stem");
            file.add(&theirs, &shape, if is_matrix { BF16 } else { F32 }, &values);
        }
    }
    file
}

fn pack(text: &Path, mmproj: &Path, to: &Path) -> Result<(), PackError> {
    let pool = Pool::new(Isa::best(), 2);
    let mmproj = Mmproj::open(mmproj)?;
    let warnings = mmproj.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("audio part is left out"),
        "{}",
        warnings[0]
    );
    let options = PackOptions::default();
    pack_with_mmproj(text, None, mmproj, to, options, &pool, &mut |_, _| {}).map(drop)
}

#[test]
fn the_vision_tower_is_that_of_the_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mmproj.gguf");
    mmproj_of(&fixtures()).write(&path);
    let text = text_alone(&fixtures());
    let theirs = home.path().join("theirs.pack");
    pack(text.path(), &path, &theirs).unwrap();
    let ours = pack_of(&fixtures(), PackOptions::default().recipe, home.path());

    let (got, want) = (
        Checkpoint::open(&theirs).unwrap(),
        Checkpoint::open(&ours).unwrap(),
    );
    assert!(got.has(Group::Vision) && !got.has(Group::Audio));
    let config = Config::load(&theirs).unwrap();
    let tower = |checkpoint: &Checkpoint| {
        let vision = config.vision.as_ref().unwrap();
        VisionTower::load(checkpoint, vision, config.text.hidden_size).unwrap()
    };
    let (got, want) = (tower(&got), tower(&want));
    let golden = Golden::open("vision");
    let pool = Pool::new(Isa::best(), 2);
    for picture in ["photo", "icon"] {
        let (planes, shape) = golden.u8(&format!("{picture}.pixel_values_u8"));
        let plane = shape[1] * shape[2];
        let pixels: Vec<u8> = (0..plane * 3)
            .map(|i| planes[i % 3 * plane + i / 3])
            .collect();
        let encode = |tower: &VisionTower| tower.encode(&pool, &pixels, shape[1]).unwrap();
        // The same blocks and the same numbers; how far they are from the reference, `pack_towers` tells.
        assert!(encode(&got) == encode(&want), "{picture}");
    }
    let id = config.ids.media.unwrap().eoi;
    let row = got.hard_embedding(&pool, id);
    assert!(row.is_some() && row == want.hard_embedding(&pool, id));
}

#[test]
fn a_damaged_one_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (path, to) = (home.path().join("mmproj.gguf"), home.path().join("a.pack"));
    let text = text_alone(&fixtures());
    let sound = mmproj_of(&fixtures());
    let refused = |file: &Gguf, words: &[&str]| {
        file.write(&path);
        let error = pack(text.path(), &path, &to).unwrap_err().to_string();
        for word in words.iter().chain(&["mmproj.gguf"]) {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
        assert!(!to.exists());
    };
    for name in [
        "v.blk.0.0.conv_exp.weight",
        "v.msfa.norm.weight",
        "mm.hard_emb_norm.weight",
    ] {
        let mut file = sound.clone();
        file.take(name);
        refused(&file, &[name, "missing"]);
    }
    let mut file = sound.clone();
    file.tensor("v.blk.0.0.bn1.weight").shape.push(1);
    file.tensor("v.blk.0.0.bn2.weight").shape[0] /= 2;
    refused(&file, &["v.blk.0.0.bn2.weight", "shape"]);
    let mut file = sound.clone();
    file.add("v.blk.9.0.bn1.weight", &[8], F32, &[0.0; 8]);
    refused(&file, &["v.blk.9.0.bn1.weight", "no Gemma 3n has"]);
    let mut file = sound;
    file.set("clip.has_vision_encoder", &bool_value(false));
    file.write(&path);
    let error = Mmproj::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("audio part only") && error.contains("safetensors"),
        "{error}"
    );
}
