//! The drafter alone: on the keys, values and states of the goldens.

use super::{LOGITS, Reading, STATES, begin, drafter, golden};
use crate::common::{
    Golden, assert_close, fixtures_gemma4, fixtures_gemma4_drafter, pack_with_drafter,
};
use crate::gemma4_golden::text_runs::{PROMPTS, Text, assert_same_bits, rms};
use crate::isas::isas;
use gemmad::model::decoder::kv_cache::KvCache;
use gemmad::model::decoder::no_probe;
use gemmad::model::gemma4::drafter::Drafter;
use gemmad::pack::Recipe;
use kernels::{Isa, Pool};
use safetensors::SafeTensors;

/// The `at`-th row of a golden whose first dimension are the guesses.
fn row(golden: &Golden, name: &str, at: usize) -> Vec<f32> {
    let (values, shape) = golden.f32(name);
    let width: usize = shape[1..].iter().product();
    values[at * width..(at + 1) * width].to_vec()
}

/// The last guess as the reference has it: ids in no chosen cluster lie one below the least of the others.
fn masked(drafter: &Drafter, ids: usize) -> Vec<f32> {
    let (chosen, logits) = drafter.candidates();
    let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
    let mut masked = vec![least - 1.0; ids];
    for (&id, &logit) in chosen.iter().zip(logits) {
        masked[id as usize] = logit;
    }
    masked
}

/// The embedding of a token, and the drafter's guess behind it.
fn guess(
    text: &mut Text,
    drafter: &mut Drafter,
    cache: &KvCache,
    (prompt, reading): (&str, Reading),
    at: usize,
) -> i32 {
    let golden = golden();
    let name = |what: &str| format!("{prompt}{}.{what}", reading.tag());
    let token = match at {
        0 => golden.i32(&format!("{prompt}.first_token")).0[0],
        _ => golden.i32(&name("tokens")).0[at - 1],
    };
    let mut embedding = vec![0.0; text.architecture.spec().hidden_size];
    text.decoder
        .embedding(&text.pool, token as u32, &mut embedding)
        .unwrap();
    let inside = reading == Reading::Loose;
    if inside {
        let inputs = row(&golden, &name("inputs"), at);
        let want = &inputs[..embedding.len()];
        assert_close(&name("embedding"), &embedding, want, STATES);
    }
    let layers = golden.f32(&format!("{prompt}.layers")).1[1];
    let mut seen = 0;
    let mut probe = |what: &'static str, layer: usize, got: &[f32]| {
        let want = match what {
            "layer" if inside => {
                let of_all = row(&golden, &name("layers"), at);
                of_all[layer * got.len()..(layer + 1) * got.len()].to_vec()
            }
            "projected" => row(&golden, &name("projected"), at),
            _ if inside => row(&golden, &name(what), at),
            _ => return,
        };
        let tolerance = match what {
            "centroid_logits" => LOGITS,
            _ => STATES,
        };
        let shown = format!("{} {layer}, guess {at}", name(what));
        assert_close(&shown, got, &want, tolerance);
        seen += 1;
    };
    let guessed = drafter.step(&text.pool, cache, &embedding, &mut probe);
    let clusters = usize::from(drafter.candidates().0.len() < text.architecture.spec().vocab_size);
    // Two projections, the norm, every layer, and the clusters.
    assert_eq!(seen, if inside { 3 + layers + clusters } else { 1 });
    guessed as i32
}

#[test]
fn every_state_and_every_logit() {
    let dir = tempfile::tempdir().unwrap();
    let pack = pack_with_drafter(&fixtures_gemma4_drafter(), Recipe::Float, dir.path()).unwrap();
    let (mut text, golden) = (Text::open(&pack), golden());
    let ids = text.architecture.spec().vocab_size;
    for reading in Reading::BOTH {
        let mut drafter = drafter(&pack, reading);
        for prompt in PROMPTS {
            let name = |what: &str| format!("{prompt}{}.{what}", reading.tag());
            let (tokens, _) = golden.i32(&name("tokens"));
            let cache = begin(&golden, prompt, &mut drafter);
            for (at, &token) in tokens.iter().enumerate() {
                let guessed = guess(&mut text, &mut drafter, &cache, (prompt, reading), at);
                let want = row(&golden, &name("logits"), at);
                assert_close(&name("logits"), &masked(&drafter, ids), &want, LOGITS);
                assert_eq!(guessed, token, "{}: guess {at}", name("tokens"));
            }
        }
    }
}

