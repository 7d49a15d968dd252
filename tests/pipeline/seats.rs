//! Answers that are decoded together: each is the one that it would be alone, bit by bit, whoever comes and goes meanwhile.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{fixtures, fixtures_gemma4, fixtures_gemma4_mobile, pack_of};
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::grammar::{Grammar, GrammarLimits};
use gemmad::model::sampler::Sampling;
use gemmad::pack::Recipe;
use gemmad::pipeline::{
    Answer, Engine, EngineError, EngineOptions, FinishReason, Generation, Guessing, Message, Part,
    Piece, Request, SeatId, Sitter,
};

const WARM: Sampling = Sampling {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.0,
    repetition_penalty: 1.2,
};

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn engine(dir: &Path, kv_type: KvType, threads: usize, chunk: usize, answers: usize) -> Engine {
    let options = EngineOptions {
        threads,
        context: 512,
        prefill_chunk: chunk,
        kv_type,
        conversation_bytes: 1 << 28,
        prefix_bytes: 1 << 24,
        answers,
        ..EngineOptions::default()
    };
    Engine::open(dir, options).unwrap()
}

/// A request, and after how many pieces of its text it is broken off.
struct Asked {
    request: Request,
    breaks_at: usize,
}

/// Free and bound, greedy and not, short and long, each in a conversation of its own that the second half goes on with.
fn all_asked(engine: &Engine) -> Vec<Asked> {
    let limits = GrammarLimits::default();
    let schema = serde_json::json!({ "type": "object", "additionalProperties": false,
        "properties": {
            "device": { "enum": ["light", "fan"] },
            "level": { "type": "integer", "minimum": 3, "maximum": 250 },
            "note": { "type": "string", "maxLength": 12 } },
        "required": ["device", "level", "note"] });
    let schema = Grammar::json_schema(&schema, &limits).unwrap();
    let choices = ["turn on the kitchen light", "turn off the fan", "stop"];
    let choices = Grammar::choices(&choices.map(str::to_owned), &limits).unwrap();
    let grammars = [
        None,
        Some(schema.clone()),
        None,
        Some(choices.with_confidence()),
        None,
        Some(schema.with_confidence()),
    ];
    let texts = [
        "Turn on the light.",
        "light light light light light light light light light",
        "What is there?",
    ];
    let slices = engine.slice_names();
    (0..24)
        .map(|at| Asked {
            breaks_at: if at % 7 == 3 { 2 } else { usize::MAX },
            request: Request {
                conversation: Some(format!("{}", at % 12)),
                messages: Message::user(vec![Part::Text(texts[at % 3].to_owned())]),
                // A conversation stays with its slice.
                matformer: Some(slices[at % 12 / 5 % slices.len()].clone()),
                thinking: None,
                generation: Generation {
                    tools: None,
                    sampling: [Sampling::GREEDY, WARM][at % 2],
                    seed: at as u64,
                    max_tokens: [1, 24, 9, 40, 17][at % 5],
                    stop: if at % 4 == 2 {
                        vec!["e".to_owned(), " t".to_owned()]
                    } else {
                        Vec::new()
                    },
                    grammar: grammars[at % 6].clone(),
                },
            },
        })
        .collect()
}

/// What is seen of an answer, to the bit.
type Seen = (
    String,
    String,
    FinishReason,
    Option<u32>,
    usize,
    Option<bool>,
);

fn seen(answer: &Answer, pieces: &str) -> Seen {
    (
        answer.text.clone(),
        pieces.to_owned(),
        answer.finish,
        answer.grammar_confidence.map(f32::to_bits),
        answer.timing.tokens,
        answer.resumed,
    )
}

