//! The demo models from packs, on clips and pictures that they were never trained on: 8 bits understand as many as bfloat16, and
//! fewer bits lose a file at most.

use std::ops::ControlFlow;

use crate::heldout::{Demo, GEMMA3N, GEMMA4, GEMMA4_MOBILE, TOLERANCE, demo, expected};
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::image::{ImageLimits, RgbImage};
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use gemmad::pipeline::{
    Engine, EngineOptions, Generation, Media, Message, Part, PictureOptions, Request,
};
use kernels::{Isa, Pool};

fn answer(engine: &mut Engine, matformer: &str, media: Option<Media>, text: &str) -> String {
    let user = media
        .map(Part::Media)
        .into_iter()
        .chain([Part::Text(text.to_owned())]);
    let request = Request {
        conversation: None,
        messages: Message::user(user.collect()),
        matformer: Some(matformer.to_owned()),
        thinking: None,
        generation: Generation {
            sampling: engine.default_sampling(),
            seed: 0,
            max_tokens: 40,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    };
    engine
        .answer(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
        .text
}

fn right_answers(engine: &mut Engine, matformer: &str) -> [usize; 4] {
    let command = "Return the command as JSON:";
    let mut right = [0; 4];
    for row in expected("audio") {
        let path = demo().join("heldout/audio").join(&row[0]);
        let clip = Media::Clip(read_audio_file(&path, &AudioLimits::default()).unwrap());
        let transcribe = "Transcribe the following speech segment in English:";
        right[0] +=
            usize::from(answer(engine, matformer, Some(clip.clone()), transcribe) == row[2]);
        right[1] += usize::from(answer(engine, matformer, Some(clip), command) == row[3]);
        let read = format!("{}\n{command}", row[2]);
        right[2] += usize::from(answer(engine, matformer, None, &read) == row[3]);
    }
    for row in expected("images") {
        let path = demo().join("heldout/images").join(&row[0]);
        let image = Media::Image(
            RgbImage::open(&path, &ImageLimits::default()).unwrap(),
            PictureOptions::default(),
        );
        let describe = "Describe what the camera sees.";
        right[3] += usize::from(answer(engine, matformer, Some(image), describe) == row[2]);
    }
    right
}

fn check(model: &Demo, recipe: Recipe, kv_type: KvType) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("demo.pack");
    let pool = Pool::new(Isa::best(), 2);
    pack_checkpoint(
        &model.path(),
        &to,
        PackOptions {
            recipe,
            force: false,
            ..PackOptions::default()
        },
        &pool,
        &mut |_, _| {},
    )
    .unwrap();
    let options = EngineOptions {
        context: 512,
        threads: 2,
        kv_type,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&to, options).unwrap();
    let reference = [
        model.transcripts,
        model.heard_commands,
        model.read_commands,
        model.captions,
    ];
    for slice in model.slices {
        let right = right_answers(&mut engine, slice);
        for (task, (right, reference)) in right.into_iter().zip(reference).enumerate() {
            assert!(
                right.abs_diff(reference) <= TOLERANCE,
                "{recipe:?}, {slice}, task {task}: {right} right, the reference has {reference}"
            );
        }
    }
}

#[test]
fn eight_bits() {
    check(&GEMMA3N, Recipe::Q8, KvType::F32);
}

#[test]
fn balanced() {
    check(&GEMMA3N, Recipe::Balanced, KvType::F32);
}

#[test]
fn balanced_with_keys_and_values_in_8_bits() {
    check(&GEMMA3N, Recipe::Balanced, KvType::Int8);
}

#[test]
fn small() {
    check(&GEMMA3N, Recipe::Small, KvType::F32);
}

#[test]
fn gemma_4_in_eight_bits() {
    check(&GEMMA4, Recipe::Q8, KvType::F32);
}

#[test]
fn gemma_4_balanced() {
    check(&GEMMA4, Recipe::Balanced, KvType::F32);
}

#[test]
fn gemma_4_balanced_with_keys_and_values_in_8_bits() {
    check(&GEMMA4, Recipe::Balanced, KvType::Int8);
}

#[test]
fn gemma_4_small() {
    check(&GEMMA4, Recipe::Small, KvType::F32);
}

#[test]
fn gemma_4_as_it_was_trained_in_few_bits() {
    check(&GEMMA4_MOBILE, Recipe::Mobile, KvType::F32);
}

#[test]
fn gemma_4_as_it_was_trained_in_few_bits_with_keys_and_values_in_8_bits() {
    check(&GEMMA4_MOBILE, Recipe::Mobile, KvType::Int8);
}
