//! A checkpoint that was trained in 2, 4 and 8 bits, against the reference implementation (tests/fixtures/tiny-g4a-qat-mobile/README.md).

use std::sync::Arc;

use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::media::SAMPLE_RATE_HZ;
use gemmad::model::decoder::Shortcuts;
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::encoder::VisionEncoder;
use gemmad::model::gemma4::audio::AudioTower;
use gemmad::model::gemma4::config::Config;
use gemmad::model::gemma4::vision::VisionTower;
use gemmad::model::weights::{Checkpoint, Group};
use gemmad::pipeline::AudioStream;
use kernels::{Isa, Pool};
use safetensors::SafeTensors;

use super::mobile_runs::{Run, assert_as_near_as_itself, golden, runs};
use crate::common::{Golden, assert_close, fixtures_gemma4, fixtures_gemma4_mobile};
use crate::gemma4_golden::instruction_sets;
use crate::gemma4_golden::text_runs::{PROMPTS, Text, UNCUT, argmax, assert_same_bits, ids, rms};
use crate::isas::isas;

/// Of logits that are a multiple of a step, then capped.
const ROUNDED_LOGITS: f64 = 1e-5;
/// Soft tokens have deviation 1.
const ROUNDED_SOFT_TOKENS: f64 = 0.05;
const LOGITS: f32 = 2e-3;
const SOFT_TOKENS: f32 = 1e-3;
const CLIP: &str = "a3_2";

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
    assert!(!weights.is_empty());
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

/// Logits of every position of a prompt.
fn logits(run: &Run, prompt: &str) -> Vec<Vec<f32>> {
    let prompts = Golden::of(&fixtures_gemma4(), "text");
    let ids = ids(&prompts, &format!("{prompt}.input_ids"));
    Text::open(&run.pack).all_logits(KvType::F32, &ids, 64)
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    rms(got.iter().zip(want).map(|(got, want)| got - want))
}

/// The share of tokens that are not best. Rounded logits may be equal: then the reference names the first of them.
fn misses(logits: &[Vec<f32>], best: &[i32]) -> f64 {
    assert_eq!(logits.len(), best.len());
    let is_best =
        |logits: &[f32], token: i32| logits[token as usize] == logits[argmax(logits) as usize];
    let missed = logits
        .iter()
        .zip(best)
        .filter(|(logits, token)| !is_best(logits, **token));
    missed.count() as f64 / best.len() as f64
}

#[test]
fn mobile_logits_and_argmax() {
    for run in runs() {
        for prompt in PROMPTS {
            let got = logits(&run, prompt);
            let name = format!("{}{prompt}.logits", run.prefix);
            let (want, shape) = golden().f32(&name);
            let last = |logits: &[Vec<f32>]| logits[logits.len() - shape[0]..].concat();
            let (best, _) = golden().i32(&format!("{}{prompt}.argmax", run.prefix));
            if !run.rounds {
                assert_close(&name, &last(&got), &want, LOGITS);
                assert_eq!(misses(&got, &best), 0.0, "{name}: best tokens");
                continue;
            }
            let off = distance(&last(&got), &want);
            assert_as_near_as_itself(&name, off, ROUNDED_LOGITS, |moved| {
                distance(&last(&logits(moved, prompt)), &last(&got))
            });
            let ours: Vec<i32> = got.iter().map(|logits| argmax(logits)).collect();
            assert_as_near_as_itself(
                &format!("{name}: best tokens"),
                misses(&got, &best),
                0.0,
                |moved| misses(&logits(moved, prompt), &ours),
            );
        }
    }
}

fn seen(run: &Run, isa: Isa) -> Vec<f32> {
    let (pixels, shape) = Golden::of(&fixtures_gemma4(), "vision").u8("photo.resized_u8_hwc");
    let config = Config::load(&run.pack).unwrap();
    let checkpoint = Checkpoint::open(&run.pack).unwrap();
    let vision = config.vision.unwrap();
    let tower = VisionTower::load(&checkpoint, &vision, config.text.hidden_size).unwrap();
    let size = [shape[1], shape[0]];
    tower
        .encode(&Pool::new(isa, 2), &pixels, size, &mut || ())
        .unwrap()
}

/// In pieces of so many samples.
fn heard(run: &Run, piece: usize) -> Vec<f32> {
    heard_in_batches(run, Isa::best(), piece, 64)
}

/// Of so many frames of the encoder.
fn heard_in_batches(run: &Run, isa: Isa, piece: usize, batch_frames: usize) -> Vec<f32> {
    let path = fixtures_gemma4().join(format!("golden/{CLIP}.wav"));
    let clip = read_audio_file(&path, &AudioLimits::default()).unwrap();
    let config = Config::load(&run.pack).unwrap();
    let checkpoint = Checkpoint::open(&run.pack).unwrap();
    let mut audio = config.audio.unwrap();
    // The reference sees one key less than its config says.
    audio.attention_context_left -= 1;
    let pool = Pool::new(isa, 2);
    let hidden_size = config.text.hidden_size;
    let tower = AudioTower::load(&checkpoint, &audio, hidden_size, &pool).unwrap();
    let mut stream = AudioStream::new(Arc::new(tower), batch_frames);
    let mut tokens = Vec::new();
    for piece in clip.samples.chunks(piece) {
        stream.push(&pool, piece, &mut tokens).unwrap();
    }
    stream.finish(&pool, 0, &mut tokens).unwrap();
    tokens
}

/// Compares soft tokens as this way to run allows; `again` gives those of a run with moved steps.
fn assert_soft_tokens(run: &Run, name: &str, got: &[f32], again: impl Fn(&Run) -> Vec<f32>) {
    let name = format!("{}{name}.soft_tokens", run.prefix);
    let (want, _) = golden().f32(&name);
    assert_eq!(got.len(), want.len(), "{name}");
    if run.rounds {
        let off = distance(got, &want);
        assert_as_near_as_itself(&name, off, ROUNDED_SOFT_TOKENS, |moved| {
            distance(&again(moved), got)
        });
    } else {
        assert_close(&name, got, &want, SOFT_TOKENS);
    }
}

#[test]
fn mobile_pictures() {
    for run in runs() {
        for isa in instruction_sets() {
            assert_soft_tokens(&run, "photo", &seen(&run, isa), |moved| {
                seen(moved, Isa::best())
            });
        }
    }
}

#[test]
fn mobile_sound() {
    for run in runs() {
        // As a whole, and as it is spoken.
        for piece in [usize::MAX, SAMPLE_RATE_HZ as usize / 10] {
            assert_soft_tokens(&run, CLIP, &heard(&run, piece), |moved| heard(moved, piece));
        }
    }
}

#[test]
fn mobile_sound_is_the_same_bits_in_batches_of_any_length() {
    let run = &runs()[0];
    for isa in isas() {
        let want = heard_in_batches(run, isa, usize::MAX, 1000);
        for batch_frames in [1, 3, 4, 12, 25, 40, 48] {
            let got = heard_in_batches(run, isa, 2560, batch_frames);
            assert_same_bits(&format!("{isa}, {batch_frames} frames"), &got, &want);
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
        for isa in isas() {
            for threads in [1, 3] {
                text.pool = Pool::new(isa, threads);
                let got = text.prompt_and_token(&ids, 16);
                assert_same_bits(&format!("{isa}, {threads} threads"), &got, &want);
            }
        }
    }
}
