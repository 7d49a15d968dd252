//! A context filled to its end: the longest ones of the published models, and what is said beyond it.

use crate::common::{fixtures, fixtures_gemma4};
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, LayerShape, Slice, Tokens, no_probe};
use gemmad::model::family;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::weights::{Checkpoint, PleOptions};
use half::f16;
use kernels::{Isa, Pool};

struct Bench {
    model: TextModel,
    pool: Pool,
    full: Slice,
}

impl Bench {
    fn open() -> Bench {
        let config = Config::load(&fixtures()).unwrap();
        let checkpoint = Checkpoint::open(&fixtures()).unwrap();
        Bench {
            model: TextModel::load(&checkpoint, &config.text).unwrap(),
            pool: Pool::new(Isa::best(), 2),
            full: Slice::full(&config.text.layers()),
        }
    }
}

/// The longest context of the published models, by chunks that wrap the rings of the sliding layers differently.
#[test]
fn a_prompt_of_32768_tokens() {
    const CONTEXT: usize = 32_768;
    let bench = Bench::open();
    let config = bench.model.config();
    let vocabulary = bench.model.text_vocab_size();
    let ids: Vec<u32> = (0..CONTEXT as u32)
        .map(|i| i.wrapping_mul(2_654_435_761) >> 8)
        .map(|hash| hash % vocabulary as u32)
        .collect();
    let mut runs: Vec<Vec<f32>> = Vec::new();
    for chunk in [512, 1000] {
        let mut cache = KvCache::new(&config.layers(), KvType::F16, CONTEXT, chunk);
        let mut work = Workspace::new(config, chunk);
        let mut extend = |ids: &[u32]| {
            let (pool, slice) = (&bench.pool, &bench.full);
            bench.model.extend(
                pool,
                &mut cache,
                &mut work,
                Tokens::new(ids, slice),
                &mut no_probe,
            )
        };
        extend(&ids).unwrap();
        let error = extend(&[2]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the prompt needs 1 tokens and 32768 of the context's 32768 are in use: shorten it or raise the context (at most {})",
                config.max_position_embeddings
            )
        );
        let mut logits = vec![0.0; vocabulary];
        bench
            .model
            .logits(&bench.pool, &mut work, 0, Exact::All, &mut logits)
            .unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()));
        runs.push(logits);
    }
    for (at, (a, b)) in runs[0].iter().zip(&runs[1]).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "logit {at}: {a:e} and {b:e}");
    }
}

#[test]
fn a_full_context_is_an_error_and_changes_nothing() {
    let bench = Bench::open();
    let config = bench.model.config();
    let mut cache = KvCache::new(&config.layers(), KvType::F32, 10, 4);
    let mut work = Workspace::new(config, 4);
    let mut extend = |ids: &[u32]| {
        let result = bench.model.extend(
            &bench.pool,
            &mut cache,
            &mut work,
            Tokens::new(ids, &bench.full),
            &mut no_probe,
        );
        (result.map_err(|e| e.to_string()), cache.position())
    };
    assert_eq!(extend(&[2; 8]), (Ok(()), 8));
    let (error, position) = extend(&[2; 3]);
    assert!(error.unwrap_err().contains("context"));
    assert_eq!(position, 8);
    assert_eq!(extend(&[2; 2]), (Ok(()), 10));
    let (error, _) = extend(&[u32::MAX]);
    assert!(error.is_err());
}

/// Gemma 4's longest context but for a few tokens, of keys and values that no token made; these tokens then get the same logits
/// in chunks of any size, with any number of threads.
#[test]
fn the_last_of_131072_tokens() {
    const CONTEXT: u64 = 131_072;
    const LAST: usize = 21;
    let dir = fixtures_gemma4();
    let architecture = family::load(&dir).unwrap();
    let layers = &architecture.spec().layers;
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let full = Slice::full(layers);

    let before = CONTEXT - LAST as u64;
    let rows = |layer: &LayerShape| {
        let slots = layer.window.unwrap_or(CONTEXT as usize) as u64;
        2 * layer.kv_heads as u64 * before.min(slots) * layer.head_dim as u64
    };
    let own = layers.iter().filter(|layer| layer.kv_of.is_none());
    let count: u64 = own.map(rows).sum();
    let mut bytes = before.to_le_bytes().to_vec();
    for i in 0..count as u32 {
        let random = i.wrapping_mul(2_654_435_761) >> 16;
        let float = random as f32 / 32_768.0 - 1.0;
        bytes.extend(f16::from_f32(float).to_le_bytes());
    }

    let mut runs: Vec<Vec<f32>> = Vec::new();
    for (chunk, threads) in [(1, 1), (LAST, 2), (8, 3)] {
        let pool = Pool::new(Isa::best(), threads);
        let mut decoder = architecture
            .decoder(&checkpoint, &PleOptions::default(), chunk, &mut |_, _| {})
            .unwrap();
        let mut cache = KvCache::new(layers, KvType::F16, CONTEXT as usize, chunk);
        assert!(cache.restore_bytes(&bytes, &full));
        let ids: Vec<u32> = (10..10 + LAST as u32).collect();
        let tokens = Tokens::new(&ids, &full);
        decoder
            .extend(&pool, &mut cache, tokens, &mut no_probe)
            .unwrap();
        assert_eq!(cache.position(), CONTEXT as usize);
        let mut logits = vec![0.0; architecture.spec().vocab_size];
        let last = decoder.ready() - 1;
        decoder
            .logits(&pool, last, Exact::All, &mut logits)
            .unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()));
        runs.push(logits);
    }
    for other in &runs[1..] {
        for (at, (a, b)) in runs[0].iter().zip(other).enumerate() {
            assert!(a.to_bits() == b.to_bits(), "logit {at}: {a:e} and {b:e}");
        }
    }
}
