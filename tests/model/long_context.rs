//! A context filled to its end: the longest one of the published models, and what is said beyond it.

use crate::common::fixtures;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Slice, Tokens, no_probe};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::weights::Checkpoint;
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