/// A drafter of which only the tensors tell that its ids are in no clusters: every row is compared.
#[test]
fn a_head_without_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let dense = dir.path().join("dense");
    without_clusters(&dense);
    let pack = pack_with_drafter(&dense, Recipe::Float, dir.path()).unwrap();
    let (mut text, golden) = (Text::open(&pack), golden());
    let ids = text.architecture.spec().vocab_size;
    for reading in Reading::BOTH {
        let mut drafter = drafter(&pack, reading);
        for prompt in PROMPTS {
            let name = format!("{prompt}{}.logits_unmasked", reading.tag());
            let guesses = golden.f32(&name).1[0];
            let cache = begin(&golden, prompt, &mut drafter);
            for at in 0..guesses {
                guess(&mut text, &mut drafter, &cache, (prompt, reading), at);
                assert_eq!(drafter.candidates().0.len(), ids);
                let want = row(&golden, &name, at);
                assert_close(&name, &masked(&drafter, ids), &want, LOGITS);
            }
        }
    }
}

/// A copy of the drafter under test as converters leave it that drop its clusters.
fn without_clusters(to: &std::path::Path) {
    let from = fixtures_gemma4_drafter();
    std::fs::create_dir(to).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter();
    let kept = kept.filter(|(name, _)| !name.starts_with("masked_embedding."));
    let bytes = safetensors::serialize(kept, None).unwrap();
    std::fs::write(to.join("model.safetensors"), bytes).unwrap();
}

/// The logits of all guesses behind a prompt.
fn all_logits(text: &mut Text, drafter: &mut Drafter, prompt: &str, pool: &Pool) -> Vec<f32> {
    let golden = golden();
    let cache = begin(&golden, prompt, drafter);
    let spec = text.architecture.spec();
    let (d, ids) = (spec.hidden_size, spec.vocab_size);
    let mut tokens = golden.i32(&format!("{prompt}.first_token")).0;
    tokens.extend(golden.i32(&format!("{prompt}.strict.tokens")).0);
    let (mut embedding, mut all) = (vec![0.0; d], Vec::new());
    for &token in &tokens[..tokens.len() - 1] {
        text.decoder
            .embedding(pool, token as u32, &mut embedding)
            .unwrap();
        drafter.step(pool, &cache, &embedding, &mut no_probe);
        all.extend(masked(drafter, ids));
    }
    all
}

/// A drafter has 8 bits in every recipe but one. Its rows stand in another order then, in tiles: none may be at another's place.
#[test]
fn eight_bits_are_near_the_reference_and_the_same_on_every_machine() {
    let dense = tempfile::tempdir().unwrap();
    without_clusters(&dense.path().join("dense"));
    let golden = golden();
    for recipe in [Recipe::Q8, Recipe::Small] {
        for source in [fixtures_gemma4_drafter(), dense.path().join("dense")] {
            let dir = tempfile::tempdir().unwrap();
            let pack = pack_with_drafter(&source, recipe, dir.path()).unwrap();
            // The embeddings are the model's, and have other bits in another recipe.
            let mut text = Text::open(&fixtures_gemma4());
            let mut drafter = drafter(&pack, Reading::Strict);
            for prompt in PROMPTS {
                let pool = Pool::new(Isa::scalar(), 1);
                let want = all_logits(&mut text, &mut drafter, prompt, &pool);
                for isa in isas() {
                    for threads in [1, 3] {
                        let pool = Pool::new(isa, threads);
                        let got = all_logits(&mut text, &mut drafter, prompt, &pool);
                        assert_same_bits(&format!("{isa}, {threads} threads"), &got, &want);
                    }
                }
                let (exact, _) = golden.f32(&format!("{prompt}.strict.logits_unmasked"));
                let ids = text.architecture.spec().vocab_size;
                // Those of the first guess: later ones look into other clusters.
                let (chosen, _) = drafter.candidates();
                if chosen.len() < ids {
                    continue;
                }
                let off = want.iter().zip(&exact).map(|(got, want)| got - want);
                let relative = rms(off) / rms(exact.iter().copied());
                println!("{recipe:?}, {prompt}: {relative:.4} of the logits' size");
                assert!(relative < 0.1, "{recipe:?}, {prompt}: {relative}");
                assert!(
                    relative > 1e-5,
                    "{recipe:?}, {prompt}: nothing was quantised"
                );
            }
        }
    }
}
