//! A checkpoint that was trained in 2, 4 and 8 bits, against the reference implementation (tests/fixtures/tiny-g4a-qat-mobile/README.md).
//!
//! What the reference rounds to steps of 8 bits jumps by a step where sums in another order lie on the other side of a boundary. One such jump
//! in a hundred tokens moves all that come behind it, the more so as the weights are random: in the long prompt by 0.5 rms, of 1.2 that all
//! roundings make. So with roundings, root mean squares are compared, and a prompt without a jump shows how near they are (2e-7).
//! Without them, as with any float model, every number is compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::media::SAMPLE_RATE_HZ;
use gemmad::model::decoder::Shortcuts;
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::encoder::VisionEncoder;
use gemmad::model::gemma4::audio::AudioTower;
use gemmad::model::gemma4::config::Config;
use gemmad::model::gemma4::vision::VisionTower;
use gemmad::model::weights::mobile::ACTIVATION_SCALES;
use gemmad::model::weights::{Checkpoint, Group};
use gemmad::pack::Recipe;
use gemmad::pipeline::AudioStream;
use kernels::{Isa, Pool};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::common::{Golden, assert_close, fixtures_gemma4, fixtures_gemma4_mobile, pack_of};
use crate::gemma4_golden::text_runs::{PROMPTS, Text, UNCUT, argmax, assert_same_bits, ids, rms};

/// What the fixture's notes suggest, of logits of deviation 3.6: for prompts without a jump.
const ROUNDED_LOGITS: f64 = 0.05;
/// The share of what the roundings move that a jump may move.
const JUMP: f64 = 0.8;
/// Soft tokens have deviation 1.
const ROUNDED_SOFT_TOKENS: f64 = 0.05;
const LOGITS: f32 = 2e-3;
const SOFT_TOKENS: f32 = 1e-3;
const CLIP: &str = "a3_2";

fn golden() -> Golden {
    Golden::of(&fixtures_gemma4_mobile(), "qat")
}

/// The goldens of one of the two ways to run it, and its pack.
struct Run {
    /// What the names of its goldens begin with.
    prefix: &'static str,
    rounds: bool,
    pack: PathBuf,
    _home: TempDir,
}

