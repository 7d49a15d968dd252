//! A model that thinks before it answers. The Gemma 4 here has random weights and, by `suppress_tokens`, few words: at a high temperature it
//! begins and ends thoughts at every turn.

use std::ops::ControlFlow;
use std::path::Path;

use crate::common::{fixtures, fixtures_gemma4};
use gemmad::model::grammar::{Grammar, GrammarLimits};
use gemmad::model::prompt::Role;
use gemmad::model::sampler::Sampling;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, FinishReason, Generation, Message, Part, Request,
};
use serde_json::json;
use tempfile::TempDir;

const CHANCE: Sampling = Sampling {
    temperature: 100.0,
    ..Sampling::GREEDY
};

/// The checkpoint with a model that says nothing but these tokens.
fn few_words(words: &[u32]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures_gemma4()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let ids = 0..tokenizer().vocab_size() as u32;
    let suppressed: Vec<u32> = ids.filter(|id| !words.contains(id)).collect();
    let config = json!({"suppress_tokens": suppressed}).to_string();
    std::fs::write(dir.path().join("generation_config.json"), config).unwrap();
    dir
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&fixtures_gemma4()).unwrap()
}

/// The marks of thoughts, the end of a turn, and what texts are made of.
fn words(texts: &[&str]) -> Vec<u32> {
    let tokenizer = tokenizer();
    let control = tokenizer.control();
    let thoughts = control.thoughts.unwrap();
    let mut words = vec![thoughts.start, thoughts.end, control.end_of_turn];
    words.extend(texts.iter().flat_map(|text| tokenizer.encode_text(text)));
    words
}

fn engine(dir: &Path) -> Engine {
    let options = EngineOptions {
        threads: 1,
        context: 512,
        prefill_chunk: 16,
        conversation_bytes: 1 << 30,
        ..EngineOptions::default()
    };
    Engine::open(dir, options).unwrap()
}

