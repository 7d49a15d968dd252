//! Models that are damaged or of another kind: one line says what is wrong, and nothing panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has to stop"
)]

use std::fs;
use std::path::{Path, PathBuf};

use wake::frontend::{BANDS, Features};
use wake::manifest::Manifest;
use wake::network::{ModelError, Network};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/wake")
}

/// `fuzz/tflite.py` wrote it.
fn seed(name: &str) -> Vec<u8> {
    fs::read(corpus().join(format!("seed-{name}"))).unwrap()
}

/// Frames of speech, as far as a small model is concerned.
fn frames(count: usize) -> Vec<Features> {
    let frame = |i: usize| core::array::from_fn(|band| ((i * 37 + band * 11) % 640) as u16);
    let frames: Vec<Features> = (0..count).map(frame).collect();
    assert_eq!(frames[0].len(), BANDS);
    frames
}

#[test]
fn what_was_heard_is_remembered_until_it_is_forgotten() {
    let mut network = Network::parse(&seed("model")).unwrap();
    assert_eq!(network.frames(), 2);
    let frames = frames(20);
    let mut hear = || -> Vec<u8> { frames.chunks(2).map(|heard| network.run(heard)).collect() };
    let (first, second) = (hear(), hear());
    assert_ne!(
        first, second,
        "the first frame follows others the second time"
    );
    assert_eq!(first[1..], second[1..], "it remembers one frame");
    network.reset();
    let again: Vec<u8> = frames.chunks(2).map(|heard| network.run(heard)).collect();
    assert_eq!(again, first);
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let told = |name| Network::parse(&seed(name)).unwrap_err().to_string();
    assert_eq!(
        told("unknown-operator"),
        "needs the operator WHILE, which gemmad does not compute: a streaming microWakeWord model has none such"
    );
    assert_eq!(
        told("variable-of-no-value"),
        "READ_VARIABLE: its variable has no first value"
    );
    assert_eq!(
        told("scale-of-nothing"),
        "CONV_2D: a tensor's quantisation is no scale with a zero point"
    );
    assert!(told("magic-only").contains("damaged"));
    assert!(told("cut-off").contains("damaged"));
    assert_eq!(Network::parse(b"GGUF").unwrap_err(), ModelError::NotTflite);
    for name in ["weights-of-another-shape", "unknown-operator"] {
        assert!(!told(name).contains('\n'));
    }
}

#[test]
fn no_byte_that_is_missing_or_other_brings_it_down() {
    let whole = seed("model");
    for length in 0..whole.len() {
        assert!(Network::parse(&whole[..length]).is_err(), "{length} bytes");
    }
    let frames = frames(6);
    let mut other = whole.clone();
    for at in 0..whole.len() {
        for change in [0x01, 0x40, 0x80, 0xFF] {
            other[at] = whole[at] ^ change;
            if let Ok(mut network) = Network::parse(&other) {
                for heard in frames.chunks(network.frames()) {
                    network.run(heard);
                }
            }
        }
        other[at] = whole[at];
    }
}

#[test]
fn a_manifest_names_a_model_beside_it() {
    let text = String::from_utf8(seed("manifest")).unwrap();
    let parsed = |text: &str| Manifest::parse(text.as_bytes());
    let manifest = parsed(&text).unwrap();
    assert_eq!(manifest.wake_word, "Hello");
    assert_eq!(manifest.micro.sliding_window_size, 5);
    for (from, to, told) in [
        (
            "\"version\": 2",
            "\"version\": 1",
            "version is 1; 2 is what is known here",
        ),
        (
            "0.9",
            "1.5",
            "micro.probability_cutoff is 1.5; it lies between 0 and 1",
        ),
        (
            ": 5",
            ": 0",
            "micro.sliding_window_size is 0; it must be 1 to 64",
        ),
        (
            ": 10",
            ": 20",
            "micro.feature_step_size is 20; 10 is what is heard here",
        ),
        ("Hello", "?", "wake_word has no word"),
        (
            "hello.tflite",
            "../hello.tflite",
            "model is no file beside it",
        ),
        (
            "hello.tflite",
            "https://host/hello.tflite",
            "model is no file beside it",
        ),
        (
            "wake_word",
            "word",
            "is no microWakeWord model of version 2: missing field `wake_word`",
        ),
        ("{\"type", "<\"type", "is no JSON: expected value"),
    ] {
        let error = parsed(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.starts_with(told), "{error}");
    }
}
