//! Answers under a grammar: what a model of random weights writes fits it, whatever it would rather have written.
//!
//! Schemas and patterns are judged by the crate `jsonschema`, sets of allowed tokens by comparing bytes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::fixtures;
use gemmad::model::grammar::{
    Compiler, Constraint, Grammar, GrammarError, GrammarLimits, Next, TokenSet,
};
use gemmad::model::sampler::Sampling;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::pipeline::{Answer, Engine, EngineError, EngineOptions, FinishReason, Message};
use gemmad::pipeline::{Generation, Part, Request};
use serde_json::{Value, json};

fn engine() -> Engine {
    let options = EngineOptions {
        threads: 2,
        context: 512,
        ..EngineOptions::default()
    };
    Engine::open(&fixtures(), options).unwrap()
}

const WILD: Sampling = Sampling {
    temperature: 2.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
};

fn request(grammar: Grammar, sampling: Sampling, seed: u64) -> Request {
    Request {
        conversation: None,
        messages: Message::user(vec![Part::Text("Turn on the kitchen light.".to_owned())]),
        matformer: None,
        thinking: None,
        generation: Generation {
            sampling,
            seed,
            max_tokens: 300,
            stop: Vec::new(),
            grammar: Some(grammar),
            tools: None,
        },
    }
}

