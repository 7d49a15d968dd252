//! A clip that is answered as if it had ended, and then goes on: both answers are those of clips that were heard whole, bit by bit.

use std::ops::ControlFlow;

use crate::heldout::{Clip, Demo, GEMMA3N, GEMMA4, clips};
use gemmad::config::Config;
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::pipeline::commands::CommandGrammar;
use gemmad::pipeline::{Answer, Engine, EngineOptions, Generation, Speech};

/// Samples that are heard together, as in the daemon.
const PIECE: usize = 2560;

fn commands() -> CommandGrammar {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/examples/demo-commands.toml"
    );
    let text = format!(
        "[model]\npath = \"/m\"\n{}",
        std::fs::read_to_string(path).unwrap()
    );
    let config = Config::parse(&text, path.as_ref()).unwrap();
    CommandGrammar::new(
        &config.command,
        None,
        &config.commands,
        &config.limits.grammar,
    )
    .unwrap()
}

/// Hears all of `samples` but what is no whole piece, and gives that.
fn hear<'a>(engine: &mut Engine, speech: &mut Speech, samples: &'a [f32]) -> &'a [f32] {
    let pieces = samples.chunks_exact(PIECE);
    let rest = pieces.remainder();
    for piece in pieces {
        engine.hear(speech, piece).unwrap();
    }
    rest
}

fn finish(
    engine: &mut Engine,
    mut speech: Speech,
    rest: &[f32],
    generation: &Generation,
) -> Answer {
    if !rest.is_empty() {
        engine.hear(&mut speech, rest).unwrap();
    }
    let mut on_text = |_: &str| ControlFlow::Continue(());
    engine
        .finish_speech(speech, generation, &mut on_text)
        .unwrap()
}

/// What can be told apart of two answers: the words, the confidence to the bit, and how much was read and written.
fn traits(answer: &Answer) -> (String, Option<u32>, usize, usize) {
    let confidence = answer.grammar_confidence.map(f32::to_bits);
    let timing = &answer.timing;
    (
        answer.text.clone(),
        confidence,
        timing.prompt_tokens,
        timing.tokens,
    )
}

fn goes_on_as_if_nothing_had_been(model: &Demo, kv_type: KvType) {
    let options = EngineOptions {
        context: 512,
        threads: 2,
        kv_type,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&model.path(), options).unwrap();
    let commands = commands();
    let transcribe = Config::default().tasks.transcribe("English").unwrap();
    let asked = [
        (commands.prompt(None), commands.generation()),
        (transcribe, engine.most_likely(40)),
    ];
    let mut differ = false;
    for (Clip { file, samples, .. }, next) in clips()[..2].iter().zip(&clips()[2..]) {
        let quiet = vec![1e-4; 5000];
        let first = [&samples[..], &quiet[..]].concat();
        let whole = [&first[..], &next.samples[..]].concat();
        for (prompt, generation) in &asked {
            let begin = |engine: &mut Engine| engine.start_speech(None, prompt, None).unwrap();
            let mut alone = |samples: &[f32]| {
                let mut speech = begin(&mut engine);
                let rest = hear(&mut engine, &mut speech, samples);
                traits(&finish(&mut engine, speech, rest, generation))
            };
            let wanted = (alone(&first), alone(&whole));
            differ |= wanted.0 != wanted.1;

            let mut speech = begin(&mut engine);
            let rest = hear(&mut engine, &mut speech, &first);
            // Broken off after two words, and then answered whole.
            let mut words = 0;
            let mut broken_off = |_: &str| {
                words += 1;
                match words {
                    2 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            };
            engine
                .finish_speech(speech.clone(), generation, &mut broken_off)
                .unwrap();
            let early = finish(&mut engine, speech.clone(), rest, generation);
            assert_eq!(traits(&early), wanted.0, "{file}: in the pause");
            let from = whole.len() - next.samples.len() - rest.len();
            let rest = hear(&mut engine, &mut speech, &whole[from..]);
            let late = finish(&mut engine, speech, rest, generation);
            assert_eq!(traits(&late), wanted.1, "{file}: at the end");
        }
    }
    assert!(differ, "what is said behind the pauses makes no difference");
}

#[test]
fn gemma_3n_goes_on_as_if_nothing_had_been() {
    goes_on_as_if_nothing_had_been(&GEMMA3N, KvType::F16);
}

#[test]
fn gemma_4_goes_on_as_if_nothing_had_been() {
    goes_on_as_if_nothing_had_been(&GEMMA4, KvType::Int8);
}
