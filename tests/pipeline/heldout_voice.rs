//! Every held-out clip as the daemon hears it: cut out of a stream by its segmentation, fed to the model while it is "spoken". As many
//! are understood as `gemmad transcribe` understands of the files.

use std::ops::ControlFlow;
use std::process::Command;

use crate::heldout::{Clip, Demo, GEMMA3N, GEMMA4, TOLERANCE, clips};
use gemmad::capture::options::SpeechDetection;
use gemmad::capture::speech::{Gate, Segmenter, SpeechEvent};
use gemmad::config::Config;
use gemmad::daemon::engine_options;
use gemmad::pipeline::Engine;

const RATE_HZ: usize = 16_000;
/// Quiet around each clip: the detector has settled, and the utterance is over.
const AROUND: usize = 2 * RATE_HZ;
/// What a microphone's thread reads at once: 40 ms.
const PIECE: usize = RATE_HZ / 25;

/// How many the command line understands.
fn by_command_line(model: &Demo, clips: &[Clip]) -> usize {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["transcribe", "--model"])
        .arg(model.path())
        .args(clips.iter().map(|clip| &clip.path))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // A line for each file.
    assert_eq!(text.lines().count(), clips.len());
    let both = text.lines().zip(clips);
    both.filter(|(line, clip)| line.trim() == clip.transcript)
        .count()
}

/// White or pink noise of that level (RMS), dB full scale; sox makes it.
fn noise(color: &str, dbfs: f32, samples: usize) -> Vec<f32> {
    let seconds = (samples as f64 / RATE_HZ as f64 + 0.1).to_string();
    let output = Command::new("sox")
        .args(["-R", "-D", "-n", "-r", "16000", "-c", "1", "-t", "f32", "-"])
        .args(["synth", &seconds, color, "vol", "0.3"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let sample = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let mut noise: Vec<f32> = output.stdout.chunks_exact(4).map(sample).collect();
    noise.truncate(samples);
    let rms = (noise.iter().map(|x| x * x).sum::<f32>() / noise.len() as f32).sqrt();
    let gain = 10f32.powf(dbfs / 20.0) / rms;
    noise.iter_mut().for_each(|x| *x *= gain);
    noise
}

/// What the daemon publishes of a stream: one text for each utterance.
fn heard(engine: &mut Engine, stream: &[f32]) -> Vec<String> {
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
    let prompt = Config::default().tasks.transcribe("English").unwrap();
    let (mut texts, mut speech) = (Vec::new(), None);
    for piece in stream.chunks(PIECE) {
        segmenter.push(piece, &mut |event| match event {
            SpeechEvent::Started => {
                speech = Some(engine.start_speech(None, &prompt, None).unwrap())
            }
            SpeechEvent::Samples(samples) => {
                engine.hear(speech.as_mut().unwrap(), &samples).unwrap()
            }
            SpeechEvent::Paused => {}
            SpeechEvent::Ended { .. } => {
                let generation = engine.most_likely(64);
                let answer = engine
                    .finish_speech(speech.take().unwrap(), &generation, &mut |_| {
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                texts.push(answer.text.trim().to_owned());
            }
            SpeechEvent::Cancelled | SpeechEvent::ListenTimedOut | SpeechEvent::FollowTimedOut => {
                texts.push(String::new())
            }
        });
    }
    texts
}

#[test]
fn as_many_clips_are_understood_as_by_the_command_line() {
    as_many_are_understood(&GEMMA3N);
}

#[test]
fn gemma_4_understands_as_many_as_by_the_command_line() {
    as_many_are_understood(&GEMMA4);
}

fn as_many_are_understood(model: &Demo) {
    let clips = clips();
    let wanted = by_command_line(model, &clips);
    println!("the command line: {wanted} of {}", clips.len());
    // As good as the reference: tests/pipeline/heldout_audio.rs.
    assert!(wanted + TOLERANCE >= model.transcripts);
    let mut engine = Engine::open(&model.path(), engine_options(&Config::default())).unwrap();
    for background in [
        None,
        Some(("whitenoise", -60.0)),
        Some(("pinknoise", -55.0)),
    ] {
        let mut wrong = Vec::new();
        for clip in &clips {
            let len = clip.samples.len() + 2 * AROUND;
            let mut stream = match background {
                // What a noise gate gives, or a file with nothing before it begins.
                None => vec![0.0; len],
                Some((color, dbfs)) => noise(color, dbfs, len),
            };
            for (to, x) in stream[AROUND..].iter_mut().zip(&clip.samples) {
                *to += x;
            }
            let texts = heard(&mut engine, &stream);
            if texts != [clip.transcript.as_str()] {
                wrong.push(format!("{}: {texts:?}", clip.path.display()));
            }
        }
        let right = clips.len() - wrong.len();
        println!("{background:?}: {right} right; wrong: {wrong:#?}");
        let lost = background.map_or(0, |_| model.lost_in_noise);
        assert!(
            right + lost >= wanted,
            "{background:?}: {right} right, the command line has {wanted}: {wrong:#?}"
        );
    }
}
