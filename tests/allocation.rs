//! Nothing is allocated between two decoded tokens: all buffers are there before the first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::{fixtures, fixtures_gemma4, pack_of};
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Slice, Tokens, no_probe};
use gemmad::model::family;
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::{Checkpoint, PleOptions};
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use gemmad::pipeline::{Engine, EngineOptions, Generation, GuessOptions, Message, Part, Request};
use kernels::{Isa, Pool};

#[global_allocator]
static WATCHED: allocator::Watched = allocator::Watched;

/// Allocations seen at each piece of an answer of `tokens` tokens, of the first question whose answer is long enough to say anything:
/// a random model may end it at once.
fn allocations(
    engine: &mut Engine,
    sampling: Sampling,
    stop: &[&str],
    tokens: usize,
) -> Vec<usize> {
    let long_enough = (7..40).find_map(|seed| {
        let request = Request {
            conversation: None,
            messages: Message::user(vec![Part::Text(format!(
                "Turn on kitchen light {seed}, please."
            ))]),
            matformer: None,
            thinking: None,
            generation: Generation {
                sampling,
                seed,
                max_tokens: tokens,
                stop: stop.iter().map(|&text| text.to_owned()).collect(),
                grammar: None,
                tools: None,
            },
        };
        let mut counts = Vec::with_capacity(2 * tokens);
        let answer = engine
            .answer(&request, &mut |_| {
                counts.push(allocator::count());
                ControlFlow::Continue(())
            })
            .unwrap();
        (answer.timing.tokens > tokens / 2).then_some(counts)
    });
    long_enough.unwrap_or_else(|| panic!("{sampling:?}: too short answers to say anything"))
}

/// Allocations of a Gemma 4's decoder while it takes tokens one by one and gives their logits.
fn decoder_allocations(dir: &Path, kv_type: KvType, threads: usize) -> usize {
    let architecture = family::load(dir).unwrap();
    let checkpoint = Checkpoint::open(dir).unwrap();
    let (options, chunk) = (PleOptions::default(), 16);
    let mut decoder = architecture
        .decoder(&checkpoint, &options, chunk, &mut |_, _| {})
        .unwrap();
    let pool = Pool::new(Isa::best(), threads);
    let slice = Slice::full(decoder.layers());
    let mut cache = KvCache::new(decoder.layers(), kv_type, 1024, chunk);
    let mut logits = vec![0.0; architecture.spec().vocab_size];
    let mut take = |ids: &[u32]| {
        let tokens = Tokens::new(ids, &slice);
        decoder
            .extend(&pool, &mut cache, tokens, &mut no_probe)
            .unwrap();
        let last = decoder.ready() - 1;
        let best = Exact::Best {
            count: 1,
            within: None,
        };
        decoder.logits(&pool, last, best, &mut logits).unwrap();
    };
    // Longer than the window, and than the length from which attention is cut into parts.
    let prompt: Vec<u32> = (0..600).map(|n| n * 7 % 1000 + 200).collect();
    take(&prompt);
    // Threads that start late allocate when they do.
    for id in 300..316 {
        take(&[id]);
    }
    let before = allocator::count();
    for id in 300..364 {
        take(&[id]);
    }
    allocator::count() - before
}

/// One test, so that no other allocates meanwhile.
#[test]
fn nothing_is_allocated_between_two_tokens() {
    let wild = Sampling {
        temperature: 2.0,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.1,
    };
    let whole = Sampling { top_k: 0, ..wild };
    // As published, and with a head of which rows are read as they are needed.
    let home = tempfile::tempdir().unwrap();
    let pack = home.path().join("a.pack");
    let pool = Pool::new(Isa::best(), 1);
    let options = PackOptions::default();
    pack_checkpoint(&fixtures(), &pack, options, &pool, &mut |_, _| {}).unwrap();
    let gemma4 = pack_of(&fixtures_gemma4(), Recipe::Balanced, home.path());
    for model in [&fixtures_gemma4(), &gemma4] {
        for (kv_type, threads) in [(KvType::F32, 2), (KvType::F16, 1), (KvType::Int8, 2)] {
            let more = decoder_allocations(model, kv_type, threads);
            let model = model.display();
            assert_eq!(more, 0, "{model}, {kv_type:?}, {threads} threads");
        }
    }
    for model in [fixtures(), pack, fixtures_gemma4()] {
        for (kv_type, threads) in [
            (KvType::F32, 1),
            (KvType::F32, 2),
            (KvType::F16, 1),
            (KvType::F16, 2),
            (KvType::Int8, 2),
        ] {
            let options = EngineOptions {
                threads,
                // Longer than the window and than the length from which attention is cut into parts.
                context: 1024,
                kv_type,
                // Lists of what may come, where it is guessed, are made anew.
                guess: GuessOptions {
                    tokens: 0,
                    ..GuessOptions::default()
                },
                ..EngineOptions::default()
            };
            let mut engine = Engine::open(&model, options).unwrap();
            // Threads that start late allocate when they do.
            allocations(&mut engine, Sampling::GREEDY, &[], 16);
            for (sampling, stop) in [
                (Sampling::GREEDY, &[][..]),
                (wild, &[]),
                (whole, &["\u{fffd}never said", "nor this"]),
            ] {
                let counts = allocations(&mut engine, sampling, stop, 64);
                let first = counts[0];
                let grown: Vec<usize> = counts.iter().map(|count| count - first).collect();
                assert!(
                    grown.iter().all(|&more| more == 0),
                    "{}, {kv_type:?}, {threads} threads, {sampling:?}: allocations since the first piece of text: {grown:?}",
                    model.display()
                );
            }
        }
    }
}
