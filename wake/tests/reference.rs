//! Features, probabilities and detections against `pymicro-features` and `pymicro-wakeword`, with the models that come with it.
//!
//! They are installed from PyPI into the build's folder; where they cannot be had, the test says so and compares nothing. Speech is
//! made by espeak-ng, where that is installed; the clips of the demo model are there always.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot read its files has to stop, and says what it compared"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wake::WakeWord;
use wake::frontend::{BANDS, Features, Frontend};
use wake::manifest::Manifest;

const PACKAGE: &str = "pymicro-wakeword==2.5.0";
/// The four of the package, and two of the fuzzers' that have every operator in other shapes.
const MODELS: [&str; 6] = [
    "alexa",
    "hey_jarvis",
    "hey_mycroft",
    "okay_nabu",
    "seed-model",
    "seed-padded",
];

/// The largest feature that a model's input holds: 26 in 255 steps of a published one's, and the fuzzers' have steps of 0.1.
fn largest(model: &str) -> u16 {
    if model.starts_with("seed") { 654 } else { 665 }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("wake-reference")
}

/// A Python that has the package; `None`, and a line, where there is none.
fn python() -> Option<PathBuf> {
    let venv = folder().join("venv");
    let python = venv.join("bin/python");
    let runs = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    let has_it =
        "from importlib.metadata import version; assert version('pymicro-wakeword') == '2.5.0'";
    if runs(&python, &["-c", has_it]) {
        return Some(python);
    }
    let made = runs(
        Path::new("python3"),
        &["-m", "venv", venv.to_str().unwrap()],
    ) && runs(&python, &["-m", "pip", "install", "--quiet", PACKAGE]);
    if !made {
        eprintln!("skipped: {PACKAGE} cannot be installed from PyPI with python3 -m venv");
    }
    made.then_some(python)
}

/// Noise that is the same each time, of this loudness.
fn noise(samples: usize, loudness: i32) -> Vec<i16> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 16) as i32 % (2 * loudness + 1) - loudness) as i16
    };
    (0..samples).map(|_| next()).collect()
}

/// The samples of a WAV file with a canonical header, at its own rate.
fn wav(path: &Path) -> (u32, Vec<i16>) {
    let bytes = fs::read(path).unwrap();
    let rate = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    let samples = bytes[44..].as_chunks().0.iter();
    (rate, samples.map(|x| i16::from_le_bytes(*x)).collect())
}

/// To 16 kHz, by straight lines: both sides hear the same, whatever it sounds like.
fn resampled((rate, samples): (u32, Vec<i16>)) -> Vec<i16> {
    let count = samples.len() * 16_000 / rate as usize;
    let at = |i: usize| {
        let x = i as f64 * f64::from(rate) / 16_000.0;
        let (left, share) = (x as usize, x.fract());
        let right = samples[(left + 1).min(samples.len() - 1)];
        (f64::from(samples[left]) * (1.0 - share) + f64::from(right) * share) as i16
    };
    (0..count).map(at).collect()
}

fn spoken(text: &str, voice: &str, speed: &str) -> Option<Vec<i16>> {
    let file = folder().join("spoken.wav");
    let mut espeak = Command::new("espeak-ng");
    espeak.args(["-v", voice, "-s", speed, "-w"]).arg(&file);
    let status = espeak.arg(text).status();
    status
        .is_ok_and(|status| status.success())
        .then(|| resampled(wav(&file)))
}

/// Everything that is compared, by name.
fn clips() -> Vec<(String, Vec<i16>)> {
    let mut clips = vec![
        ("silence".to_owned(), vec![0; 48_000]),
        ("faint".to_owned(), noise(48_000, 3)),
        ("noise".to_owned(), noise(80_000, 8_000)),
        ("full-scale".to_owned(), noise(48_000, 32_767)),
        ("lowest".to_owned(), vec![i16::MIN; 16_000]),
        (
            "square".to_owned(),
            (0..48_000)
                .map(|i| if i / 40 % 2 == 0 { i16::MAX } else { i16::MIN })
                .collect(),
        ),
    ];
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut held_out: Vec<PathBuf> = fs::read_dir(top.join("models/demo/heldout/audio"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "wav"))
        .collect();
    held_out.sort();
    assert!(!held_out.is_empty());
    for path in held_out {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        clips.push((name, resampled(wav(&path))));
    }
    let words = ["Okay Nabu", "Hey Jarvis", "Hey Mycroft", "Alexa"];
    for (i, voice) in ["en-us", "en-gb", "en-us+f3"].iter().enumerate() {
        for speed in ["120", "150"] {
            let mut all = vec![0; 8_000];
            for word in words {
                let Some(said) = spoken(&format!("{word}, turn on the light."), voice, speed)
                else {
                    eprintln!("espeak-ng is not installed: no spoken wake words are compared");
                    return clips;
                };
                all.extend(said);
                all.extend(noise(12_000, 20 + 60 * i as i32));
            }
            clips.push((format!("spoken-{voice}-{speed}"), all));
        }
    }
    clips
}

