//! The text model: logits, every layer, keys and values, greedy text; and that no shortcut, chunk, instruction set or number of threads
//! changes a bit.
//!
//! Tolerances are those of tests/fixtures/tiny-g4a/README.md.

use std::collections::BTreeSet;

use super::text_runs::{PROMPTS, Text, UNCUT, argmax, assert_same_bits, ids, rms};
use crate::common::{Golden, assert_close, fixtures_gemma4};
use crate::isas::isas;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{LayerShape, Shortcuts, last_kv_producer, no_probe};
use kernels::Pool;

const HIDDEN: f32 = 1e-3;
const LOGITS: f32 = 2e-3;

fn golden(name: &str) -> Golden {
    Golden::of(&fixtures_gemma4(), name)
}

#[test]
fn text_logits_and_argmax() {
    let mut text = Text::open(&fixtures_gemma4());
    let golden = golden("text");
    for prompt in PROMPTS {
        let ids = ids(&golden, &format!("{prompt}.input_ids"));
        let logits = text.all_logits(KvType::F32, &ids, 64);
        let (want, shape) = golden.f32(&format!("{prompt}.logits"));
        let last = logits[ids.len() - shape[0]..].concat();
        let off = assert_close(&format!("{prompt} logits"), &last, &want, LOGITS);
        println!("{prompt} logits: largest difference {off:e}");
        let got: Vec<i32> = logits.iter().map(|logits| argmax(logits)).collect();
        let (want, _) = golden.i32(&format!("{prompt}.argmax"));
        assert_eq!(got, want, "{prompt}: argmax at every position");
    }
}

#[test]
fn text_greedy() {
    let mut text = Text::open(&fixtures_gemma4());
    let golden = golden("text");
    for prompt in PROMPTS {
        let ids = ids(&golden, &format!("{prompt}.input_ids"));
        let (want, _) = golden.i32(&format!("{prompt}.greedy32"));
        let (got, _) = text.greedy(KvType::F32, &ids, want.len(), 64);
        assert_eq!(got, want, "{prompt}: greedy tokens");
    }
}

/// Rows of soft tokens, as the reference's encoders gave them, stand unscaled in the places of media, where per-layer embeddings are those
/// of row 0; nothing else is new there. Chunks end within media.
#[test]
fn text_with_rows_of_media() {
    let mut text = Text::open(&fixtures_gemma4());
    let golden = golden("multimodal");
    let spec = text.architecture.spec();
    let (d, takes_row) = (spec.hidden_size, spec.row_ids.clone());
    for case in ["image", "audio", "both"] {
        let ids = ids(&golden, &format!("{case}.input_ids"));
        let (embeds, _) = golden.f32(&format!("{case}.inputs_embeds"));
        let is_medium = |id: &u32| takes_row.iter().any(|ids| ids.contains(id));
        let rows: Vec<f32> = ids
            .iter()
            .zip(embeds.chunks_exact(d))
            .filter(|(id, _)| is_medium(id))
            .flat_map(|(_, row)| row.to_vec())
            .collect();
        assert!(!rows.is_empty(), "{case}");
        let (inputs, _) = golden.f32(&format!("{case}.per_layer_inputs"));
        text.shortcuts = UNCUT;
        let mut seen = 0;
        let mut probe = |name: &'static str, _: usize, got: &[f32]| {
            let want = match name {
                "embeds" => &embeds,
                "per_layer_inputs" => &inputs,
                _ => return,
            };
            let off = assert_close(&format!("{case} {name}"), got, want, HIDDEN);
            println!("{case} {name}: largest difference {off:e}");
            seen += 1;
        };
        let mut cache = text.cache(KvType::F32, ids.len());
        text.extend_with(&mut cache, &ids, &rows, &mut probe);
        assert_eq!(seen, 2);
        let logits: Vec<Vec<f32>> = (0..ids.len()).map(|token| text.logits(token)).collect();
        let got: Vec<i32> = logits.iter().map(|logits| argmax(logits)).collect();
        assert_eq!(got, golden.i32(&format!("{case}.argmax")).0, "{case}");
        let (want, shape) = golden.f32(&format!("{case}.logits_last8"));
        let last = logits[ids.len() - shape[0]..].concat();
        let off = assert_close(&format!("{case} logits"), &last, &want, LOGITS);
        println!("{case} logits: largest difference {off:e}");
        // With every shortcut, and chunks that end within media.
        text.shortcuts = Shortcuts::default();
        let mut cache = text.cache(KvType::F32, 11);
        text.extend_with(&mut cache, &ids, &rows, &mut no_probe);
        assert_same_bits(case, &text.last_logits(), &logits[ids.len() - 1]);
        let (want, _) = golden.i32(&format!("{case}.greedy16"));
        let (got, _) = text.greedy_on(&mut cache, want.len());
        assert_eq!(got, want, "{case}: greedy tokens");
    }
}

