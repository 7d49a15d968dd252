//! The hooks that are called while the model works: one watches, and may end the work at any of its calls; to the other, work gives
//! way, and goes on as if nothing had been.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::fixtures;
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::decoder::TextError;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::sampler::Sampling;
use gemmad::pipeline::{
    Answer, Engine, EngineError, EngineOptions, FinishReason, Generation, Grammar, Media, Message,
    Part, PictureOptions, Request, Speech,
};

/// Counts the calls, and breaks from a given one on.
struct Watcher {
    calls: Arc<AtomicUsize>,
    breaks_at: Arc<AtomicUsize>,
}

impl Watcher {
    fn of(engine: &mut Engine) -> Watcher {
        let watcher = Watcher {
            calls: Arc::default(),
            breaks_at: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let (calls, breaks_at) = (Arc::clone(&watcher.calls), Arc::clone(&watcher.breaks_at));
        engine.on_step(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            if call >= breaks_at.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        watcher
    }

    fn break_at(&self, call: usize) {
        self.calls.store(0, Ordering::Relaxed);
        self.breaks_at.store(call, Ordering::Relaxed);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

fn engine() -> Engine {
    let options = EngineOptions {
        threads: 1,
        context: 512,
        prefill_chunk: 8,
        ..EngineOptions::default()
    };
    Engine::open(&fixtures(), options).unwrap()
}

fn request(user: Vec<Part>) -> Request {
    Request {
        conversation: None,
        messages: Message::user(user),
        matformer: None,
        thinking: None,
        generation: Generation {
            sampling: Sampling::GREEDY,
            seed: 0,
            max_tokens: 6,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    }
}

fn text() -> Part {
    Part::Text("Turn on the kitchen light, please.".to_owned())
}

fn ask(engine: &mut Engine, request: &Request) -> Result<Answer, EngineError> {
    engine.answer(request, &mut |_| ControlFlow::Continue(()))
}

/// Broken off at every call there is: an error before the first token, the beginning of the answer after it.
#[test]
fn work_ends_at_whichever_call_says_so() {
    let mut engine = engine();
    let layers = engine.spec().layers.len();
    let watcher = Watcher::of(&mut engine);
    let request = request(vec![text()]);
    watcher.break_at(usize::MAX);
    let whole = ask(&mut engine, &request).unwrap();
    let calls = watcher.calls();
    // Every token of the answer but the last passes all layers.
    assert!(calls > (whole.timing.tokens - 1) * layers, "{calls}");
    let (mut errors, mut answers) = (0, 0);
    for call in 0..calls {
        watcher.break_at(call);
        match ask(&mut engine, &request) {
            Err(EngineError::Cancelled) => errors += 1,
            Ok(answer) => {
                assert_eq!(answer.finish, FinishReason::Cancelled, "call {call}");
                assert!(whole.text.starts_with(&answer.text));
                assert!(answer.timing.tokens < whole.timing.tokens);
                answers += 1;
            }
            Err(other) => panic!("call {call}: {other}"),
        }
        // Not one call more.
        assert_eq!(watcher.calls(), call + 1);
    }
    assert!(errors > 2 * 5 && answers > 4 * layers, "{errors} {answers}");
    watcher.break_at(usize::MAX);
    assert_eq!(ask(&mut engine, &request).unwrap().text, whole.text);
}

#[test]
fn towers_are_watched_too() {
    let mut engine = engine();
    let watcher = Watcher::of(&mut engine);
    let clip = AudioClip {
        samples: vec![0.1; 3 * 16_000],
        sample_rate_hz: 16_000,
    };
    let image = RgbImage {
        width_px: 64,
        height_px: 64,
        pixels: vec![100; 3 * 64 * 64],
    };
    let calls = |engine: &mut Engine, user: Vec<Part>| {
        watcher.break_at(usize::MAX);
        ask(engine, &request(user)).unwrap();
        watcher.calls()
    };
    let plain = calls(&mut engine, vec![text()]);
    for media in [
        Media::Clip(clip),
        Media::Image(image, PictureOptions::default()),
    ] {
        let user = vec![Part::Media(media), text()];
        assert!(calls(&mut engine, user.clone()) > plain + 3);
        for call in 0..3 {
            watcher.break_at(call);
            let error = ask(&mut engine, &request(user.clone())).unwrap_err();
            assert!(matches!(error, EngineError::Cancelled), "{error}");
        }
    }
}

#[test]
fn pictures_that_the_context_has_no_room_for_are_not_looked_at() {
    let of_one = Config::load(&fixtures())
        .unwrap()
        .vision_soft_tokens_per_image;
    let options = EngineOptions {
        threads: 1,
        context: of_one + 1,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&fixtures(), options).unwrap();
    let watcher = Watcher::of(&mut engine);
    let image = RgbImage {
        width_px: 64,
        height_px: 64,
        pixels: vec![100; 3 * 64 * 64],
    };
    let picture = || Part::Media(Media::Image(image.clone(), PictureOptions::default()));
    let mut looked = Vec::new();
    for pictures in [1, 2] {
        watcher.break_at(usize::MAX);
        let user = std::iter::repeat_with(picture).take(pictures).collect();
        let error = ask(&mut engine, &request(user)).unwrap_err();
        let full = matches!(error, EngineError::Text(TextError::ContextFull { .. }));
        assert!(full, "{error}");
        looked.push(watcher.calls());
    }
    // One fits, if not with the words around it; a second is known not to before it is looked at.
    assert!(looked[0] > 0 && looked[0] == looked[1], "{looked:?}");
}

#[test]
fn speech_can_be_broken_off_while_it_is_heard() {
    let mut engine = engine();
    let watcher = Watcher::of(&mut engine);
    let mut speech = engine.start_speech(None, "What is said?", None).unwrap();
    engine.hear(&mut speech, &[0.1; 16_000]).unwrap();
    watcher.break_at(0);
    let error = engine.hear(&mut speech, &[0.1; 16_000]).unwrap_err();
    assert!(matches!(error, EngineError::Cancelled), "{error}");
    assert!(matches!(
        engine.start_speech(None, "What is said?", None),
        Err(EngineError::Cancelled)
    ));
}

/// A turn that was broken off counts as not said: the conversation goes on from the one before.
#[test]
fn a_conversation_survives_a_broken_turn() {
    let mut engine = engine();
    let watcher = Watcher::of(&mut engine);
    let request = Request {
        conversation: Some("a".to_owned()),
        ..request(vec![text()])
    };
    ask(&mut engine, &request).unwrap();
    let kept = engine.kept_bytes();
    watcher.break_at(20);
    assert!(ask(&mut engine, &request).is_err());
    // As the caller breaks off, between two pieces of text.
    watcher.break_at(usize::MAX);
    let broken = engine.answer(&request, &mut |_| ControlFlow::Break(()));
    assert_eq!(broken.unwrap().finish, FinishReason::Cancelled);
    assert_eq!(engine.kept_bytes(), kept);
    assert_eq!(ask(&mut engine, &request).unwrap().resumed, Some(true));
}

/// Two people who speak in turns, a piece at a time, again and again.
struct Talkers {
    samples: [Vec<f32>; 2],
    speaking: [Option<(Speech, usize)>; 2],
    turn: usize,
    said: Vec<(usize, String)>,
}

impl Talkers {
    const PIECE: usize = 2560;

    fn new() -> Talkers {
        let wave = |period: usize, length: usize| {
            let level = move |at: usize| (at % period) as f32 / period as f32 - 0.5;
            (0..length).map(level).collect::<Vec<f32>>()
        };
        Talkers {
            samples: [wave(90, 16_000), wave(61, 11_000)],
            speaking: [None, None],
            turn: 0,
            said: Vec::new(),
        }
    }

    /// The next piece of whose turn it is.
    fn go_on(&mut self, engine: &mut Engine) {
        let who = self.turn % 2;
        self.turn += 1;
        self.speaking[who] = match self.speaking[who].take() {
            None => Some((engine.start_speech(None, "What is said?", None).unwrap(), 0)),
            Some((mut speech, from)) if from < self.samples[who].len() => {
                let to = self.samples[who].len().min(from + Talkers::PIECE);
                let piece = &self.samples[who][from..to];
                let before = speech.bytes();
                engine.hear(&mut speech, piece).unwrap();
                assert!(before > 0 && speech.bytes() >= before);
                Some((speech, to))
            }
            Some((speech, _)) => {
                let generation = request(vec![]).generation;
                let answer = engine
                    .finish_speech(speech, &generation, &mut |_| ControlFlow::Continue(()))
                    .unwrap();
                self.said.push((who, answer.text));
                None
            }
        };
    }
}

#[test]
fn work_that_gives_way_goes_on_as_if_nothing_had_been_and_so_does_what_it_gave_way_to() {
    let mut engine = engine();
    let clip = AudioClip {
        samples: vec![0.1; 3 * 16_000],
        sample_rate_hz: 16_000,
    };
    let image = RgbImage {
        width_px: 64,
        height_px: 64,
        pixels: vec![100; 3 * 64 * 64],
    };
    let mut requests = [
        request(vec![text()]),
        request(vec![Part::Media(Media::Clip(clip)), text()]),
        request(vec![
            Part::Media(Media::Image(image, PictureOptions::default())),
            text(),
        ]),
        request(vec![text()]),
        request(vec![text()]),
    ];
    // Chosen at random, from a seed; and within a grammar, some of whose tokens are forced.
    requests[3].generation.sampling = Sampling {
        temperature: 1.0,
        ..engine.default_sampling()
    };
    let choices = ["kitchen light".to_owned(), "kitchen lamp".to_owned()];
    let grammar = Grammar::choices(&choices, &Default::default()).unwrap();
    requests[4].generation.grammar = Some(grammar);
    requests[4].generation.max_tokens = 40;

    let alone: Vec<Answer> = requests
        .iter()
        .map(|request| ask(&mut engine, request).unwrap())
        .collect();
    let mut talkers = Talkers::new();
    while talkers.said.len() < 2 {
        talkers.go_on(&mut engine);
    }
    let mut said = std::mem::take(&mut talkers.said);
    said.sort();

    for (request, alone) in requests.iter().zip(&alone) {
        let before = talkers.turn;
        let answer = engine
            .answer_giving_way(request, &mut |_| ControlFlow::Continue(()), &mut |engine| {
                talkers.go_on(engine);
            })
            .unwrap();
        assert!(
            talkers.turn > before + 1,
            "it gave way {}",
            talkers.turn - before
        );
        assert_eq!(
            (&answer.text, answer.finish, answer.timing.tokens),
            (&alone.text, alone.finish, alone.timing.tokens)
        );
    }
    while talkers.speaking.iter().any(Option::is_some) {
        talkers.go_on(&mut engine);
    }
    assert!(talkers.said.len() > 4, "{:?}", talkers.said);
    for (who, text) in &talkers.said {
        assert_eq!(text, &said[*who].1);
    }
}