fn request(text: &str, thinking: Option<bool>, seed: u64) -> Request {
    Request {
        conversation: None,
        messages: Message::user(vec![Part::Text(text.to_owned())]),
        matformer: None,
        thinking,
        generation: Generation {
            sampling: CHANCE,
            seed,
            max_tokens: 40,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    }
}

fn one_of(choices: &[&str], request: Request) -> Request {
    let choices: Vec<String> = choices.iter().map(|&text| text.to_owned()).collect();
    let grammar = Grammar::choices(&choices, &GrammarLimits::default()).unwrap();
    let generation = Generation {
        grammar: Some(grammar.with_confidence()),
        ..request.generation
    };
    Request {
        generation,
        ..request
    }
}

/// The answer, and its text as it came.
fn ask(engine: &mut Engine, request: &Request) -> (Answer, String) {
    let mut streamed = String::new();
    let answer = engine.answer(request, &mut |piece| {
        streamed.push_str(piece);
        ControlFlow::Continue(())
    });
    (answer.unwrap(), streamed)
}

#[test]
fn thoughts_are_beside_the_answer() {
    let dir = few_words(&words(&["a", "b", "c", "d", "e", "f", "g", "h"]));
    let mut engine = engine(dir.path());
    let mut both = 0;
    for seed in 0..40 {
        // Thoughts that nobody asked for are none of the text either.
        let thinking = [None, Some(false), Some(true)][seed as usize % 3];
        let (answer, streamed) = ask(&mut engine, &request("Why?", thinking, seed));
        assert_eq!(streamed, answer.text);
        let thoughts = answer.thoughts.unwrap_or_default();
        let letters = |text: &str| text.chars().filter(|c| ('a'..='h').contains(c)).count();
        assert_eq!(letters(&answer.text), answer.text.len());
        // Marks are tokens too.
        assert!(letters(&answer.text) + letters(&thoughts) <= answer.timing.tokens);
        both += usize::from(!answer.text.is_empty() && !thoughts.is_empty());
    }
    assert!(both > 5, "{both}");
}

#[test]
fn a_grammar_holds_the_text_behind_the_thought() {
    let dir = few_words(&words(&["yes", "no", "a", "b"]));
    let mut engine = engine(dir.path());
    let mut thought = 0;
    for seed in 0..40 {
        let asked = one_of(&["yes", "no"], request("Is it?", Some(true), seed));
        let (answer, streamed) = ask(&mut engine, &asked);
        assert_eq!(streamed, answer.text);
        let confidence = answer.grammar_confidence.unwrap();
        assert!((0.0..=1.0).contains(&confidence), "{confidence}");
        // The end of a turn within a thought ends nothing: only too many tokens do.
        match answer.finish {
            FinishReason::Stop => assert!(["yes", "no"].contains(&answer.text.as_str())),
            other => {
                assert_eq!(other, FinishReason::MaxTokens);
                assert_eq!(answer.timing.tokens, 40);
            }
        }
        thought += usize::from(answer.thoughts.is_some() && answer.finish == FinishReason::Stop);
        let asked = one_of(&["yes", "no"], request("Is it?", None, seed));
        let (answer, _) = ask(&mut engine, &asked);
        assert_eq!((answer.thoughts, answer.finish), (None, FinishReason::Stop));
    }
    assert!(thought > 5 && thought < 40, "{thought}");
}

#[test]
fn a_conversation_goes_on_without_what_was_thought() {
    let said = "no";
    let dir = few_words(&words(&[said, "a", "b", "c"]));
    let mut engine = engine(dir.path());
    let mut thought = 0;
    for seed in 0..20 {
        let conversation = Some(format!("c{seed}"));
        let first = Request {
            conversation: conversation.clone(),
            ..one_of(&[said], request("Is it?", Some(true), seed))
        };
        let (first, _) = ask(&mut engine, &first);
        if first.finish != FinishReason::Stop {
            continue;
        }
        thought += usize::from(first.thoughts.is_some());
        let next = request("Why?", None, seed);
        let (next, _) = ask(
            &mut engine,
            &Request {
                conversation,
                ..next
            },
        );
        assert_eq!(next.resumed, Some(true));

        let message = |role, text: &str| Message {
            role,
            content: vec![Part::Text(text.to_owned())],
        };
        let whole = Request {
            messages: vec![
                message(Role::User, "Is it?"),
                message(Role::Assistant, said),
                message(Role::User, "Why?"),
            ],
            ..request("", Some(true), seed)
        };
        let (whole, _) = ask(&mut engine, &whole);
        assert_eq!((next.text, next.thoughts), (whole.text, whole.thoughts));
    }
    assert!(thought > 3, "{thought}");
}

#[test]
fn whether_it_thinks_is_of_the_whole_conversation() {
    let dir = few_words(&words(&["a", "b"]));
    let mut engine = engine(dir.path());
    let mut resumed = |thinking| {
        let request = Request {
            conversation: Some("x".to_owned()),
            ..request("Why?", thinking, 1)
        };
        ask(&mut engine, &request).0.resumed.unwrap()
    };
    assert!(!resumed(Some(true)));
    assert!(resumed(None) && resumed(Some(true)));
    assert!(!resumed(Some(false)));
    assert!(resumed(None) && resumed(Some(false)));
    assert!(!resumed(Some(true)));
}

#[test]
fn a_model_that_cannot_think_says_so() {
    let mut engine = engine(&fixtures());
    let refused = engine.answer(&request("Why?", Some(true), 0), &mut |_| {
        ControlFlow::Continue(())
    });
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Gemma 3n answers without thinking first: leave out `thinking`, or use a model that does, such as Gemma 4"
    );
    let plain = Request {
        generation: Generation {
            sampling: Sampling::GREEDY,
            ..request("Why?", Some(false), 0).generation
        },
        ..request("Why?", Some(false), 0)
    };
    assert_eq!(ask(&mut engine, &plain).0.thoughts, None);
}

/// Each of the three ends an answer, although generation_config.json does not say so here; what stands in the places of media, and behind them, is never said.
#[test]
fn some_tokens_end_an_answer_and_some_are_never_said() {
    let tokenizer = tokenizer();
    for end in ["<eos>", "<turn|>", "<|tool_response>"] {
        let dir = few_words(&[tokenizer.id_of(end).unwrap()]);
        let (answer, _) = ask(&mut engine(dir.path()), &request("Why?", None, 0));
        assert_eq!(
            (answer.text.as_str(), answer.finish),
            ("", FinishReason::Stop)
        );
        assert_eq!(answer.timing.tokens, 0);
    }
    let silent = [
        "<|image|>",
        "<|audio|>",
        "<|video|>",
        "<image|>",
        "<audio|>",
    ];
    let mut words: Vec<u32> = silent.map(|text| tokenizer.id_of(text).unwrap()).into();
    words.extend(tokenizer.encode_text("a"));
    let dir = few_words(&words);
    let (answer, _) = ask(&mut engine(dir.path()), &request("Why?", None, 0));
    assert_eq!(answer.text, "a".repeat(40));
}
