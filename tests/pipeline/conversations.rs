//! Conversations whose keys and values are kept: a later turn gives what the whole conversation at once gives, and memory is
//! bounded.

use std::ops::ControlFlow;
use std::path::Path;

use crate::common::fixtures;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Slice, Tokens, no_probe};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::template::Template;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::grammar::{Grammar, GrammarLimits};
use gemmad::model::prompt::{ChatTemplate, Message, PromptOptions, Role};
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::{
    self, Answer, Engine, EngineError, EngineOptions, FinishReason, Generation, Part, Request,
};
use kernels::{Isa, Pool};

const CONTEXT: usize = 512;

fn engine(conversation_bytes: u64) -> Engine {
    engine_of(&fixtures(), conversation_bytes)
}

fn engine_of(checkpoint: &Path, conversation_bytes: u64) -> Engine {
    let options = EngineOptions {
        threads: 1,
        context: CONTEXT,
        prefill_chunk: 16,
        conversation_bytes,
        ..EngineOptions::default()
    };
    Engine::open(checkpoint, options).unwrap()
}

fn request(conversation: &str, system: Option<&str>, text: &str, tokens: usize) -> Request {
    Request {
        conversation: Some(conversation.to_owned()),
        messages: pipeline::Message::with_instructions(
            system.map(str::to_owned),
            vec![Part::Text(text.to_owned())],
        ),
        matformer: None,
        thinking: None,
        generation: Generation {
            sampling: Sampling::GREEDY,
            seed: 0,
            max_tokens: tokens,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    }
}

fn ask(engine: &mut Engine, request: &Request) -> Answer {
    engine
        .answer(request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// A request whose answer is `text`, whatever the model thinks.
fn dictated(request: Request, text: &str) -> Request {
    let grammar = Grammar::choices(&[text.to_owned()], &GrammarLimits::default()).unwrap();
    let generation = Generation {
        max_tokens: 100,
        grammar: Some(grammar),
        ..request.generation
    };
    Request {
        generation,
        ..request
    }
}

/// The likeliest text behind a whole conversation, by the text model alone.
fn at_once(engine: &Engine, messages: &[Message], tokens: usize) -> String {
    let ids = Template
        .render(engine.tokenizer(), messages, &PromptOptions::ASK)
        .unwrap()
        .ids;
    let end = engine.tokenizer().control().end_of_turn;
    let pool = Pool::new(Isa::from_environment().unwrap(), 1);
    let mut bytes = Vec::new();
    let mut answer = Vec::new();
    let config = Config::load(&fixtures()).unwrap();
    let model = TextModel::load(&Checkpoint::open(&fixtures()).unwrap(), &config.text).unwrap();
    let slice = Slice::full(model.layers());
    let mut cache = KvCache::new(model.layers(), KvType::F32, CONTEXT, 16);
    let mut work = Workspace::new(model.config(), 16);
    let mut logits = vec![0.0; model.text_vocab_size()];
    let mut next = ids;
    while answer.len() < tokens {
        model
            .extend(
                &pool,
                &mut cache,
                &mut work,
                Tokens::new(&next, &slice),
                &mut no_probe,
            )
            .unwrap();
        let last = work.ready() - 1;
        model
            .logits(&pool, &mut work, last, Exact::All, &mut logits)
            .unwrap();
        let best = (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a });
        let id = u32::try_from(best.unwrap()).unwrap();
        if id == end {
            break;
        }
        answer.push(id);
        next = vec![id];
    }
    for id in answer {
        engine.tokenizer().append_token_bytes(id, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_later_turn_gives_what_the_whole_conversation_gives() {
    let mut engine = engine(1 << 30);
    let (first, said) = ("Turn on the kitchen light, please.", "The light is on.");
    let second = "And now the one in the hall, which has been off for days, as everybody knows.";
    let third = "Thank you.";
    let system = "You are a lamp.";
    let answer = ask(
        &mut engine,
        &dictated(request("a", Some(system), first, 0), said),
    );
    assert_eq!((answer.text.as_str(), answer.resumed), (said, Some(false)));
    assert_eq!(answer.finish, FinishReason::Stop);

    // Twice from the same point would not be the same conversation: the second turn is dictated, too.
    let reply = "It is bright in the hall.";
    let answer = ask(&mut engine, &dictated(request("a", None, second, 0), reply));
    assert_eq!((answer.text.as_str(), answer.resumed), (reply, Some(true)));
    // Only the new turn is read.
    let new = engine.tokenizer().encode_text(second).len();
    assert!(answer.timing.prompt_tokens < new + 16);

    let answer = ask(&mut engine, &request("a", None, third, 12));
    let user = |text: &str| Message::text(Role::User, text);
    let model = |text: &str| Message::text(Role::Assistant, text);
    let whole = [
        Message::text(Role::System, system),
        user(first),
        model(said),
        user(second),
        model(reply),
        user(third),
    ];
    assert_eq!(answer.text, at_once(&engine, &whole, 12));
    // What was said before does matter.
    assert_ne!(answer.text, at_once(&engine, &[user(third)], 12));
}

#[test]
fn it_begins_anew_where_it_must_and_says_so() {
    let mut engine = engine(1 << 30);
    let alone = ask(&mut engine, &request("x", None, "Hello.", 8));
    assert_eq!(alone.resumed, Some(false));
    assert_eq!(
        ask(&mut engine, &request("x", None, "Hello.", 8)).resumed,
        Some(true)
    );
    // Other instructions.
    let again = ask(&mut engine, &request("x", Some("Be brief."), "Hello.", 8));
    assert_eq!(again.resumed, Some(false));
    // The same, and none, go on.
    for system in [Some("Be brief."), None] {
        let again = ask(&mut engine, &request("x", system, "Hello.", 8));
        assert_eq!(again.resumed, Some(true), "{system:?}");
    }
    // The context is full.
    let mut turns = 0;
    loop {
        let again = ask(&mut engine, &request("x", None, "Hello.", 60));
        turns += 1;
        if again.resumed == Some(false) {
            assert!(again.text.starts_with(&alone.text));
            break;
        }
        assert!(turns < 20);
    }
    assert!(turns > 2);
    // Without a name nothing is kept, and nothing is said of it.
    let before = engine.kept_bytes();
    let nameless = Request {
        conversation: None,
        ..request("", None, "Hello.", 8)
    };
    assert_eq!(ask(&mut engine, &nameless).resumed, None);
    assert_eq!(engine.kept_bytes(), before);
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut one = engine(1 << 30);
    ask(&mut one, &request("a", None, "Hello there.", 8));
    let bytes = one.kept_bytes();
    assert!(bytes > 0);

    let mut engine = engine(bytes * 3 + bytes / 2);
    let resumed = |engine: &mut Engine, name: &str| {
        let answer = ask(engine, &request(name, None, "Hello there.", 8));
        answer.resumed.unwrap()
    };
    for name in ["a", "b", "c"] {
        assert!(!resumed(&mut engine, name));
    }
    assert_eq!(engine.kept_bytes(), 3 * bytes);
    // Two turns of "a" are larger than one: "b", which was used longest ago, makes room.
    assert!(resumed(&mut engine, "a"));
    assert!(engine.kept_bytes() <= bytes * 3 + bytes / 2);
    assert!(resumed(&mut engine, "c"));
    assert!(!resumed(&mut engine, "b"));

    let mut none = self::engine(bytes / 2);
    assert!(!resumed(&mut none, "a") && !resumed(&mut none, "a"));
    assert_eq!(none.kept_bytes(), 0);
}

#[test]
fn a_slice_with_other_keys_and_values_is_refused() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let mut engine = engine_of(&demo, 1 << 30);
    ask(&mut engine, &request("a", None, "Hello.", 4));
    let other = Request {
        matformer: Some("half".to_owned()),
        ..request("a", None, "Hello.", 4)
    };
    let error = engine
        .answer(&other, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(matches!(error, EngineError::Text(_)), "{error}");
    assert!(error.to_string().contains("start a new conversation"));
    // It is still there for the slice that it began with.
    let again = ask(&mut engine, &request("a", None, "Hello.", 4));
    assert_eq!(again.resumed, Some(true));
}
