//! The towers of an mmproj file: what is packed of them is what is packed of the checkpoint, and hears and sees as the reference does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::encoder::{PictureOptions, VisionEncoder};
use gemmad::model::gemma4::audio::AudioTower;
use gemmad::model::gemma4::config::Config;
use gemmad::model::gemma4::vision::VisionTower;
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::Checkpoint;
use gemmad::pack::{Mmproj, PackOptions, Recipe, pack_with_mmproj};
use gemmad::pipeline::{
    AudioStream, Engine, EngineOptions, Generation, Media, Message, Part, Request,
};
use half::{bf16, f16};
use kernels::{Isa, Pool};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::gguf::{self, Gguf};
use crate::common::{
    Golden, assert_close, fixtures_gemma4, fixtures_gemma4_gguf, pack_of, text_alone,
};
use crate::gemma4_golden::instruction_sets;

const TOLERANCE: f32 = 1e-3;
/// What 8 bits may cost, as a share of the root mean square.
const SHARE: f64 = 0.05;
const PICTURES: [&str; 2] = ["photo", "tall"];
const CLIPS: [&str; 3] = ["a0_5", "a3_2", "a12_3"];

fn mmproj() -> PathBuf {
    fixtures_gemma4_gguf().join("mmproj-bf16.gguf")
}

/// A pack in `dir` of the text model in `from` and the towers of `mmproj`.
fn packed(from: &Path, mmproj: &Path, recipe: Recipe, dir: &Path) -> PathBuf {
    let to = dir.join("both.pack");
    let options = PackOptions {
        recipe,
        force: true,
        ..PackOptions::default()
    };
    let pool = Pool::new(Isa::best(), 2);
    let mmproj = Mmproj::open(mmproj).unwrap();
    assert!(mmproj.warnings().is_empty());
    pack_with_mmproj(from, None, mmproj, &to, options, &pool, &mut |_, _| {}).unwrap();
    to
}

/// The pack of the text model of the fixtures and their mmproj.
fn pack_of_both() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let text = text_alone(&fixtures_gemma4());
    let pack = packed(text.path(), &mmproj(), Recipe::Balanced, dir.path());
    (dir, pack)
}

/// Type, shape and bytes of every tensor of a file, but for what pads it.
fn tensors(path: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let all = file.tensors().into_iter();
    let own = all.filter(|(name, _)| name.starts_with("model."));
    own.map(|(name, view)| {
        let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        (name, tensor)
    })
    .collect()
}

fn widened(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
        Dtype::F16 => halves.map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => halves.map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Fails unless two packs hold the same towers: blocks bit by bit, numbers by value, and what was behind a softplus nearly.
fn assert_same_towers(ours: &Path, theirs: &Path) {
    for group in ["audio", "vision"] {
        let file = format!("{group}.safetensors");
        let (ours, theirs) = (tensors(&ours.join(&file)), tensors(&theirs.join(&file)));
        let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs));
        let mut blocks = 0;
        for (name, (dtype, shape, bytes)) in &ours {
            let (other_dtype, other_shape, other) = &theirs[name];
            assert_eq!(shape, other_shape, "{name}");
            if *dtype == Dtype::U8 {
                assert!(bytes == other, "{name}: other blocks");
                blocks += 1;
                continue;
            }
            let (got, want) = (widened(*other_dtype, other), widened(*dtype, bytes));
            if name.ends_with("per_dim_scale") {
                assert_close(name, &got, &want, 1e-6);
            } else {
                assert!(got == want, "{name}: other numbers");
            }
        }
        assert!(blocks > 10, "{group}: {blocks} matrices");
    }
}

#[test]
fn the_towers_are_those_of_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let ours = pack_of(&fixtures_gemma4(), Recipe::Balanced, dir.path());
    let (_dir, theirs) = pack_of_both();
    assert_same_towers(&ours, &theirs);
    let config = |pack: &Path| Config::load(pack).unwrap();
    assert_eq!(config(&ours), config(&theirs));
    let manifest = std::fs::read_to_string(theirs.join("pack.json")).unwrap();
    assert!(manifest.contains(" + mmproj-bf16.gguf\""), "{manifest}");
}

struct Towers {
    audio: Arc<AudioTower>,
    vision: VisionTower,
}

/// With as many keys as transformers sees: one less than its config says.
fn towers(dir: &Path) -> Towers {
    let config = Config::load(dir).unwrap();
    let checkpoint = Checkpoint::open(dir).unwrap();
    let width = config.text.hidden_size;
    let mut audio = config.audio.unwrap();
    audio.attention_context_left -= 1;
    let pool = Pool::new(Isa::best(), 2);
    let vision = config.vision.unwrap();
    Towers {
        audio: Arc::new(AudioTower::load(&checkpoint, &audio, width, &pool).unwrap()),
        vision: VisionTower::load(&checkpoint, &vision, width).unwrap(),
    }
}