/// Notes the pieces of a text, and breaks it off after some.
fn noting(
    pieces: &Arc<Mutex<String>>,
    breaks_at: usize,
) -> impl FnMut(&str) -> ControlFlow<()> + Send + 'static {
    let (pieces, mut count) = (Arc::clone(pieces), 0);
    move |piece| {
        let mut pieces = pieces.lock().unwrap();
        pieces.push_str(piece);
        pieces.push('|');
        count += 1;
        match count >= breaks_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn sitter(pieces: &Arc<Mutex<String>>, breaks_at: usize, urgency: u8) -> Sitter {
    let mut on_text = noting(pieces, breaks_at);
    Sitter {
        urgency,
        on_step: Box::new(|| ControlFlow::Continue(())),
        on_piece: Box::new(move |piece| match piece {
            Piece::Text(text) => on_text(text),
            Piece::Thoughts(_) => ControlFlow::Continue(()),
        }),
    }
}

fn check(dir: &Path, kv_type: KvType, threads: usize, chunk: usize, answers: usize) {
    let mut alone = engine(dir, kv_type, threads, chunk, 1);
    alone.shortcuts_mut().guessing = Guessing::Never;
    let asked = all_asked(&alone);
    let mut want = Vec::new();
    for Asked { request, breaks_at } in &asked {
        let pieces = Arc::default();
        let answer = alone.answer(request, &mut noting(&pieces, *breaks_at));
        want.push(seen(&answer.unwrap(), &pieces.lock().unwrap()));
    }
    assert!(want.iter().any(|want| want.5 == Some(true)));

    let (mut passes, mut tokens) = (0, 0);
    for (seed, guessing) in [(1, Guessing::Always), (2, Guessing::Never)] {
        let mut random = Random(seed);
        let mut engine = engine(dir, kv_type, threads, chunk, answers);
        engine.shortcuts_mut().guessing = guessing;
        let mut seats: Vec<(SeatId, usize, Arc<Mutex<String>>)> = Vec::new();
        let (mut next, mut got) = (0, vec![None; asked.len()]);
        while next < asked.len() || !seats.is_empty() {
            let name = |at: usize| asked[at].request.conversation.as_ref();
            let is_free = |at: usize| seats.iter().all(|seat| name(seat.1) != name(at));
            if next < asked.len() && seats.len() < 6 && is_free(next) && random.below(3) == 0 {
                let Asked { request, breaks_at } = &asked[next];
                let pieces = Arc::default();
                engine.swap_urgency(random.below(2) as u8);
                // Some do not wait for the others, but take them along.
                if random.below(4) == 0 {
                    let on_text = &mut noting(&pieces, *breaks_at);
                    let answer = engine.answer(request, on_text).unwrap();
                    got[next] = Some(seen(&answer, &pieces.lock().unwrap()));
                } else {
                    let sitter = sitter(&pieces, *breaks_at, random.below(2) as u8);
                    let id = engine.seat(request, sitter, &mut |_| {}).unwrap();
                    seats.push((id, next, pieces));
                }
                next += 1;
            } else {
                engine.step();
                passes += 1;
            }
            while let Some((id, answer)) = engine.take_ended() {
                let at = seats.iter().position(|seat| seat.0 == id).unwrap();
                let (_, at, pieces) = seats.remove(at);
                let answer = answer.unwrap();
                tokens += answer.timing.tokens;
                got[at] = Some(seen(&answer, &pieces.lock().unwrap()));
            }
            assert_eq!(engine.seated().count(), seats.len());
        }
        for (at, (want, got)) in want.iter().zip(got).enumerate() {
            let what = format!("{}, {kv_type:?}, {answers} together, {at}", dir.display());
            assert_eq!(Some(want), got.as_ref(), "{what}");
        }
    }
    if answers > 1 {
        assert!(passes < tokens, "{passes} passes for {tokens} tokens");
    }
}

#[test]
fn answers_of_gemma3n_are_the_same() {
    check(&fixtures(), KvType::F32, 2, 16, 4);
    check(&fixtures(), KvType::Int8, 1, 3, 8);
    check(&fixtures(), KvType::F16, 1, 16, 1);
}

#[test]
fn answers_of_gemma4_are_the_same() {
    check(&fixtures_gemma4(), KvType::F16, 2, 16, 8);
}

#[test]
fn answers_of_packs_are_the_same() {
    let home = tempfile::tempdir().unwrap();
    for (name, from, recipe, kv_type, answers) in [
        ("a", fixtures(), Recipe::Balanced, KvType::F16, 3),
        ("b", fixtures_gemma4(), Recipe::Small, KvType::Int8, 8),
        (
            "c",
            fixtures_gemma4_mobile(),
            Recipe::Mobile,
            KvType::F32,
            4,
        ),
    ] {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let pack = pack_of(&from, recipe, &dir);
        check(&pack, kv_type, 2, 16, answers);
    }
}

fn plain(text: &str, max_tokens: usize) -> Request {
    Request {
        conversation: None,
        messages: Message::user(vec![Part::Text(text.to_owned())]),
        matformer: None,
        thinking: None,
        generation: Generation {
            tools: None,
            sampling: WARM,
            seed: 3,
            max_tokens,
            stop: Vec::new(),
            grammar: None,
        },
    }
}

/// One that is given up, at whichever call of its hook, ends alone; it has the beginning of its text.
#[test]
fn one_that_is_given_up_ends_alone() {
    let mut engine = engine(&fixtures(), KvType::F32, 1, 16, 4);
    let (stays, goes) = (plain("Turn on the light.", 20), plain("What is there?", 20));
    let alone = engine.answer(&stays, &mut |_| ControlFlow::Continue(()));
    let alone = alone.unwrap();
    let whole = engine.answer(&goes, &mut |_| ControlFlow::Continue(()));
    let whole = whole.unwrap();
    for calls in 0..whole.timing.tokens {
        let nothing = Arc::default();
        let first = sitter(&nothing, usize::MAX, 0);
        let first = engine.seat(&stays, first, &mut |_| {}).unwrap();
        let mut left = calls;
        let second = Sitter {
            on_step: Box::new(move || match left {
                0 => ControlFlow::Break(()),
                _ => {
                    left -= 1;
                    ControlFlow::Continue(())
                }
            }),
            ..sitter(&nothing, usize::MAX, 0)
        };
        let second = engine.seat(&goes, second, &mut |_| {}).unwrap();
        let mut ended = Vec::new();
        while ended.len() < 2 {
            engine.step();
            ended.extend(std::iter::from_fn(|| engine.take_ended()));
        }
        ended.sort_by_key(|(id, _)| *id);
        let [(a, stayed), (b, gone)] = &ended[..] else {
            panic!("{} ended", ended.len());
        };
        assert_eq!((*a, *b), (first, second));
        assert_eq!(stayed.as_ref().unwrap().text, alone.text);
        let gone = gone.as_ref().unwrap();
        assert_eq!(gone.finish, FinishReason::Cancelled);
        assert_eq!(gone.timing.tokens, calls);
        assert!(whole.text.starts_with(&gone.text));
    }
}

/// One that is given up while another slice has the passes is told that at once.
#[test]
fn one_that_waits_for_a_pass_is_given_up_meanwhile() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let mut engine = engine(&demo, KvType::F32, 1, 16, 4);
    let nothing = Arc::default();
    let waits = Request {
        matformer: Some(engine.slice_names()[1].clone()),
        ..plain("What is there?", 20)
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let sits = Sitter {
        on_step: Box::new(move || match over.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }),
        ..sitter(&nothing, usize::MAX, 1)
    };
    let waits = engine.seat(&waits, sits, &mut |_| {}).unwrap();
    let goes = plain("Turn on the light.", 20);
    let first = sitter(&nothing, usize::MAX, 0);
    engine.seat(&goes, first, &mut |_| {}).unwrap();
    engine.step();
    assert!(engine.take_ended().is_none());
    is_over.store(true, Ordering::Relaxed);
    engine.step();
    let (id, answer) = engine.take_ended().unwrap();
    assert_eq!(id, waits);
    assert_eq!(answer.unwrap().finish, FinishReason::Cancelled);
    assert_eq!(engine.seated().collect::<Vec<_>>(), [0]);
}

