//! A checkpoint that was trained in 2, 4 and 8 bits, against the reference implementation (tests/fixtures/tiny-g4a-qat-mobile/README.md).
//!
//! What the reference rounds to steps of 8 bits jumps by a step where sums in another order lie on the other side of a boundary. One such jump
//! in a hundred tokens moves all that come behind it, the more so as the weights are random. Four values of the long prompt are that near
//! (`BESIDE_A_BOUNDARY`); with their steps some ulps off, its logits are those of the reference like any others (2e-7).

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

/// Steps of which one value of the long prompt is a half so nearly that the order of a sum in float32 decides, and the ulps that lay it on the
/// side on which it is in the reference. A second implementation found them, in float64 and with sums in other orders.
const BESIDE_A_BOUNDARY: [(&str, i32); 4] = [
    // Token 8, column 55: 9.4999996 in float64, so 9 here; 10 in the reference. 95 tokens see its keys and values: 0.5 rms.
    (
        "model.language_model.layers.1.self_attn.o_proj.output_activation_scale",
        -1,
    ),
    // Token 65, column 16: 32.5000022 in float64, so 33 in the reference; 32.5 in some orders, and here 32, which is even. 0.4 rms.
    (
        "model.language_model.layers.3.self_attn.o_proj.input_activation_scale",
        -1,
    ),
    // Token 88, column 31: -20.4999990 in float64, so -20 in the reference; -20.5000019 in most orders of a sum, and here. 0.01 rms.
    ("lm_head.input_activation_scale", 1),
    // Token 98, column 237: 10.5000027 in float64, so 11 here; 10 in the reference. 0.09 rms.
    (
        "model.language_model.layers.4.self_attn.o_proj.input_activation_scale",
        4,
    ),
];
/// Of logits that are a multiple of a step, then capped.
const ROUNDED_LOGITS: f32 = 1e-5;
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
        change_steps(&from.join("model.safetensors"), |name, step| {
            let beside = BESIDE_A_BOUNDARY.iter().find(|(beside, _)| *beside == name);
            match beside {
                _ if !rounds => 0.0,
                Some(&(_, ulps)) => f32::from_bits(step.to_bits().wrapping_add_signed(ulps)),
                None => step,
            }
        });
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

fn change_steps(weights: &Path, change: impl Fn(&str, f32) -> f32) {
    let mut bytes = std::fs::read(weights).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut steps = 0;
    for (name, info) in metadata.tensors() {
        if ACTIVATION_SCALES.iter().any(|end| name.ends_with(end)) {
            let at = 8 + header + info.data_offsets.0;
            let step = bytes[at..].first_chunk_mut().unwrap();
            *step = change(&name, f32::from_le_bytes(*step)).to_le_bytes();
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
        let tolerance = if run.rounds { ROUNDED_LOGITS } else { LOGITS };
        for prompt in PROMPTS {
            let ids = ids(&prompts, &format!("{prompt}.input_ids"));
            let logits = text.all_logits(KvType::F32, &ids, 64);
            let name = format!("{}{prompt}.logits", run.prefix);
            let (want, shape) = golden().f32(&name);
            let last = logits[ids.len() - shape[0]..].concat();
            assert_close(&name, &last, &want, tolerance);
            let (want, _) = golden().i32(&format!("{}{prompt}.argmax", run.prefix));
            assert_eq!(logits.len(), want.len(), "{name}");
            for (logits, want) in logits.iter().zip(want) {
                // Rounded logits may be equal: the reference names the first of them.
                let best = logits[argmax(logits) as usize];
                assert_eq!(logits[want as usize], best, "{name}, token {want}");
            }
        }
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