/// With the roundings that it was trained with, and with none: every step is 0 then.
fn runs() -> [Run; 2] {
    [("", true), ("no_srq.", false)].map(|(prefix, rounds)| {
        let home = tempfile::tempdir().unwrap();
        let from = home.path().join("from");
        copy(&fixtures_gemma4_mobile(), &from);
        if !rounds {
            without_roundings(&from.join("model.safetensors"));
        }
        Run {
            prefix,
            rounds,
            pack: pack_of(&from, Recipe::Mobile, home.path()),
            _home: home,
        }
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn without_roundings(weights: &Path) {
    let mut bytes = std::fs::read(weights).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut steps = 0;
    for (name, info) in metadata.tensors() {
        if ACTIVATION_SCALES.iter().any(|end| name.ends_with(end)) {
            let (start, end) = info.data_offsets;
            bytes[8 + header + start..8 + header + end].fill(0);
            steps += 1;
        }
    }
    assert!(steps > 0);
    std::fs::write(weights, bytes).unwrap();
}

impl Run {
    /// Compares with a golden tensor as this way to run allows; how far off it is, rms.
    fn assert_close(&self, name: &str, got: &[f32], exact: f32, rounded: f64) -> f64 {
        let name = format!("{}{name}", self.prefix);
        let (want, _) = golden().f32(&name);
        assert_eq!(got.len(), want.len(), "{name}");
        let off = rms(got.iter().zip(&want).map(|(got, want)| got - want));
        if self.rounds {
            assert!(off <= rounded, "{name}: {off} > {rounded}");
        } else {
            assert_close(&name, got, &want, exact);
        }
        off
    }
}

/// Integers times scales are the very numbers of the reference.
#[test]
fn mobile_weights() {
    let [run, _] = runs();
    let checkpoint = Checkpoint::open(&run.pack).unwrap();
    let file = std::fs::read(fixtures_gemma4_mobile().join("golden/qat.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let names = file.names().into_iter();
    let weights: Vec<&str> = names
        .filter_map(|name| name.strip_prefix("dequantised."))
        .collect();
    assert!(weights.len() > 8, "{weights:?}");
    for name in weights {
        let (want, shape) = golden().f32(&format!("dequantised.{name}"));
        // Head and token embeddings are equal, and stored once.
        let name = match name {
            "lm_head.weight" => "model.language_model.embed_tokens.weight",
            name => name,
        };
        let mapped = checkpoint.load(Group::of(name).unwrap()).unwrap();
        let info = checkpoint.tensors().find(|info| info.name == name).unwrap();
        let cols = info.shape[1];
        assert_eq!(shape[1], cols, "{name}");
        let matrix = mapped.matrix(name, info.shape[0], cols).unwrap();
        let mut row = vec![0.0; cols];
        for (at, want) in want.chunks_exact(cols).enumerate() {
            kernels::widen::row(Isa::best(), mapped.view(matrix), at, &mut row);
            // As numbers: the reference has a 0 with a sign here and there.
            assert_eq!(row, want, "{name}, row {at}");
        }
    }
}

#[test]
fn mobile_logits_and_argmax() {
    let prompts = Golden::of(&fixtures_gemma4(), "text");
    for run in runs() {
        let mut text = Text::open(&run.pack);
        let (mut same, mut all, mut nearest) = (0, 0, f64::INFINITY);
        for prompt in PROMPTS {
            let ids = ids(&prompts, &format!("{prompt}.input_ids"));
            let logits = text.all_logits(KvType::F32, &ids, 64);
            let name = format!("{prompt}.logits");
            let (_, shape) = golden().f32(&format!("{}{name}", run.prefix));
            let last = logits[ids.len() - shape[0]..].concat();
            let [rounded, plain] =
                ["", "no_srq."].map(|run| golden().f32(&format!("{run}{name}")).0);
            let moved = rms(rounded.iter().zip(&plain).map(|(a, b)| a - b));
            nearest = nearest.min(run.assert_close(&name, &last, LOGITS, JUMP * moved));
            let (want, _) = golden().i32(&format!("{}{prompt}.argmax", run.prefix));
            let got = logits.iter().map(|logits| argmax(logits));
            same += got.zip(&want).filter(|(got, want)| got == *want).count();
            all += want.len();
        }
        assert!(nearest <= ROUNDED_LOGITS, "{nearest}");
        let behind_jumps = if run.rounds { all / 4 } else { 0 };
        assert!(same + behind_jumps >= all, "{same} of {all}");
    }
}

#[test]
fn mobile_pictures() {
    let (pixels, shape) = Golden::of(&fixtures_gemma4(), "vision").u8("photo.resized_u8_hwc");
    for run in runs() {
        let config = Config::load(&run.pack).unwrap();
        let checkpoint = Checkpoint::open(&run.pack).unwrap();
        let vision = config.vision.unwrap();
        let tower = VisionTower::load(&checkpoint, &vision, config.text.hidden_size).unwrap();
        for isa in Isa::available() {
            let pool = Pool::new(isa, 2);
            let size = [shape[1], shape[0]];
            let got = tower.encode(&pool, &pixels, size, &mut || ()).unwrap();
            run.assert_close("photo.soft_tokens", &got, SOFT_TOKENS, ROUNDED_SOFT_TOKENS);
        }
    }
}

#[test]
fn mobile_sound() {
    let path = fixtures_gemma4().join(format!("golden/{CLIP}.wav"));
    let samples = read_audio_file(&path, &AudioLimits::default())
        .unwrap()
        .samples;
    for run in runs() {
        let config = Config::load(&run.pack).unwrap();
        let checkpoint = Checkpoint::open(&run.pack).unwrap();
        let mut audio = config.audio.unwrap();
        // The reference sees one key less than its config says.
        audio.attention_context_left -= 1;
        let pool = Pool::new(Isa::best(), 2);
        let hidden_size = config.text.hidden_size;
        let tower = AudioTower::load(&checkpoint, &audio, hidden_size, &pool).unwrap();
        let tower = Arc::new(tower);
        // As a whole, and as it is spoken.
        for piece in [samples.len(), SAMPLE_RATE_HZ as usize / 10] {
            let mut stream = AudioStream::new(tower.clone(), 64);
            let mut got = Vec::new();
            for piece in samples.chunks(piece) {
                stream.push(&pool, piece, &mut got).unwrap();
            }
            stream.finish(&pool, 0, &mut got).unwrap();
            let name = format!("{CLIP}.soft_tokens");
            run.assert_close(&name, &got, SOFT_TOKENS, ROUNDED_SOFT_TOKENS);
        }
    }
}

#[test]
fn mobile_bits_are_those_of_any_chunk_shortcut_isa_and_number_of_threads() {
    let prompts = Golden::of(&fixtures_gemma4(), "text");
    let ids = ids(&prompts, "long.input_ids");
    for run in runs() {
        let mut text = Text::open(&run.pack);
        text.shortcuts = UNCUT;
        let want = text.prompt_and_token(&ids, ids.len());
        for kv_cut in [false, true] {
            text.shortcuts = Shortcuts { kv_cut, ..UNCUT };
            for chunk in [1, 7, 64, ids.len()] {
                let got = text.prompt_and_token(&ids, chunk);
                let name = format!("{}cut {kv_cut}, chunk {chunk}", run.prefix);
                assert_same_bits(&name, &got, &want);
            }
        }
        for isa in Isa::available() {
            for threads in [1, 3] {
                text.pool = Pool::new(isa, threads);
                let got = text.prompt_and_token(&ids, 16);
                assert_same_bits(&format!("{isa}, {threads} threads"), &got, &want);
            }
        }
    }
}