fn numbers<const N: usize, T>(path: &Path, read: fn([u8; N]) -> T) -> Vec<T> {
    let bytes = fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|x| read(*x)).collect()
}

#[test]
fn features_and_scores_are_those_of_the_reference() {
    fs::create_dir_all(folder()).unwrap();
    let Some(python) = python() else { return };
    let models = folder().join("models");
    let clips = clips();
    let path = |name: &str| folder().join(format!("{name}.raw"));
    for (name, samples) in &clips {
        let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::write(path(name), bytes).unwrap();
    }
    fs::create_dir_all(&models).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/wake");
    for seed in ["seed-model", "seed-padded"] {
        let file = models.join(seed).with_extension("tflite");
        fs::copy(corpus.join(seed), file).unwrap();
        let manifest = fs::read_to_string(corpus.join("seed-manifest")).unwrap();
        let manifest = manifest.replace("hello.tflite", &format!("{seed}.tflite"));
        fs::write(models.join(seed).with_extension("json"), manifest).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference.py");
    let mut reference = Command::new(python);
    reference.arg(script).arg(&models);
    reference.args(clips.iter().map(|(name, _)| path(name)));
    assert!(reference.status().unwrap().success());

    let (mut frames, mut woken) = (0, 0);
    for (name, samples) in &clips {
        let mut frontend = Frontend::default();
        let mut features: Vec<Features> = Vec::new();
        // In pieces of any size, as a device gives them.
        for piece in samples.chunks(777) {
            frontend.push(piece, &mut |frame| features.push(*frame));
        }
        let wanted = numbers(&path(name).with_extension("features"), u16::from_le_bytes);
        let wanted: Vec<Features> = wanted.as_chunks::<BANDS>().0.to_vec();
        assert_eq!(features.len(), wanted.len(), "{name}");
        if let Some(i) = (0..features.len()).find(|&i| features[i] != wanted[i]) {
            panic!("{name}, frame {i}:\n{:?}\n{:?}", features[i], wanted[i]);
        }
        frames += features.len();
        let loudest = features.iter().flatten().max().unwrap();
        for model in MODELS {
            // The first frame of a full-scale square wave is more than 8 bits hold. Python wraps it; it is held at the largest, as on
            // ESPHome's boards.
            if *loudest > largest(model) {
                continue;
            }
            let json = models.join(format!("{model}.json"));
            let cutoff = Manifest::load(&json).unwrap().0.micro.probability_cutoff;
            let mut word = WakeWord::load(&json, 0.0).unwrap();
            let wanted = path(name).with_extension(format!("{model}.scores"));
            let wanted = numbers(&wanted, f64::from_le_bytes);
            let (mut ours, mut theirs) = (None, None);
            for (i, (frame, wanted)) in features.iter().zip(&wanted).enumerate() {
                let Some(heard) = word.push(frame) else {
                    continue;
                };
                assert_eq!(heard.score, *wanted, "{name}, {model}, frame {i}");
                ours = ours.or(heard.woken.then_some(i));
                theirs = theirs.or((*wanted > cutoff).then_some(i));
            }
            assert_eq!(ours, theirs, "{name}, {model}");
            woken += usize::from(ours.is_some() && !model.starts_with("seed"));
        }
    }
    println!(
        "{} clips, {frames} frames, {woken} wake words heard",
        clips.len()
    );
    let spoken = clips.iter().any(|(name, _)| name.starts_with("spoken"));
    assert!(woken > 0 || !spoken, "no wake word was heard at all");
}
