//! The LM head in two planes: what is chosen by few rows of the second is what all of it would choose.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::common::fixtures;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Shortcuts, Slice, TextError, Tokens, no_probe};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::grammar::{GrammarLimits, TokenSet};
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::Checkpoint;
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, Generation, Grammar, Message, Part, Request,
};
use kernels::{Isa, Pool};
use tempfile::TempDir;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn packed(from: &Path) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let options = PackOptions {
        recipe: Recipe::Balanced,
        force: false,
        ..PackOptions::default()
    };
    let pool = Pool::new(Isa::best(), 2);
    pack_checkpoint(from, &to, options, &pool, &mut |_, _| {}).unwrap();
    (home, to)
}

/// A model behind whose tokens all hidden states are there.
struct Bench {
    model: TextModel,
    pool: Pool,
    work: Workspace,
}

/// Tokens of a prompt.
const TOKENS: usize = 64;

impl Bench {
    fn open(pack: &Path, pool: Pool) -> Bench {
        let config = Config::load(pack).unwrap();
        let model = TextModel::load(&Checkpoint::open(pack).unwrap(), &config.text).unwrap();
        Bench {
            work: Workspace::new(&config.text, TOKENS),
            model,
            pool,
        }
    }

    /// Takes a prompt of random ids, another one for each `seed`.
    fn prompt(&mut self, seed: u64) -> Result<(), TextError> {
        let config = self.model.config();
        let vocabulary = self.model.text_vocab_size() as u64;
        let mut state = seed;
        let ids: Vec<u32> = (0..TOKENS)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(seed | 1);
                ((state >> 33) % vocabulary) as u32
            })
            .collect();
        let slice = Slice::full(&config.layers());
        let mut cache = KvCache::new(&config.layers(), KvType::F16, TOKENS, TOKENS);
        let (pool, work) = (&self.pool, &mut self.work);
        self.model.extend(
            pool,
            &mut cache,
            work,
            Tokens {
                shortcuts: Shortcuts::ALL_LOGITS,
                ..Tokens::new(&ids, &slice)
            },
            &mut no_probe,
        )
    }

    fn logits(&mut self, token: usize, exact: Exact<'_>) -> Vec<f32> {
        let mut out = vec![0.0; self.model.text_vocab_size()];
        self.model
            .logits(&self.pool, &mut self.work, token, exact, &mut out)
            .unwrap();
        out
    }
}

/// Ids and bits of the best, in order.
fn best(logits: &[f32], count: usize, allowed: impl Fn(u32) -> bool) -> Vec<(u32, u32)> {
    let mut best: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    best.retain(|&(id, _)| allowed(id));
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    best.truncate(count);
    best.into_iter()
        .map(|(id, logit)| (id, logit.to_bits()))
        .collect()
}

/// 2 × 32 × 64 hidden states: for none is another token the best, and none of the 64 best another one or elsewhere. Few allowed tokens
/// lie far from the best of all.
#[test]
fn the_best_are_those_of_the_whole_head() {
    for from in [fixtures(), demo()] {
        let (_home, pack) = packed(&from);
        let mut bench = Bench::open(&pack, Pool::new(Isa::best(), 2));
        let vocabulary = bench.model.text_vocab_size();
        let few: Vec<u32> = (0..vocabulary as u32).filter(|id| id % 13 == 5).collect();
        let few = TokenSet::of(&few, vocabulary);
        let (mut disagreements, mut rows, mut states) = (0, 0, 0);
        for seed in 0..32 {
            bench.prompt(seed).unwrap();
            for token in 0..TOKENS {
                let whole = bench.logits(token, Exact::All);
                states += 1;
                for (count, within) in [(1, None), (64, None), (1, Some(&few)), (20, Some(&few))] {
                    let before = bench.work.second_plane_rows();
                    let got = bench.logits(token, Exact::Best { count, within });
                    if count == 1 && within.is_none() {
                        rows += bench.work.second_plane_rows() - before;
                    }
                    disagreements +=
                        usize::from(best(&got, count, |_| true) != best(&whole, count, |_| true));
                    let allowed = |id| few.contains(id);
                    disagreements += usize::from(
                        within.is_some()
                            && best(&got, count, allowed) != best(&whole, count, allowed),
                    );
                }
            }
        }
        let rows = rows as f64 / f64::from(states);
        println!(
            "{}: {rows:.1} rows of {vocabulary} decide the best",
            from.display()
        );
        assert_eq!(disagreements, 0, "of {states} hidden states");
        assert!(rows < vocabulary as f64 / 10.0, "{rows}");
    }
}

/// What is mapped is read ahead, locked and counted as resident.
#[test]
fn the_second_plane_is_not_mapped() {
    let (_home, pack) = packed(&demo());
    let checkpoint = Checkpoint::open(&pack).unwrap();
    let second = checkpoint
        .tensors()
        .find(|info| info.name.ends_with("embed_tokens.residual"))
        .unwrap();
    assert_eq!(second.parameters(), 0, "they are those of the first plane");
    let file = pack.join("text.safetensors").metadata().unwrap().len();
    let config = Config::load(&pack).unwrap();
    let model = TextModel::load(&checkpoint, &config.text).unwrap();
    assert!(model.weights().mapped_bytes() <= file - second.bytes);
}

