//! What is seen and heard in a conversation that a client sends whole with each request is encoded once: the answers are the same.

use std::ops::ControlFlow;

use crate::common::{fixtures, fixtures_gemma4};
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::sampler::Sampling;
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, Generation, Media, Message, Part, PictureOptions, Request, Role,
};

fn engine(checkpoint: &std::path::Path, prefix_bytes: u64) -> Engine {
    let options = EngineOptions {
        threads: 1,
        context: 1024,
        prefix_bytes,
        ..EngineOptions::default()
    };
    Engine::open(checkpoint, options).unwrap()
}

fn picture(shade: u8) -> Media {
    let image = RgbImage {
        width_px: 64,
        height_px: 64,
        pixels: (0..3 * 64 * 64).map(|n| (n % 200) as u8 ^ shade).collect(),
    };
    Media::Again(Box::new(Media::Image(image, PictureOptions::default())))
}

fn clip() -> Media {
    let samples = (0..16_000).map(|n| (n % 90) as f32 / 90.0 - 0.5).collect();
    Media::Again(Box::new(Media::Clip(AudioClip {
        samples,
        sample_rate_hz: 16_000,
    })))
}

/// The first turns of a conversation, ended by a question; the answers between them are the client's to know.
fn ask(engine: &mut Engine, turns: &[Vec<Media>]) -> Answer {
    let mut messages = Vec::new();
    for (n, media) in turns.iter().enumerate() {
        if n > 0 {
            messages.push(Message {
                role: Role::Assistant,
                content: vec![Part::Text("A lamp.".to_owned())],
            });
        }
        let media = media.iter().cloned().map(Part::Media);
        messages.push(Message {
            role: Role::User,
            content: media.chain([Part::Text(format!("And {n}?"))]).collect(),
        });
    }
    let request = Request {
        messages,
        matformer: None,
        thinking: None,
        conversation: None,
        generation: Generation {
            tools: None,
            sampling: Sampling::GREEDY,
            seed: 0,
            max_tokens: 16,
            stop: Vec::new(),
            grammar: None,
        },
    };
    let mut on_text = |_: &str| ControlFlow::Continue(());
    engine.answer(&request, &mut on_text).unwrap()
}

#[test]
fn what_was_shown_and_played_in_earlier_turns_is_encoded_once() {
    for checkpoint in [fixtures(), fixtures_gemma4()] {
        let mut keeping = engine(&checkpoint, 64 << 20);
        let mut forgetful = engine(&checkpoint, 0);
        let turns = [vec![picture(0), clip()], vec![], vec![picture(9)], vec![]];
        for count in 1..=turns.len() {
            // Not even what the tower has besides its soft tokens is missing while it is away.
            keeping.unload_encoders();
            let answer = ask(&mut keeping, &turns[..count]);
            let wanted = ask(&mut forgetful, &turns[..count]);
            assert_eq!(answer.text, wanted.text, "{count} turns");
            assert_eq!(answer.timing.prompt_tokens, wanted.timing.prompt_tokens);
            // Nothing is encoded, so that takes no time at all.
            let encodes = !turns[count - 1].is_empty();
            assert_eq!(answer.timing.encode_ms > 0.0, encodes, "{count} turns");
            assert!(wanted.timing.encode_ms > 0.0);
        }
    }
}