/// The layers whose insides the goldens have, by the prefix of their names: the first one, the first global one, a shared local one.
fn inside(layers: &[LayerShape]) -> [(usize, &'static str); 3] {
    let global = layers.iter().position(|layer| layer.window.is_none());
    let shared = (layers.len() - 2, "ls");
    assert!(layers[shared.0].kv_of.is_some(), "a shared layer");
    [(0, "l0"), (global.unwrap(), "lg"), shared]
}

#[test]
fn text_every_layer() {
    let mut text = Text::open(&fixtures_gemma4());
    text.shortcuts = UNCUT;
    let golden = golden("layers");
    let ids = ids(&golden, "input_ids");
    let spec = text.architecture.spec();
    let (layers, count) = (inside(&spec.layers), spec.layers.len());
    let width = ids.len() * spec.hidden_size;
    let (outputs, _) = golden.f32("layers");
    let mut seen = 0;
    let mut probe = |name: &'static str, layer: usize, got: &[f32]| {
        let of_layer = layers.iter().find(|(index, _)| *index == layer);
        let want = match name {
            "layer" => outputs[layer * width..(layer + 1) * width].to_vec(),
            "embeds" | "ple_gather" | "per_layer_inputs" | "final_norm" => golden.f32(name).0,
            _ => match of_layer {
                Some((_, prefix)) => golden.f32(&format!("{prefix}.{name}")).0,
                None => return,
            },
        };
        let off = assert_close(&format!("{name} {layer}"), got, &want, HIDDEN);
        println!("{name} {layer}: largest difference {off:e}");
        seen += 1;
    };
    let mut cache = text.cache(KvType::F32, ids.len());
    text.extend(&mut cache, &ids, &mut probe);
    // Four of the whole model, four of each of three layers, and the output of every layer.
    assert_eq!(seen, 4 + 4 * 3 + count);
    assert_keys_and_values(&golden, &spec_layers(&text), &cache);
}

fn spec_layers(text: &Text) -> Vec<LayerShape> {
    text.architecture.spec().layers.clone()
}