fn ask(engine: &mut Engine, request: &Request) -> Answer {
    engine
        .answer(request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn schema(schema: &Value) -> Grammar {
    Grammar::json_schema(schema, &GrammarLimits::default()).unwrap()
}

fn regex(regex: &str) -> Grammar {
    Grammar::regex(regex, &GrammarLimits::default()).unwrap()
}

fn choices(choices: &[&str]) -> Grammar {
    let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
    Grammar::choices(&choices, &GrammarLimits::default()).unwrap()
}

/// Answers of many seeds, those that were cut by the number of tokens left out; at least `least` must be complete.
fn complete(engine: &mut Engine, grammar: &Grammar, least: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for seed in 0..12 {
        for sampling in [Sampling::GREEDY, Sampling::PUBLISHED, WILD] {
            let answer = ask(engine, &request(grammar.clone(), sampling, seed));
            match answer.finish {
                FinishReason::Stop => texts.push(answer.text),
                FinishReason::MaxTokens => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(texts.len() >= least, "only {} are complete", texts.len());
    texts
}

#[test]
fn answers_fit_their_schema() {
    let mut engine = engine();
    let schemas = [
        json!({ "type": "object", "additionalProperties": false,
                "properties": {
                    "device": { "enum": ["light", "fan", "gar\u{e7}on \u{1f600}"] },
                    "level": { "type": "integer", "minimum": 3, "maximum": 250 },
                    "areas": { "type": "array", "items": { "enum": ["hall", "garden"] },
                               "minItems": 1, "maxItems": 3 },
                    "note": { "type": "string", "maxLength": 12 },
                },
                "required": ["device", "level", "areas"] }),
        json!({ "anyOf": [
            { "type": "boolean" },
            { "type": "string", "pattern": "^[a-c]{2,9}$" },
            { "type": "array", "prefixItems": [{ "const": 1 }, { "type": "null" }], "items": false,
              "minItems": 2 },
        ] }),
        json!({ "$ref": "#/$defs/tree",
                "$defs": { "tree": { "type": "object", "additionalProperties": false, "required": ["v"],
                    "properties": { "v": { "enum": [1, 2] }, "left": { "$ref": "#/$defs/tree" } } } } }),
        json!({ "x-guidance": { "whitespace_flexible": false }, "type": "object",
                "properties": { "x": { "type": "number", "minimum": -1, "maximum": 1 } },
                "required": ["x"], "additionalProperties": false }),
    ];
    for (at, value) in schemas.iter().enumerate() {
        let validator = jsonschema::validator_for(value).unwrap();
        for text in complete(&mut engine, &schema(value), 20) {
            let parsed: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("schema {at}: {error}: {text:?}"));
            assert!(validator.is_valid(&parsed), "schema {at}: {text}");
            if at == 3 {
                assert!(!text.contains(' '), "{text:?}");
            }
        }
    }
}

#[test]
fn answers_match_their_expression() {
    let mut engine = engine();
    for expression in [
        r"[0-9]{1,3}(\.[0-9]+)? (°C|lux)",
        r"(on|off)(, (on|off)){0,3}\.",
        r"a/b\\c[^\x00-\x7F]",
    ] {
        let pattern = json!({ "pattern": format!("^(?:{expression})$") });
        let validator = jsonschema::validator_for(&pattern).unwrap();
        for text in complete(&mut engine, &regex(expression), 12) {
            assert!(validator.is_valid(&json!(text)), "{expression}: {text:?}");
        }
    }
}

const CHOICES: [&str; 7] = [
    "on",
    "on all night",
    "off",
    "caf\u{e9}",
    "\"quoted\" \\ back",
    "two\nlines",
    "\u{1f600}",
];

#[test]
fn answers_are_choices_and_every_choice_can_be() {
    let mut engine = engine();
    let grammar = choices(&CHOICES);
    let mut given = BTreeSet::new();
    for seed in 0..300 {
        let answer = ask(&mut engine, &request(grammar.clone(), WILD, seed));
        assert_eq!(answer.finish, FinishReason::Stop);
        assert!(CHOICES.contains(&answer.text.as_str()), "{:?}", answer.text);
        given.insert(answer.text);
    }
    assert!(given.len() >= 5, "{given:?}");
}

/// What the parser allows is what a comparison of bytes allows, in every state that the choices have.
#[test]
fn allowed_tokens_are_exactly_those_that_fit() {
    let tokenizer = Arc::new(Tokenizer::load(&fixtures()).unwrap());
    let vocabulary = 2048;
    let end = tokenizer.control().end_of_turn;
    let compiler = Compiler::new(&tokenizer, vocabulary, &[end]).unwrap();
    let mut states = 0;
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let mut constraint = compiler.compile(&choices(&CHOICES)).unwrap();
        let written: Vec<u8> = path
            .iter()
            .flat_map(|&id| tokenizer.token_bytes(id).unwrap())
            .collect();
        if !path.is_empty() {
            constraint.accept(&path).unwrap();
        }
        let rest: Vec<&[u8]> = CHOICES
            .iter()
            .filter_map(|choice| choice.as_bytes().strip_prefix(&written[..]))
            .collect();
        assert!(!rest.is_empty(), "{path:?}");
        states += 1;
        assert_eq!(constraint.is_complete(), rest == [b""], "{path:?}");
        if constraint.is_complete() {
            continue;
        }
        let fits = |id: u32| {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default();
            !bytes.is_empty()
                && !tokenizer.is_special(id)
                && rest.iter().any(|rest| rest.starts_with(&bytes))
        };
        match constraint.allowed().unwrap() {
            Next::Forced(ids) => {
                let bytes: Vec<u8> = ids
                    .iter()
                    .flat_map(|&id| tokenizer.token_bytes(id).unwrap())
                    .collect();
                assert!(rest.iter().all(|rest| rest.starts_with(&bytes)), "{path:?}");
                paths.push([path, ids].concat());
            }
            Next::Among(allowed) => {
                let mut expected: Vec<u32> =
                    (0..vocabulary as u32).filter(|&id| fits(id)).collect();
                paths.extend(expected.iter().map(|&id| [&path[..], &[id]].concat()));
                if rest.contains(&&b""[..]) {
                    expected.push(end);
                    expected.sort_unstable();
                }
                assert_eq!(allowed.iter().collect::<Vec<_>>(), expected, "{path:?}");
                assert_eq!(allowed.len(), expected.len());
            }
        }
    }
    assert!(states > 30, "{states}");
}

#[test]
fn probabilities_are_those_of_the_softmax() {
    let mut logits = vec![0.0; 70];
    logits[3] = 2.0_f32.ln();
    logits[69] = 27.0_f32.ln();
    logits[5] = f32::NEG_INFINITY;
    let set = TokenSet::of(&[3, 5, 69], 70);
    // 67 ones, 2, 27 and 0.
    assert!((set.probability(&logits) - 29.0 / 96.0).abs() < 1e-6);
    set.mask(&mut logits);
    let finite = logits.iter().filter(|logit| logit.is_finite()).count();
    assert_eq!(finite, 2);
    assert!((set.probability(&logits) - 1.0).abs() < 1e-6);
}

/// Confidence is the least mass over the tokens: looked at here from outside, with answers of one token.
#[test]
fn confidence_is_the_mass_of_what_was_allowed() {
    let mut engine = engine();
    let mass = |engine: &mut Engine, texts: &[&str]| {
        let grammar = choices(texts).with_confidence();
        let answer = ask(engine, &request(grammar, Sampling::GREEDY, 0));
        assert_eq!(answer.timing.tokens, 1, "{}", answer.text);
        answer.grammar_confidence.unwrap()
    };
    // Letters stand for one another: what is shared out among them is the same together.
    let letters = ["a", "b", "c", "d"];
    let all = mass(&mut engine, &letters);
    let halves = mass(&mut engine, &letters[..2]) + mass(&mut engine, &letters[2..]);
    assert!(all > 0.0 && all < 1.0, "{all}");
    assert!((all - halves).abs() < 1e-5 * all, "{all} {halves}");
    let unmeasured = ask(
        &mut engine,
        &request(choices(&letters), Sampling::GREEDY, 0),
    );
    assert_eq!(unmeasured.grammar_confidence, None);
}

/// Taking forced tokens together, and computing few rows of the head, change nothing.
#[test]
fn shortcuts_change_nothing() {
    let mut engine = engine();
    let command = json!({ "x-guidance": { "whitespace_flexible": false }, "anyOf": [
        { "type": "object", "properties": { "command": { "const": "turn_the_light_on_at_once" },
          "area": { "enum": ["kitchen cupboard", "garden"] } },
          "required": ["command", "area"], "additionalProperties": false },
        { "type": "object", "properties": { "command": { "const": "turn_everything_off" } },
          "required": ["command"], "additionalProperties": false },
    ] });
    let grammars = [
        schema(&command),
        choices(&["The first of the long choices", "The second one", "Another"]),
        regex("Lights: (on|off), doors: (open|closed)!"),
    ];
    let plain = *engine.shortcuts_mut();
    let mut answers = 0;
    for grammar in &grammars {
        for (grammar, seed) in [
            (grammar.clone(), 0),
            (grammar.clone(), 1),
            (grammar.clone().with_confidence(), 0),
            (grammar.clone().with_confidence(), 1),
        ] {
            for max_tokens in [300, 5] {
                let sampling = if seed == 0 { Sampling::GREEDY } else { WILD };
                let mut request = request(grammar.clone(), sampling, seed);
                request.generation.max_tokens = max_tokens;
                let mut first: Option<Answer> = None;
                for (head_rows, forced_runs) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    engine.shortcuts_mut().head_rows = head_rows;
                    engine.shortcuts_mut().forced_runs = forced_runs;
                    let answer = ask(&mut engine, &request);
                    answers += 1;
                    let first = first.get_or_insert_with(|| answer.clone());
                    assert_eq!(answer.text, first.text);
                    assert_eq!(answer.finish, first.finish);
                    assert_eq!(answer.timing.tokens, first.timing.tokens);
                    let both = answer.grammar_confidence.zip(first.grammar_confidence);
                    // Together and one by one round differently.
                    assert!(
                        both.is_none_or(|(a, b)| (a - b).abs() <= 1e-3 * b),
                        "{both:?}"
                    );
                }
            }
        }
    }
    *engine.shortcuts_mut() = plain;
    assert_eq!(answers, 96);
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let mut engine = engine();
    let mut cut = request(choices(&["a rather long choice", "b"]), Sampling::GREEDY, 0);
    let whole = ask(&mut engine, &cut);
    let long = ["a rather long choice"];
    cut.generation.grammar = Some(choices(&long));
    cut.generation.max_tokens = 2;
    let answer = ask(&mut engine, &cut);
    assert_eq!(answer.finish, FinishReason::MaxTokens);
    assert!(long[0].starts_with(&answer.text) && answer.text != long[0]);
    assert_eq!(
        (answer.timing.tokens, whole.finish),
        (2, FinishReason::Stop)
    );
}

#[test]
fn what_cannot_be_followed_is_told() {
    let limits = GrammarLimits {
        max_bytes: 40,
        max_choices: 2,
    };
    let long = "x".repeat(41);
    let text = |text: &str| text.to_owned();
    for (error, words) in [
        (
            Grammar::regex(&long, &limits),
            ["regular expression", "limits.grammar.max_bytes"],
        ),
        (
            Grammar::json_schema(&json!({ "const": long }), &limits),
            ["JSON schema", "limits.grammar.max_bytes"],
        ),
        (
            Grammar::choices(std::slice::from_ref(&long), &limits),
            ["choices", "limits.grammar.max_bytes"],
        ),
        (
            Grammar::choices(&[text("a"), text("b"), text("c")], &limits),
            ["choices", "limits.grammar.max_choices"],
        ),
        (Grammar::choices(&[], &limits), ["choices", "empty"]),
        (
            Grammar::choices(&[text("a"), text("")], &limits),
            ["choices", "number 2"],
        ),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    let mut engine = engine();
    let deep = (0..100).fold(
        json!({ "type": "string" }),
        |inner, _| json!({ "type": "array", "items": inner, "minItems": 1 }),
    );
    let mut fails = |grammar: Grammar| {
        let request = request(grammar, Sampling::GREEDY, 0);
        let answer = engine.answer(&request, &mut |_| ControlFlow::Continue(()));
        match answer {
            Err(EngineError::Grammar(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    for (grammar, words) in [
        (regex("(a"), ["regular expression", "unclosed group"]),
        (regex("a(?=b)"), ["regular expression", "look-around"]),
        (regex("a\\"), ["regular expression", "backslash"]),
        (
            schema(&json!({ "type": "array", "contains": { "const": 3 } })),
            ["JSON schema", "contains"],
        ),
        (
            schema(&json!({ "$ref": "https://example.org/schema.json" })),
            ["JSON schema", "example.org"],
        ),
        (
            schema(&json!({ "type": "strin" })),
            ["JSON schema", "strin"],
        ),
        (schema(&json!(false)), ["JSON schema", "false"]),
        (
            schema(&json!({ "x-guidance": { "unknown_key": 1 } })),
            ["JSON schema", "unknown_key"],
        ),
    ] {
        let error = fails(grammar);
        assert!(
            matches!(error, GrammarError::Unsupported { .. }),
            "{error:?}"
        );
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // Deep, but no deeper than JSON may be: it is followed, or refused; neither takes the process down.
    let answer = engine.answer(&request(schema(&deep), Sampling::GREEDY, 0), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(answer, Ok(_) | Err(EngineError::Grammar(_))));
}

/// Expressions that would need too much memory or time end in an error, not in the process.
#[test]
fn expressions_of_bombs_are_bounded() {
    let mut engine = engine();
    for expression in [
        "(a|b)*a(a|b){40}",
        "((a{1,100}){1,100}){1,100}",
        "(.*x.*y.*z.*){1,50}!",
        r"(\p{L}{1,40}[^a]{3,60}){1,200}",
    ] {
        for seed in 0..3 {
            let mut request = request(regex(expression), WILD, seed);
            request.generation.max_tokens = 40;
            let answer = engine.answer(&request, &mut |_| ControlFlow::Continue(()));
            assert!(
                matches!(answer, Ok(_) | Err(EngineError::Grammar(_))),
                "{expression}: {answer:?}"
            );
        }
    }
}

fn forced(constraint: &mut Constraint) -> Vec<u32> {
    match constraint.allowed().unwrap() {
        Next::Forced(ids) => ids,
        Next::Among(_) => Vec::new(),
    }
}

/// What is forced is written in the tokens that the tokenizer makes of it: those that the model knows it by.
#[test]
fn forced_tokens_are_those_of_the_tokenizer() {
    let tokenizer = Arc::new(Tokenizer::load(&fixtures()).unwrap());
    let end = tokenizer.control().end_of_turn;
    let compiler = Compiler::new(&tokenizer, 2048, &[end]).unwrap();
    for text in ["The light is on.", "caf\u{e9} \u{1f600}", "{\"a\": [1, 2]}"] {
        let mut constraint = compiler.compile(&choices(&[text])).unwrap();
        assert_eq!(forced(&mut constraint), tokenizer.encode_text(text));
    }
}