#[test]
fn the_second_plane_is_read_whole_where_all_is_to_be_exact() {
    let (_home, pack) = packed(&demo());
    let mut bench = Bench::open(&pack, Pool::new(Isa::best(), 2));
    bench.prompt(1).unwrap();
    let vocabulary = bench.model.text_vocab_size() as u64;
    let exact = Exact::Best {
        count: 1,
        within: None,
    };
    let whole = bench.logits(0, Exact::All);
    assert_eq!(bench.work.second_plane_rows(), vocabulary);
    assert_ne!(bench.logits(0, exact), whole, "few rows are lifted");
    assert!(bench.work.second_plane_rows() < 2 * vocabulary);
}

#[test]
fn picked_tokens_have_the_logits_of_the_whole_head() {
    let (_home, pack) = packed(&demo());
    let mut bench = Bench::open(&pack, Pool::new(Isa::best(), 2));
    let vocabulary = bench.model.text_vocab_size() as u32;
    bench.prompt(2).unwrap();
    let whole = bench.logits(9, Exact::All);
    for ids in [
        vec![],
        vec![0],
        vec![vocabulary - 1],
        vec![3, 4, 5, 77, 1000],
    ] {
        let mut got = vec![0.0; whole.len()];
        let (pool, work) = (&bench.pool, &mut bench.work);
        bench
            .model
            .logits_of(pool, work, 9, &ids, &mut got)
            .unwrap();
        for (id, got) in (0..).zip(got) {
            let want = match ids.contains(&id) {
                true => whole[id as usize],
                false => f32::NEG_INFINITY,
            };
            assert_eq!(got.to_bits(), want.to_bits(), "{id} of {ids:?}");
        }
    }
}

/// Also which rows are lifted depends on no instruction set and no number of threads.
#[test]
fn every_instruction_set_lifts_the_same_rows() {
    let (_home, pack) = packed(&fixtures());
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut bench = Bench::open(&pack, Pool::new(isa, threads));
            bench.prompt(3).unwrap();
            let exact = Exact::Best {
                count: 10,
                within: None,
            };
            let bits = |logit: &f32| logit.to_bits();
            let got: Vec<u32> = (0..TOKENS)
                .flat_map(|token| {
                    bench
                        .logits(token, exact)
                        .iter()
                        .map(bits)
                        .collect::<Vec<_>>()
                })
                .collect();
            assert!(
                first.get_or_insert_with(|| got.clone()) == &got,
                "{isa}, {threads} threads"
            );
        }
    }
}

fn ask(engine: &mut Engine, sampling: Sampling, seed: u64, grammar: Option<Grammar>) -> Answer {
    let request = Request {
        conversation: None,
        messages: Message::user(vec![Part::Text(
            "Turn on the kitchen light, please.".into(),
        )]),
        matformer: None,
        thinking: None,
        generation: Generation {
            sampling,
            seed,
            max_tokens: 24,
            stop: Vec::new(),
            grammar,
            tools: None,
        },
    };
    engine
        .answer(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

#[test]
fn answers_are_those_of_the_whole_head() {
    let wild = Sampling {
        temperature: 1.5,
        top_k: 40,
        ..Sampling::PUBLISHED
    };
    let of_all = Sampling { top_k: 0, ..wild };
    let penalised = |repetition_penalty, of| Sampling {
        repetition_penalty,
        ..of
    };
    let samplings = [
        Sampling::GREEDY,
        wild,
        of_all,
        penalised(1.3, Sampling::GREEDY),
        penalised(1.3, wild),
        penalised(0.8, wild),
    ];
    let limits = GrammarLimits::default();
    let words = Grammar::regex("[a-z]+( [a-z]+)*!", &limits).unwrap();
    let choices = ["the kitchen", "the garden", "neither"].map(str::to_owned);
    let grammars = [
        None,
        Some(words.clone()),
        Some(words.with_confidence()),
        Some(Grammar::choices(&choices, &limits).unwrap()),
    ];
    let (_home, pack) = packed(&fixtures());
    let options = EngineOptions {
        threads: 2,
        context: 256,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&pack, options).unwrap();
    let mut confidences_differ = false;
    for sampling in samplings {
        for grammar in &grammars {
            for seed in 0..3 {
                let mut answers = [true, false].map(|head_planes| {
                    engine.shortcuts_mut().head_planes = head_planes;
                    ask(&mut engine, sampling, seed, grammar.clone())
                });
                let confidence = answers
                    .each_mut()
                    .map(|answer| answer.grammar_confidence.take());
                assert_eq!(answers[0].text, answers[1].text, "{sampling:?}");
                if let [Some(few), Some(all)] = confidence {
                    // Of tokens that do not matter, few have their second plane.
                    assert!((few / all - 1.0).abs() < 0.1, "{few} {all}");
                    confidences_differ |= few != all;
                }
            }
        }
    }
    assert!(confidences_differ, "the switch switches");
}

#[test]
fn a_second_plane_that_was_cut_off_is_told() {
    let (_home, pack) = packed(&demo());
    let mut bench = Bench::open(&pack, Pool::new(Isa::best(), 2));
    bench.prompt(4).unwrap();
    let file = pack.join("text.safetensors");
    let length = file.metadata().unwrap().len();
    let text = std::fs::File::options().write(true).open(&file).unwrap();
    // It is the last tensor of the file, so that everything else is still there.
    text.set_len(length - 64 * 1024).unwrap();
    let mut out = vec![0.0; bench.model.text_vocab_size()];
    let (pool, work) = (&bench.pool, &mut bench.work);
    let error = bench
        .model
        .logits(pool, work, 0, Exact::All, &mut out)
        .unwrap_err();
    assert!(error.to_string().contains("text.safetensors"), "{error}");
    assert!(matches!(error, TextError::Rows(_)));
    assert!(bench.prompt(5).is_err(), "nor are its embeddings there");
}