/// The keys and values of the two layers that shared layers read, as far as a sliding window still holds them.
fn assert_keys_and_values(golden: &Golden, layers: &[LayerShape], cache: &KvCache) {
    let bytes = cache.to_bytes();
    let (_, bytes) = bytes.split_first_chunk::<8>().unwrap();
    let values: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect();
    let sources: BTreeSet<usize> = layers.iter().filter_map(|layer| layer.kv_of).collect();
    let mut at = 0;
    let mut compared = 0;
    for (index, layer) in layers.iter().enumerate().filter(|(_, l)| l.kv_of.is_none()) {
        let t = cache.position();
        let slots = layer.window.unwrap_or(t).min(t);
        for name in ["k", "v"] {
            let name = format!("producer{index}.{name}");
            for head in 0..layer.kv_heads {
                let rows = &values[at..at + slots * layer.head_dim];
                at += rows.len();
                if !sources.contains(&index) {
                    continue;
                }
                let (want, _) = golden.f32(&name);
                for token in t - slots..t {
                    let want = &want[(token * layer.kv_heads + head) * layer.head_dim..];
                    let got = &rows[token % slots * layer.head_dim..][..layer.head_dim];
                    let name = format!("{name} of token {token}");
                    assert_close(&name, got, &want[..layer.head_dim], HIDDEN);
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(at, values.len());
    assert!(compared > 0);
}

#[test]
fn text_bits_are_those_of_any_chunk_shortcut_isa_and_number_of_threads() {
    let mut text = Text::open(&fixtures_gemma4());
    let ids = ids(&golden("text"), "long.input_ids");
    text.shortcuts = UNCUT;
    let want = text.prompt_and_token(&ids, ids.len());
    for kv_cut in [false, true] {
        text.shortcuts = Shortcuts { kv_cut, ..UNCUT };
        for chunk in [1, 3, 7, 64, ids.len()] {
            let got = text.prompt_and_token(&ids, chunk);
            assert_same_bits(&format!("cut {kv_cut}, chunk {chunk}"), &got, &want);
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

/// Of the rows of the table of per-layer embeddings a prompt reads what the layers read that its tokens pass: those before the last one
/// that has keys and values of its own. Its last token reads the whole row.
#[test]
fn text_rows_are_read_as_far_as_layers_run() {
    let golden = golden("text");
    let ids = ids(&golden, "long.input_ids");
    let read = |kv_cut: bool, ids: &[u32]| {
        let mut text = Text::open(&fixtures_gemma4());
        text.shortcuts = Shortcuts { kv_cut, ..UNCUT };
        let mut cache = text.cache(KvType::F32, 64);
        text.extend(&mut cache, ids, &mut no_probe);
        let logits = text.last_logits();
        let bytes = text.decoder.ple().counts().bytes as usize;
        (bytes, logits, text)
    };
    let (whole, want, text) = read(false, &ids);
    let row = text.decoder.ple().row_bytes();
    let distinct = |ids: &[u32]| ids.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(whole, distinct(&ids) * row);
    let layers = spec_layers(&text);
    let front = row / layers.len() * last_kv_producer(&layers);
    assert!(front < row);
    let (cut, got, mut text) = read(true, &ids);
    assert_same_bits("with rows read in part", &got, &want);
    let (last, others) = ids.split_last().unwrap();
    let rest = match others.contains(last) {
        true => row - front,
        false => row,
    };
    assert_eq!(cut, distinct(others) * front + rest);
    // A token that is decoded needs the rest of its row, and no more.
    let mut cache = text.cache(KvType::F32, 64);
    text.extend(&mut cache, &ids[..1], &mut no_probe);
    let bytes = text.decoder.ple().counts().bytes as usize;
    assert_eq!(bytes - cut, row - front);
    text.extend(&mut cache, &ids[..1], &mut no_probe);
    assert_eq!(text.decoder.ple().counts().bytes as usize, bytes);
}

/// What the shorter types of keys and values cost. Random weights are the worst case (1 % of noise on each moves these logits by 16 %).
/// Measured: 2.0e-3 and 4.7e-2; the bounds are three times that.
#[test]
fn text_with_shorter_keys_and_values_is_as_far_from_the_reference_as_their_bits() {
    let mut text = Text::open(&fixtures_gemma4());
    let golden = golden("text");
    let ids = ids(&golden, "long.input_ids");
    let (want, shape) = golden.f32("long.logits");
    let relative = [KvType::F32, KvType::F16, KvType::Int8].map(|kind| {
        let logits = text.all_logits(kind, &ids, 64);
        let got = logits[ids.len() - shape[0]..].iter().flatten();
        rms(got.zip(&want).map(|(got, want)| got - want)) / rms(want.iter().copied())
    });
    println!("relative rms error of logits in 32, 16 and 8 bits: {relative:?}");
    let [f32s, f16s, int8s] = relative;
    assert!(f32s < f16s && f16s < 6e-3, "{relative:?}");
    assert!(f16s < int8s && int8s < 0.15, "{relative:?}");
}