/// What cannot be answered is told at once, and whoever has a seat goes on.
#[test]
fn a_request_that_cannot_be_answered_gets_no_seat() {
    let mut engine = engine(&fixtures(), KvType::F32, 1, 16, 4);
    let nothing = Arc::default();
    let stays = plain("Turn on the light.", 20);
    let sits = sitter(&nothing, usize::MAX, 0);
    engine.seat(&stays, sits, &mut |_| {}).unwrap();
    let long = plain(&"light ".repeat(600), 20);
    let sits = sitter(&nothing, usize::MAX, 0);
    let error = engine.seat(&long, sits, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::Text(_)), "{error}");
    assert_eq!(engine.seated().count(), 1);
}

/// While a long prompt is taken, answers that are as urgent get a token between two of its chunks, those that are more urgent all of
/// theirs, and the others wait.
#[test]
fn a_long_prompt_holds_up_nobody_who_is_as_urgent() {
    let long = plain(&"light ".repeat(100), 1);
    for (urgency, at_most, at_least) in [(3, 0, 0), (2, 200, 10), (1, 200, 50)] {
        let mut engine = engine(&fixtures(), KvType::F32, 1, 8, 4);
        engine.shortcuts_mut().guessing = Guessing::Never;
        let pieces: Arc<Mutex<String>> = Arc::default();
        let mut request = plain("Turn on the light.", 200);
        request.generation.sampling = Sampling::GREEDY;
        let grammar = Grammar::regex("[a-z ]{400}", &GrammarLimits::default()).unwrap();
        request.generation.grammar = Some(grammar);
        let sits = sitter(&pieces, usize::MAX, urgency);
        engine.seat(&request, sits, &mut |_| {}).unwrap();
        let count = Arc::new(Mutex::new(0));
        engine.swap_urgency(2);
        let counted = Arc::clone(&count);
        // Its own answer is one token, chosen behind its prompt.
        let mut chunks = 0;
        engine
            .answer_giving_way(&long, &mut |_| ControlFlow::Continue(()), &mut |_| {
                chunks += 1;
                *counted.lock().unwrap() = pieces.lock().unwrap().matches('|').count();
            })
            .unwrap();
        let said = *count.lock().unwrap();
        assert!(chunks > 10, "{chunks}");
        assert!(
            said <= at_most.max(1) && said >= at_least,
            "{urgency}: {said}"
        );
        if urgency == 1 {
            assert_eq!(engine.seated().count(), 0);
        }
    }
}