fn clip(name: &str) -> AudioClip {
    let file = fixtures_gemma4().join(format!("golden/{name}.wav"));
    read_audio_file(&file, &AudioLimits::default()).unwrap()
}

fn picture(tensor: &str) -> RgbImage {
    let (pixels, shape) = Golden::of(&fixtures_gemma4(), "vision").u8(tensor);
    RgbImage {
        height_px: shape[0],
        width_px: shape[1],
        pixels,
    }
}

/// Shows what becomes of every picture and clip of the goldens, and what should.
fn each_medium(towers: &Towers, isa: Isa, mut see: impl FnMut(&str, &[f32], &[f32])) {
    let pool = Pool::new(isa, 2);
    let golden = |name: &str| Golden::of(&fixtures_gemma4(), name);
    for name in PICTURES {
        let image = picture(&format!("{name}.resized_u8_hwc"));
        let size = [image.width_px, image.height_px];
        let got = towers.vision.encode(&pool, &image.pixels, size, &mut || ());
        let (want, _) = golden("vision").f32(&format!("{name}.soft_tokens"));
        see(&format!("{isa} {name}"), &got.unwrap(), &want);
    }
    for name in CLIPS {
        let mut stream = AudioStream::new(towers.audio.clone(), 12);
        let mut got = Vec::new();
        stream.push(&pool, &clip(name).samples, &mut got).unwrap();
        stream.finish(&pool, 0, &mut got).unwrap();
        let (want, _) = golden("audio").f32(&format!("{name}.soft_tokens"));
        see(&format!("{isa} {name}"), &got, &want);
    }
}

fn assert_near(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let squares =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let off = squares(&mut got.iter().zip(want).map(|(got, want)| got - want));
    let share = (off / squares(&mut want.iter().copied())).sqrt();
    // 8 bits are no 16: an error of nothing would mean that the pack was not read.
    assert!((1e-4..SHARE).contains(&share), "{name}: {share}");
}

#[test]
fn soft_tokens_in_floats_are_those_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let text = text_alone(&fixtures_gemma4());
    let towers = towers(&packed(text.path(), &mmproj(), Recipe::Float, dir.path()));
    for isa in instruction_sets() {
        each_medium(&towers, isa, |name, got, want| {
            let off = assert_close(name, got, want, TOLERANCE);
            println!("{name}: largest difference {off:e}");
        });
    }
}

#[test]
fn soft_tokens_from_a_pack_are_near_those_of_the_reference() {
    let (_dir, pack) = pack_of_both();
    let towers = towers(&pack);
    for isa in instruction_sets() {
        each_medium(&towers, isa, assert_near);
    }
}

/// The mmproj with its matrices in `kind`, those of which no row can be, left out; and how many are.
fn mmproj_in(kind: u32) -> (Gguf, usize) {
    let mut file = Gguf::read(&mmproj());
    let mut changed = 0;
    for tensor in &mut file.tensors {
        let row = tensor.shape.last().copied().unwrap_or(1);
        if tensor.kind == gguf::BF16 && row.is_multiple_of(gguf::block_len(kind)) {
            tensor.data = gguf::stored(kind, &gguf::values(tensor));
            tensor.kind = kind;
            changed += 1;
        }
    }
    (file, changed)
}

/// Whatever its matrices are stored in, and its vectors.
#[test]
fn every_type_gives_the_same_towers() {
    let text = text_alone(&fixtures_gemma4());
    let (_dir, ours) = pack_of_both();
    let home = tempfile::tempdir().unwrap();
    for kind in [gguf::F32, gguf::F16, gguf::Q8_0] {
        let (file, changed) = mmproj_in(kind);
        // Of rows of another length than 32 nothing can be stored in blocks.
        if kind == gguf::Q8_0 && changed == 0 {
            continue;
        }
        assert!(changed > 0);
        let path = home.path().join("mmproj-bf16.gguf");
        file.write(&path);
        let theirs = packed(text.path(), &path, Recipe::Balanced, home.path());
        if kind == gguf::F32 {
            assert_same_towers(&ours, &theirs);
        }
        each_medium(&towers(&theirs), Isa::best(), assert_near);
    }
}

