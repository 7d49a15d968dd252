//! The demo models on spoken commands that they were never trained on: as many understood as by the reference implementation.
//!
//! The README.md of each has the counts that transformers' `generate()` reached on these files.

use std::ops::ControlFlow;

use crate::heldout::{Clip, Demo, GEMMA3N, GEMMA4, TOLERANCE, clips};
use gemmad::pipeline::{EncoderOptions, Engine, EngineOptions, Generation, SoftTokenPadding};

const TRANSCRIBE: &str = "Transcribe the following speech segment in English:";
const COMMAND: &str = "Return the command as JSON:";

fn engine(model: &Demo, soft_token_padding: Option<SoftTokenPadding>) -> Engine {
    let encoders = EncoderOptions {
        soft_token_padding,
        ..EncoderOptions::default()
    };
    Engine::open(
        &model.path(),
        EngineOptions {
            context: 512,
            threads: 2,
            encoders,
            ..EngineOptions::default()
        },
    )
    .unwrap()
}

/// The answer about a clip that comes in pieces of `piece` samples.
fn ask(
    engine: &mut Engine,
    text: &str,
    matformer: Option<&str>,
    samples: &[f32],
    piece: usize,
) -> String {
    let generation = Generation {
        sampling: engine.default_sampling(),
        seed: 0,
        max_tokens: 40,
        stop: Vec::new(),
        grammar: None,
        tools: None,
    };
    let mut speech = engine.start_speech(None, text, matformer).unwrap();
    for piece in samples.chunks(piece) {
        engine.hear(&mut speech, piece).unwrap();
    }
    engine
        .finish_speech(speech, &generation, &mut |_| ControlFlow::Continue(()))
        .unwrap()
        .text
}

/// Asks the slice of that name about every clip, heard as a microphone would give it (20 ms at a time), and expects as many
/// right answers as the reference gave.
#[track_caller]
fn assert_understood(
    engine: &mut Engine,
    text: &str,
    matformer: Option<&str>,
    want: fn(&Clip) -> &str,
    reference: usize,
) {
    let clips = clips();
    let wrong: Vec<String> = clips
        .iter()
        .filter_map(|clip| {
            let got = ask(engine, text, matformer, &clip.samples, 320);
            (got.trim() != want(clip))
                .then(|| format!("{}: got {got:?}, expected {:?}", clip.file, want(clip)))
        })
        .collect();
    let right = clips.len() - wrong.len();
    assert!(
        right.abs_diff(reference) <= TOLERANCE,
        "{right} right, the reference had {reference}:\n{}",
        wrong.join("\n")
    );
}

fn transcript_of(clip: &Clip) -> &str {
    &clip.transcript
}

fn command_of(clip: &Clip) -> &str {
    &clip.command
}

fn transcribes_as_the_reference(model: &Demo, slice: &str, padding: Option<SoftTokenPadding>) {
    let mut engine = engine(model, padding);
    assert_understood(
        &mut engine,
        TRANSCRIBE,
        Some(slice),
        transcript_of,
        model.transcripts,
    );
}

fn understands_as_the_reference(model: &Demo) {
    let mut engine = engine(model, None);
    for slice in model.slices {
        assert_understood(
            &mut engine,
            COMMAND,
            Some(slice),
            command_of,
            model.heard_commands,
        );
    }
}

#[test]
fn transcripts_full_width() {
    transcribes_as_the_reference(&GEMMA3N, "full", None);
}

#[test]
fn transcripts_half_width() {
    transcribes_as_the_reference(&GEMMA3N, "half", None);
}

#[test]
fn transcripts_of_gemma_4() {
    transcribes_as_the_reference(&GEMMA4, "full", None);
}

#[test]
fn commands() {
    understands_as_the_reference(&GEMMA3N);
}

#[test]
fn commands_of_gemma_4() {
    understands_as_the_reference(&GEMMA4);
}

/// Leaving the padding out is a deviation from the reference that the demo model was trained to bear.
#[test]
fn transcripts_without_padding() {
    transcribes_as_the_reference(&GEMMA3N, "full", Some(SoftTokenPadding::None));
}

/// However the sound arrives, the answer is the same.
#[test]
fn the_way_it_is_heard_does_not_matter() {
    for model in [GEMMA3N, GEMMA4] {
        let mut engine = engine(&model, None);
        for clip in &clips()[..3] {
            let whole = ask(&mut engine, TRANSCRIBE, None, &clip.samples, usize::MAX);
            for piece in [1, 777, 16_000] {
                assert_eq!(
                    ask(&mut engine, TRANSCRIBE, None, &clip.samples, piece),
                    whole,
                    "{} in pieces of {piece}",
                    clip.file
                );
            }
        }
    }
}
