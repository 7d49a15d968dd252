//! What follows a wake word. Which word it was is no matter here: a clip stands for it, and the segmenter is told when it is over.

use gemmad::capture::options::SpeechDetection;
use gemmad::capture::speech::{Gate, Segmenter, SpeechEvent};

use super::{RATE_HZ, audible, clips, noise};

/// The room, as faint as a microphone's own noise.
fn room(seconds: f64) -> Vec<f32> {
    let noise = noise("pinknoise", 12.0);
    let samples = (seconds * RATE_HZ as f64) as usize;
    noise[..samples].iter().map(|x| x * 0.003).collect()
}

/// Events of a stream in which the wake word ends at `woken`.
fn heard(gate: Gate, stream: &[f32], woken: Option<usize>) -> (Vec<Vec<f32>>, Vec<SpeechEvent>) {
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), gate);
    let (mut said, mut others) = (Vec::new(), Vec::new());
    for (i, piece) in stream.chunks(320).enumerate() {
        let mut tell = |event| match event {
            SpeechEvent::Started => said.push(Vec::new()),
            SpeechEvent::Samples(samples) => said.last_mut().unwrap().extend(samples),
            other => others.push(other),
        };
        segmenter.push(piece, &mut tell);
        if woken.is_some_and(|at| at / 320 == i) {
            segmenter.wake(&mut tell);
            assert!(segmenter.is_speaking());
        }
    }
    (said, others)
}

const WITH_WORD: Gate = Gate::WakeWord { with_word: true };
/// The pause behind what was said, and that it was all; none is told of the silence before it.
const ENDED: [SpeechEvent; 2] = [SpeechEvent::Paused, SpeechEvent::Ended { truncated: false }];

#[test]
fn what_follows_a_wake_word_is_whole_at_once_and_after_a_pause() {
    let clips = clips();
    let (word, command) = (&clips[0].1, &clips[1].1);
    let (_, word_ends) = audible(word);
    for pause_s in [0.0, 0.3, 3.0] {
        let mut stream = room(3.0);
        stream.extend(&word[..word_ends]);
        let woken = stream.len();
        stream.extend(room(pause_s));
        let (from, to) = audible(command);
        let begins = stream.len();
        stream.extend(&command[from..to]);
        let ends = stream.len();
        stream.extend(room(4.0));

        let (said, others) = heard(WITH_WORD, &stream, Some(woken));
        assert_eq!(others, ENDED, "{pause_s} s");
        let utterance = &said[0];
        let start = stream
            .windows(1000)
            .position(|window| window == &utterance[..1000])
            .unwrap();
        assert!(start + RATE_HZ <= woken, "the wake word is part of it");
        assert!(start + 3 * RATE_HZ > woken, "and not all that was before");
        let end = start + utterance.len();
        assert_eq!(&stream[start..end], utterance.as_slice());
        assert!(
            start < begins && end > ends,
            "{pause_s} s: {start} to {end}"
        );

        let right_behind = Gate::WakeWord { with_word: false };
        let (said, others) = heard(right_behind, &stream, Some(woken));
        assert_eq!(others, ENDED, "{pause_s} s");
        let lead = (utterance.len() - said[0].len()) as f64 / RATE_HZ as f64;
        assert!(
            (1.6..1.8).contains(&lead),
            "without the word it is {lead} s shorter"
        );

        let (said, others) = heard(WITH_WORD, &stream, None);
        assert!(said.is_empty() && others.is_empty(), "nobody woke it");
    }
}

#[test]
fn a_wake_word_that_nothing_follows_is_told() {
    let mut stream = room(3.0);
    let word = &clips()[0].1;
    stream.extend(&word[..audible(word).1]);
    let woken = stream.len();
    stream.extend(room(12.0));
    let (said, others) = heard(WITH_WORD, &stream, Some(woken));
    assert_eq!(said.len(), 1);
    assert_eq!(
        others,
        [SpeechEvent::ListenTimedOut, SpeechEvent::Cancelled]
    );
    let seconds = said[0].len() as f64 / RATE_HZ as f64;
    assert!((9.0..12.0).contains(&seconds), "{seconds} s");
}

#[test]
fn a_wake_word_within_what_is_said_after_an_answer_begins_it_anew() {
    let clips = clips();
    let word = &clips[0].1;
    let mut stream = room(1.0);
    stream.extend(&word[..audible(word).1]);
    let woken = stream.len();
    let (from, to) = audible(&clips[1].1);
    stream.extend(&clips[1].1[from..to]);
    stream.extend(room(4.0));
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), WITH_WORD);
    segmenter.follow(8);
    let (mut said, mut others): (Vec<Vec<f32>>, _) = (Vec::new(), Vec::new());
    for (i, piece) in stream.chunks(320).enumerate() {
        let mut tell = |event| match event {
            SpeechEvent::Started => said.push(Vec::new()),
            SpeechEvent::Samples(samples) => said.last_mut().unwrap().extend(samples),
            other => others.push(other),
        };
        segmenter.push(piece, &mut tell);
        if woken / 320 == i {
            assert!(segmenter.is_speaking() && !segmenter.is_woken());
            segmenter.give_up(&mut tell);
            segmenter.wake(&mut tell);
            assert!(segmenter.is_woken());
        }
    }
    let wanted = [&[SpeechEvent::Cancelled], ENDED.as_slice()].concat();
    assert_eq!(others, wanted);
    let start = stream
        .windows(1000)
        .position(|window| window == &said[1][..1000])
        .unwrap();
    assert!(start + RATE_HZ <= woken, "the word is part of it");
    assert_eq!(&stream[start..start + said[1].len()], said[1].as_slice());
}