/// What is packed of K types is what is packed of the numbers that they say, bit by bit.
#[test]
fn towers_of_k_types_are_what_their_blocks_say() {
    let text = text_alone(&fixtures_gemma4());
    let home = tempfile::tempdir().unwrap();
    for kind in [gguf::Q4_K, gguf::Q5_K, gguf::Q6_K] {
        let (mut file, changed) = mmproj_in(kind);
        // Their blocks have 256 numbers: rows of another set may have none.
        if changed == 0 {
            continue;
        }
        let pack = |file: &Gguf, at: &str| {
            let home = home.path().join(format!("{kind}-{at}"));
            std::fs::create_dir(&home).unwrap();
            let path = home.join("mmproj-bf16.gguf");
            file.write(&path);
            packed(text.path(), &path, Recipe::Balanced, &home)
        };
        let blocks = pack(&file, "blocks");
        for tensor in &mut file.tensors {
            if tensor.kind == kind {
                tensor.data = gguf::stored(gguf::F32, &gguf::values(tensor));
                tensor.kind = gguf::F32;
            }
        }
        assert_same_towers(&pack(&file, "numbers"), &blocks);
        each_medium(&towers(&blocks), Isa::best(), |name, got, _| {
            assert!(got.iter().all(|x| x.is_finite()), "{name}");
        });
    }
}

/// A text model that says nothing of towers gets what the file says, and for the rest what the released models have.
#[test]
fn a_text_model_learns_of_its_towers() {
    let text = text_alone(&fixtures_gemma4());
    let path = text.path().join("config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    std::fs::write(&path, config["text_config"].to_string()).unwrap();
    std::fs::remove_file(text.path().join("processor_config.json")).unwrap();
    learns(text.path());
    learns(&fixtures_gemma4_gguf().join("text-mixed.gguf"));
}

fn learns(text: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let pack = packed(text, &mmproj(), Recipe::Balanced, dir.path());

    let (want, got) = (
        Config::load(&fixtures_gemma4()).unwrap(),
        Config::load(&pack).unwrap(),
    );
    assert_eq!(got.text, want.text);
    assert_eq!(got.ids.media, want.ids.media);
    assert_eq!(got.video_token_id, want.video_token_id);
    let (mut seen, mut heard) = (got.vision.unwrap(), got.audio.unwrap());
    let (vision, audio) = (want.vision.unwrap(), want.audio.unwrap());
    assert_eq!((seen.soft_tokens, heard.attention_logit_cap), (280, 50.0));
    seen.soft_tokens = vision.soft_tokens;
    heard.attention_logit_cap = audio.attention_logit_cap;
    assert_eq!((seen, heard), (vision, audio));

    let processor = std::fs::read(pack.join("processor_config.json")).unwrap();
    let processor: Value = serde_json::from_slice(&processor).unwrap();
    let released = std::fs::read(fixtures_gemma4().join("processor_config.json")).unwrap();
    let released: Value = serde_json::from_slice(&released).unwrap();
    for part in ["image_processor", "feature_extractor"] {
        let said = processor[part].as_object().unwrap();
        assert!(said.len() > 5, "{processor}");
        for (key, value) in said {
            let (value, released) = (value.as_f64(), released[part][key].as_f64());
            assert!(
                value
                    .zip(released)
                    .is_none_or(|(a, b)| (a - b).abs() < 1e-6),
                "{key}"
            );
        }
    }

    let options = EngineOptions {
        threads: 2,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&pack, options).unwrap();
    let parts = vec![
        Part::Media(Media::Clip(clip("a0_5"))),
        Part::Media(Media::Image(
            picture("photo.image_u8_hwc"),
            PictureOptions::default(),
        )),
        Part::Text("What is it?".to_owned()),
    ];
    let request = Request {
        conversation: None,
        messages: Message::user(parts),
        matformer: None,
        thinking: None,
        generation: Generation {
            sampling: Sampling::GREEDY,
            seed: 0,
            max_tokens: 2,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    };
    let answer = engine
        .answer(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    // 0.5 s are 13 soft tokens, and a picture is more than 70 where 280 are the most.
    assert!(
        answer.timing.prompt_tokens > 13 + 70,
        "{}",
        answer.timing.prompt_tokens
    );
}

/// What the text model's own config.json says of what the file does not know stays.
#[test]
fn what_a_text_model_says_itself_stays() {
    let text = text_alone(&fixtures_gemma4());
    let path = text.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["audio_config"]["attention_logit_cap"] = json!(7.5);
    config["vision_config"]["rope_parameters"]["rope_theta"] = json!(77.0);
    std::fs::write(&path, config.to_string()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let got = Config::load(&packed(
        text.path(),
        &mmproj(),
        Recipe::Balanced,
        dir.path(),
    ))
    .unwrap();
    assert_eq!(got.audio.unwrap().attention_logit_cap, 7.5);
    assert_eq!(got.vision.unwrap().rope_theta, 77.0);
}
