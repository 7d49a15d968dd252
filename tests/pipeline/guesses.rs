//! Guesses change how long an answer takes, and nothing else: with a source that is right, wrong or both by turns, every answer is the
//! one that the model gives token by token, and a conversation goes on from it as it would have.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common::{fixtures, fixtures_gemma4, fixtures_gemma4_mobile, pack_of};
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::grammar::{Grammar, GrammarLimits};
use gemmad::model::sampler::Sampling;
use gemmad::pack::Recipe;
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, Generation, Guessing, Message, Part, Request, Source, Stand,
};
use serde_json::json;

/// What an answer was, token by token, and how many of the guesses are right.
#[derive(Debug, Default)]
struct Known {
    answer: Vec<u32>,
    /// Every so many tokens of a guess is wrong; 0 for none.
    wrong_every: usize,
    guesses: usize,
}

/// Writes down what is written where it does not know, and guesses what was written where it does.
struct Told(Arc<Mutex<Known>>, bool);

impl Source for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        let mut known = self.0.lock().unwrap();
        if !self.1 {
            known.answer = stand.written.to_vec();
            return 0;
        }
        let (from, every) = (stand.written.len(), known.wrong_every);
        let rest = known.answer.iter().enumerate().skip(from).take(most);
        ids.extend(rest.map(|(at, &id)| match every {
            0 => id,
            every if at % every == every - 1 => id ^ 1,
            _ => id,
        }));
        known.guesses += ids.len();
        3
    }
}

fn engine(dir: &Path, kv_type: KvType, threads: usize, chunk: usize) -> Engine {
    let options = EngineOptions {
        threads,
        context: 512,
        prefill_chunk: chunk,
        kv_type,
        conversation_bytes: 1 << 28,
        ..EngineOptions::default()
    };
    Engine::open(dir, options).unwrap()
}

const WARM: Sampling = Sampling {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.0,
    repetition_penalty: 1.2,
};

fn grammars() -> Vec<Option<Grammar>> {
    let limits = GrammarLimits::default();
    let schema = json!({ "type": "object", "additionalProperties": false,
        "properties": {
            "device": { "enum": ["light", "fan"] },
            "level": { "type": "integer", "minimum": 3, "maximum": 250 },
            "note": { "type": "string", "maxLength": 12 } },
        "required": ["device", "level", "note"] });
    let schema = Grammar::json_schema(&schema, &limits).unwrap();
    let choices = [
        "turn on the kitchen light",
        "turn off the kitchen light",
        "stop",
    ];
    let choices = Grammar::choices(&choices.map(str::to_owned), &limits).unwrap();
    vec![
        None,
        Some(schema.clone()),
        Some(schema.with_confidence()),
        Some(choices.with_confidence()),
    ]
}

fn request(sampling: Sampling, grammar: Option<Grammar>, text: &str, stop: &[&str]) -> Request {
    Request {
        conversation: Some("a".to_owned()),
        messages: Message::user(vec![Part::Text(text.to_owned())]),
        matformer: None,
        thinking: None,
        generation: Generation {
            tools: None,
            sampling,
            seed: 7,
            max_tokens: 24,
            stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
            grammar,
        },
    }
}

/// What is seen of an answer, to the bit.
fn seen(engine: &mut Engine, request: &Request) -> (Answer, String) {
    let mut pieces = String::new();
    let answer = engine.answer(request, &mut |piece| {
        pieces.push_str(piece);
        pieces.push('|');
        ControlFlow::Continue(())
    });
    (answer.unwrap(), pieces)
}

#[track_caller]
fn assert_same(a: &(Answer, String), b: &(Answer, String), what: &str) {
    let of = |(answer, pieces): &(Answer, String)| {
        let confidence = answer.grammar_confidence.map(f32::to_bits);
        let tokens = answer.timing.tokens;
        (
            answer.text.clone(),
            pieces.clone(),
            answer.finish,
            confidence,
            tokens,
        )
    };
    assert_eq!(of(a), of(b), "{what}");
}

/// Every answer of a model, and the turn behind it, with and without guesses.
fn check(dir: &Path, kv_type: KvType, threads: usize, chunk: usize) {
    let known = Arc::new(Mutex::new(Known::default()));
    let mut fewer = 0;
    for grammar in grammars() {
        for sampling in [Sampling::GREEDY, WARM] {
            let stops: &[&[&str]] = match grammar {
                None => &[&[], &["e", " t"]],
                Some(_) => &[&[]],
            };
            for &stop in stops {
                let first = request(sampling, grammar.clone(), "Turn on the light.", stop);
                let second = request(sampling, None, "And then?", &[]);
                let both = |guessing: Guessing, knows: bool| {
                    let mut engine = engine(dir, kv_type, threads, chunk);
                    engine.shortcuts_mut().guessing = guessing;
                    engine.add_guesses(Box::new(Told(Arc::clone(&known), knows)));
                    let first = seen(&mut engine, &first);
                    if !knows && guessing == Guessing::Always {
                        // It writes down what is about to be written, not what comes of it.
                        return [first.clone(), first];
                    }
                    [first, seen(&mut engine, &second)]
                };
                let plain = both(Guessing::Never, false);
                both(Guessing::Always, false);
                for wrong_every in [0, 2, 3] {
                    known.lock().unwrap().wrong_every = wrong_every;
                    let guessed = both(Guessing::Always, true);
                    let what = format!(
                        "{}, {kv_type:?}, {threads} threads, {chunk} a chunk, {grammar:?}, {sampling:?}, {stop:?}, every {wrong_every}",
                        dir.display()
                    );
                    assert_same(&plain[0], &guessed[0], &what);
                    assert_same(&plain[1], &guessed[1], &what);
                    let passes = |answers: &[(Answer, String); 2]| answers[0].0.timing.passes;
                    fewer += usize::from(passes(&guessed) < passes(&plain));
                }
            }
        }
    }
    assert!(known.lock().unwrap().guesses > 100);
    assert!(fewer > 10, "{fewer} answers took fewer passes");
}

#[test]
fn answers_of_gemma3n_are_the_same() {
    check(&fixtures(), KvType::F32, 2, 16);
    check(&fixtures(), KvType::Int8, 1, 3);
}

#[test]
fn answers_of_gemma4_are_the_same() {
    check(&fixtures_gemma4(), KvType::F16, 2, 16);
}

#[test]
fn answers_of_packs_are_the_same() {
    let home = tempfile::tempdir().unwrap();
    let pack = |from: PathBuf, recipe, name: &str| {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        pack_of(&from, recipe, &dir)
    };
    check(&pack(fixtures(), Recipe::Balanced, "a"), KvType::F16, 2, 16);
    check(
        &pack(fixtures_gemma4_mobile(), Recipe::Mobile, "c"),
        KvType::F32,
        1,
        128,
    );
    check(
        &pack(fixtures_gemma4(), Recipe::Small, "b"),
        KvType::Int8,
        2,
        16,
    );
}
