//! The drafter as a source of guesses: it is read when it is first asked, and changes how long an answer takes, and nothing else.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{fixtures_gemma4, fixtures_gemma4_drafter, pack_of, pack_with_drafter};
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::grammar::{Grammar, GrammarLimits};
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::{Group, GroupState};
use gemmad::pack::Recipe;
use gemmad::pipeline::{
    Engine, EngineOptions, Generation, GuessCounts, Guessing, Message, Part, Request,
};
use serde_json::json;

fn engine(pack: &Path, kv_type: KvType, chunk: usize, guessing: Guessing) -> Engine {
    let options = EngineOptions {
        threads: 2,
        context: 512,
        prefill_chunk: chunk,
        kv_type,
        conversation_bytes: 1 << 28,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(pack, options).unwrap();
    engine.shortcuts_mut().guessing = guessing;
    engine
}

/// Reads the drafter, and waits for it.
fn read_drafter(engine: &Engine) {
    engine.prefetch(Group::Drafter);
    let start = Instant::now();
    while engine.group_state(Group::Drafter) != GroupState::Resident {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn counts(engine: &Engine) -> GuessCounts {
    let counts = engine.guess_counts();
    *counts.iter().find(|of| of.source == "drafter").unwrap()
}

const WARM: Sampling = Sampling {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.0,
    repetition_penalty: 1.2,
};

/// Texts of several turns, longer than the window, and their passes.
fn texts(
    engine: &mut Engine,
    sampling: Sampling,
    grammar: Option<&Grammar>,
) -> (Vec<String>, usize) {
    let (mut texts, mut passes) = (Vec::new(), 0);
    for said in ["Turn on the light.", "And then?", "Why?"] {
        let request = Request {
            conversation: Some("a".to_owned()),
            messages: Message::user(vec![Part::Text(said.to_owned())]),
            matformer: None,
            thinking: None,
            generation: Generation {
                tools: None,
                sampling,
                seed: 7,
                max_tokens: 40,
                stop: Vec::new(),
                grammar: grammar.cloned(),
            },
        };
        let answer = engine
            .answer(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        passes += answer.timing.passes;
        texts.push(answer.text);
    }
    (texts, passes)
}

#[test]
fn a_drafted_answer_is_the_plain_one() {
    let schema = json!({ "type": "object", "additionalProperties": false,
        "properties": { "note": { "type": "string", "maxLength": 30 } }, "required": ["note"] });
    let grammar = Grammar::json_schema(&schema, &GrammarLimits::default()).unwrap();
    let mut guessed = 0;
    for (recipe, kv_type, chunk) in [
        (Recipe::Float, KvType::F32, 16),
        (Recipe::Balanced, KvType::Int8, 5),
        (Recipe::Small, KvType::F16, 128),
    ] {
        let home = tempfile::tempdir().unwrap();
        let pack = pack_with_drafter(&fixtures_gemma4_drafter(), recipe, home.path()).unwrap();
        for sampling in [Sampling::GREEDY, WARM] {
            for grammar in [None, Some(&grammar)] {
                let mut plain = engine(&pack, kv_type, chunk, Guessing::Never);
                let (want, _) = texts(&mut plain, sampling, grammar);
                assert_eq!(counts(&plain).guessed, 0);
                let mut drafted = engine(&pack, kv_type, chunk, Guessing::Always);
                read_drafter(&drafted);
                let (got, passes) = texts(&mut drafted, sampling, grammar);
                assert_eq!(
                    got, want,
                    "{recipe:?}, {kv_type:?}, {sampling:?}, {grammar:?}"
                );
                let of = counts(&drafted);
                println!(
                    "{recipe:?}: {} of {} guesses, {passes} passes",
                    of.accepted, of.guessed
                );
                guessed += of.guessed;
            }
        }
    }
    assert!(guessed > 100, "{guessed} guesses");
}

/// Nothing of it is in memory before it is asked, and nothing after it was given back; answers do not wait for it.
#[test]
fn the_drafter_is_read_when_it_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let from = fixtures_gemma4_drafter();
    let pack = pack_with_drafter(&from, Recipe::Balanced, home.path()).unwrap();
    let state = |engine: &Engine| engine.group_state(Group::Drafter);
    let mut never = engine(&pack, KvType::F16, 16, Guessing::Never);
    texts(&mut never, Sampling::GREEDY, None);
    assert_eq!(state(&never), GroupState::Unloaded);
    let mut always = engine(&pack, KvType::F16, 16, Guessing::Always);
    assert_eq!(state(&always), GroupState::Unloaded);
    texts(&mut always, Sampling::GREEDY, None);
    assert_ne!(state(&always), GroupState::Unloaded);
    read_drafter(&always);
    texts(&mut always, Sampling::GREEDY, None);
    assert!(counts(&always).guessed > 0);
    let memory = always.memory();
    let of = memory.iter().find(|of| of.group == Group::Drafter).unwrap();
    assert!(of.mapped_bytes > 0 && of.state == GroupState::Resident);
    always.unload(Group::Drafter);
    assert_eq!(state(&always), GroupState::Unloaded);
}

/// A model without a drafter has no such source.
#[test]
fn a_model_without_a_drafter_asks_none() {
    let home = tempfile::tempdir().unwrap();
    let pack = pack_of(&fixtures_gemma4(), Recipe::Balanced, home.path());
    let engine = engine(&pack, KvType::F16, 16, Guessing::Always);
    let counts = engine.guess_counts();
    assert!(counts.iter().all(|of| of.source != "drafter"));
    assert!(!counts.is_empty());
}
