//! Speech is told from silence and noise, on clips and noise that were not made here: held-out speech, and sox's synthesiser.

mod check;
mod sounds;
mod tones;
mod woken;

use std::path::{Path, PathBuf};
use std::process::Command;

use gemmad::capture::options::SpeechDetection;
use gemmad::capture::speech::{Gate, Segmenter, SpeechEvent};

const RATE_HZ: usize = 16_000;
/// Quiet around each clip: the detector has settled, and the last utterance is over.
const AROUND_S: f64 = 2.0;

/// Samples that sox makes or reads.
fn sox(before: &[&str], effects: &[&str]) -> Vec<f32> {
    let raw = [
        "-t", "raw", "-r", "16000", "-c", "1", "-e", "signed", "-b", "16",
    ];
    let output = Command::new("sox")
        // Repeatable noise; no dither.
        .args(["-R", "-D"])
        .args(before)
        .args(raw)
        .arg("-")
        .args(effects)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0;
    output.stdout.chunks_exact(2).map(sample).collect()
}

fn noise(color: &str, seconds: f64) -> Vec<f32> {
    sox(
        &["-n"],
        &["synth", &seconds.to_string(), color, "vol", "0.3"],
    )
}

fn clips() -> Vec<(PathBuf, Vec<f32>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/heldout/audio");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wav"))
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 24);
    let read = |path: PathBuf| {
        let samples = sox(&[path.to_str().unwrap()], &[]);
        (path, samples)
    };
    paths.into_iter().map(read).collect()
}

fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|x| x * x).sum::<f32>() / samples.len() as f32).sqrt()
}

/// An utterance, in samples from the start of the stream.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    start: usize,
    /// Where its end was told.
    told: usize,
    samples: Vec<f32>,
    /// How many samples there were when it paused, each time.
    pauses: Vec<usize>,
    truncated: bool,
}

/// What a run over a stream tells.
#[derive(Default)]
struct Run {
    found: Vec<Found>,
    cancelled: usize,
    timed_out: usize,
}

/// Runs over `stream` in pieces of `piece` samples.
fn run(segmenter: &mut Segmenter, stream: &[f32], piece: usize) -> Run {
    let mut run = Run::default();
    let mut open: Option<Vec<f32>> = None;
    let (mut pauses, mut start) = (Vec::new(), 0);
    for (i, samples) in stream.chunks(piece).enumerate() {
        let told = i * piece + samples.len();
        segmenter.push(samples, &mut |event| match event {
            SpeechEvent::Started => assert!(open.replace(Vec::new()).is_none()),
            SpeechEvent::Samples(samples) => {
                let open = open.as_mut().unwrap();
                if open.is_empty() {
                    start = told.saturating_sub(samples.len());
                }
                open.extend(samples);
            }
            SpeechEvent::Paused => pauses.push(open.as_ref().unwrap().len()),
            SpeechEvent::Ended { truncated } => {
                let samples = open.take().unwrap();
                run.found.push(Found {
                    start,
                    told,
                    samples,
                    pauses: std::mem::take(&mut pauses),
                    truncated,
                });
            }
            SpeechEvent::Cancelled => {
                open.take().unwrap();
                pauses.clear();
                run.cancelled += 1;
            }
            SpeechEvent::ListenTimedOut | SpeechEvent::FollowTimedOut => run.timed_out += 1,
        });
    }
    assert!(open.is_none(), "the quiet at the end ends every utterance");
    run
}

/// First and last sample that is within 30 dB of the clip's loudest 20 ms.
fn audible(clip: &[f32]) -> (usize, usize) {
    let step = RATE_HZ / 50;
    let levels: Vec<f32> = clip.chunks(step).map(rms).collect();
    let loudest = levels.iter().copied().fold(0.0, f32::max);
    let heard = |level: &f32| *level > loudest * 0.0316;
    let first = levels.iter().position(heard).unwrap();
    let last = levels.iter().rposition(heard).unwrap();
    (first * step, (last + 1) * step)
}

/// The clip with quiet around it and noise under all of it, `snr_db` below the clip; and where the clip begins.
fn scene(clip: &[f32], color: Option<&str>, snr_db: f32, gain: f32) -> (Vec<f32>, usize) {
    let around = (AROUND_S * RATE_HZ as f64) as usize;
    let len = clip.len() + 2 * around;
    let mut scene = match color {
        None => vec![0.0; len],
        Some(color) => {
            let mut noise = noise(color, len as f64 / RATE_HZ as f64);
            noise.resize(len, 0.0);
            let gain = rms(clip) / rms(&noise) / 10f32.powf(snr_db / 20.0);
            noise.iter().map(|x| x * gain).collect()
        }
    };
    for (to, x) in scene[around..].iter_mut().zip(clip) {
        *to += x;
    }
    (scene.iter().map(|x| x * gain).collect(), around)
}

#[test]
fn every_clip_is_one_utterance_in_silence_and_in_noise() {
    let config = SpeechDetection::default();
    let ms = |samples: f64| samples * 1000.0 / RATE_HZ as f64;
    let clips = clips();
    // Late onset cuts words off, even with 300 ms in front; a late end delays the answer. Where it starts is known to a piece, 40 ms:
    // without noise it starts at the first sample that is any.
    for (color, snr_db, gain, latest_start_ms, latest_end_ms) in [
        (None, 99.0, 1.0, 40.0, 1200.0),
        (None, 99.0, 0.1, 50.0, 1200.0),
        (Some("pinknoise"), 20.0, 1.0, 50.0, 1000.0),
        (Some("whitenoise"), 20.0, 1.0, 50.0, 1000.0),
        (Some("brownnoise"), 10.0, 1.0, 0.0, 1000.0),
        (Some("pinknoise"), 10.0, 1.0, 50.0, 1000.0),
        (Some("whitenoise"), 10.0, 1.0, 50.0, 1000.0),
        (Some("pinknoise"), 5.0, 1.0, 50.0, 1000.0),
    ] {
        let (mut start_worst, mut end_worst) = (f64::MIN, f64::MIN);
        let mut wrong = Vec::new();
        for (path, clip) in &clips {
            let (scene, at) = scene(clip, color, snr_db, gain);
            let run = run(&mut Segmenter::new(&config, Gate::Open), &scene, 640);
            if run.found.len() != 1 || run.cancelled > 0 {
                wrong.push(format!(
                    "{}: {} found, {} cancelled",
                    path.display(),
                    run.found.len(),
                    run.cancelled
                ));
                continue;
            }
            let (first, last) = audible(clip);
            let found = &run.found[0];
            start_worst = start_worst.max(ms(found.start as f64 - (at + first) as f64));
            end_worst = end_worst.max(ms(found.told as f64 - (at + last) as f64));
        }
        let figures = format!(
            "{color:?} {snr_db} dB, gain {gain}: starts {start_worst:.0} ms and ends {end_worst:.0} ms after the clip at worst; wrong: {wrong:#?}"
        );
        println!("{figures}");
        assert!(wrong.is_empty(), "{figures}");
        assert!(
            start_worst <= latest_start_ms && end_worst <= latest_end_ms,
            "{figures}"
        );
    }
}

#[test]
fn noise_is_no_speech() {
    for color in ["whitenoise", "pinknoise", "brownnoise"] {
        for gain in [1.0, 0.1, 0.01] {
            let noise: Vec<f32> = noise(color, 60.0).iter().map(|x| x * gain).collect();
            let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
            let run = run(&mut segmenter, &noise, 640);
            println!(
                "{color} {gain}: {} found, {} cancelled",
                run.found.len(),
                run.cancelled
            );
            assert!(
                run.found.is_empty() && run.cancelled == 0,
                "{color} at {gain}"
            );
        }
    }
}

#[test]
fn a_noise_that_begins_is_forgotten() {
    let mut stream = vec![0.0; 5 * RATE_HZ];
    stream.extend(noise("brownnoise", 60.0));
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
    let run = run(&mut segmenter, &stream, 640);
    // A roar out of silence may be taken for speech once.
    assert!(run.found.len() <= 1, "{} found", run.found.len());
    assert!(run.found.iter().all(|found| found.told < 30 * RATE_HZ));
}

/// A clip, with quiet before and after it.
fn spoken() -> (Vec<f32>, usize) {
    let (_, clip) = clips().swap_remove(3);
    let (scene, _) = scene(&clip, None, 0.0, 1.0);
    (scene, clip.len())
}

#[test]
fn what_is_given_is_the_stream_itself_however_it_comes() {
    let (stream, _) = spoken();
    let whole = |piece| {
        let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
        run(&mut segmenter, &stream, piece)
            .found
            .swap_remove(0)
            .samples
    };
    let samples = whole(640);
    assert!(stream.windows(samples.len()).any(|part| part == samples));
    assert_eq!(whole(1), samples);
    assert_eq!(whole(stream.len()), samples);
}

#[test]
fn what_is_said_is_all_there_in_a_pause_and_goes_on_without_a_gap() {
    let (_, clip) = clips().swap_remove(3);
    let (first, last) = audible(&clip);
    let clip = clip[first..last].to_vec();
    let quiet = |ms: usize| vec![0.0; ms * RATE_HZ / 1000];
    let stream = [&quiet(2000), &clip, &quiet(400), &clip, &quiet(2000)];
    let stream = stream.map(Vec::as_slice).concat();
    let heard = |early_ms| {
        let config = SpeechDetection {
            early_ms,
            ..SpeechDetection::default()
        };
        let mut run = run(&mut Segmenter::new(&config, Gate::Open), &stream, 640);
        assert_eq!((run.found.len(), run.cancelled), (1, 0));
        run.found.swap_remove(0)
    };
    let late = heard(0);
    for early_ms in [0, 700, 1000] {
        assert_eq!(heard(early_ms), late, "{early_ms}");
    }
    assert!(late.pauses.is_empty());
    for early_ms in [100, 240, 600] {
        let early = heard(early_ms);
        // It is over when it was, and has so much less of silence at its end.
        assert_eq!(early.told, late.told);
        let frames = |ms: usize| (ms * RATE_HZ / 1000).div_ceil(256) * 256;
        let missing = frames(700) - frames(early_ms as usize);
        assert_eq!(early.samples.len() + missing, late.samples.len());
        assert_eq!(early.samples, late.samples[..early.samples.len()]);
        // It paused between the clips, unless the silence there was too short, and has all at its last pause.
        assert_eq!(early.pauses.last(), Some(&early.samples.len()));
        let between = clip.len()..late.samples.len() - clip.len();
        let paused = early.pauses.iter().any(|pause| between.contains(pause));
        assert_eq!(paused, early_ms < 600, "{early_ms}: {:?}", early.pauses);
    }
}

#[test]
fn what_may_be_no_speech_does_not_pause() {
    let (stream, _) = spoken();
    let config = SpeechDetection {
        min_speech_ms: 1500,
        ..SpeechDetection::default()
    };
    let mut told = Vec::new();
    let mut segmenter = Segmenter::new(&config, Gate::Open);
    // A word, and nothing more.
    let end = 2 * RATE_HZ + RATE_HZ / 2;
    let word = [&stream[..end], &vec![0.0; 2 * RATE_HZ]].concat();
    segmenter.push(&word, &mut |event| told.push(event));
    assert!(told.contains(&SpeechEvent::Cancelled));
    assert!(!told.contains(&SpeechEvent::Paused));
}

#[test]
fn digital_silence_in_front_is_left_out_and_faint_noise_is_not() {
    let (_, clip) = clips().swap_remove(3);
    let first = |noise: f32| {
        let (mut scene, _) = scene(&clip, None, 0.0, 1.0);
        for (i, x) in scene.iter_mut().enumerate() {
            *x += if i % 2 == 0 { noise } else { -noise };
        }
        let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
        let found = run(&mut segmenter, &scene, 640).found.swap_remove(0);
        (found.samples[0], found.samples.len())
    };
    let (nothing, whole) = (first(0.0), first(1.0 / 32_768.0));
    assert!(nothing.0.abs() > 1e-5, "{nothing:?}");
    assert!(nothing.1 < whole.1, "{nothing:?} {whole:?}");
}

#[test]
fn long_speech_is_cut_and_goes_on_as_another_utterance() {
    let (stream, clip_len) = spoken();
    let config = SpeechDetection {
        max_speech_ms: 2600,
        ..SpeechDetection::default()
    };
    let run = run(&mut Segmenter::new(&config, Gate::Open), &stream, 640);
    assert!(run.found.len() >= 2, "{}", run.found.len());
    let (last, cut) = run.found.split_last().unwrap();
    assert!(!last.truncated && cut.iter().all(|found| found.truncated));
    for found in cut {
        assert!((41_600..41_600 + 256).contains(&found.samples.len()));
    }
    // Nothing between the pieces is lost.
    let joined: Vec<f32> = run
        .found
        .iter()
        .flat_map(|found| found.samples.clone())
        .collect();
    assert!(joined.len() > clip_len / 2);
    assert!(stream.windows(joined.len()).any(|part| part == joined));
}

#[test]
fn what_is_too_short_is_taken_back() {
    let (stream, _) = spoken();
    let config = SpeechDetection {
        min_speech_ms: 20_000,
        ..SpeechDetection::default()
    };
    let run = run(&mut Segmenter::new(&config, Gate::Open), &stream, 640);
    assert_eq!((run.found.len(), run.cancelled), (0, 1));
}

#[test]
fn push_to_talk_takes_one_utterance_and_waits_no_longer_than_it_should() {
    let (stream, _) = spoken();
    let config = SpeechDetection {
        listen_timeout_ms: 3000,
        ..SpeechDetection::default()
    };
    let mut segmenter = Segmenter::new(&config, Gate::PushToTalk);
    assert!(
        run(&mut segmenter, &stream, 640).found.is_empty(),
        "nobody asked"
    );
    segmenter.listen();
    let asked = run(&mut segmenter, &stream, 640);
    assert_eq!((asked.found.len(), asked.timed_out), (1, 0));
    assert!(
        run(&mut segmenter, &stream, 640).found.is_empty(),
        "one only"
    );
    segmenter.listen();
    let quiet = run(&mut segmenter, &vec![0.0; 4 * RATE_HZ], 640);
    assert_eq!((quiet.found.len(), quiet.timed_out), (0, 1));
    assert!(
        run(&mut segmenter, &stream, 640).found.is_empty(),
        "too late"
    );

    // The button may be pressed when somebody is already speaking.
    let middle = stream.len() / 2;
    let (before, after) = stream.split_at(middle);
    assert!(run(&mut segmenter, before, 640).found.is_empty());
    segmenter.listen();
    assert_eq!(run(&mut segmenter, after, 640).found.len(), 1);
}

#[test]
fn who_pushes_to_talk_where_everything_counts_is_told_that_nothing_came() {
    let (stream, _) = spoken();
    let config = SpeechDetection {
        listen_timeout_ms: 3000,
        ..SpeechDetection::default()
    };
    let mut segmenter = Segmenter::new(&config, Gate::Open);
    let quiet = vec![0.0; 4 * RATE_HZ];
    assert_eq!(
        run(&mut segmenter, &quiet, 640).timed_out,
        0,
        "nobody asked"
    );
    segmenter.listen();
    assert!(segmenter.is_listening());
    assert_eq!(run(&mut segmenter, &quiet, 640).timed_out, 1);
    segmenter.listen();
    let heard = run(&mut segmenter, &stream, 640);
    assert!(!heard.found.is_empty() && heard.timed_out == 0);
    assert!(!segmenter.is_listening(), "the first utterance ends it");
}

#[test]
fn a_stream_that_breaks_off_ends_what_was_said_or_forgets_it() {
    let (stream, _) = spoken();
    let speaking = &stream[..stream.len() / 2];
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
    let mut told = Vec::new();
    segmenter.push(speaking, &mut |_| {});
    segmenter.interrupt(&mut |event| told.push(event));
    segmenter.push(speaking, &mut |_| {});
    segmenter.forget(&mut |event| told.push(event));
    // Half a command is none, where the board's own voice comes between.
    segmenter.push(speaking, &mut |_| {});
    segmenter.cut(&mut |event| told.push(event));
    assert_eq!(
        told,
        [
            SpeechEvent::Ended { truncated: true },
            SpeechEvent::Cancelled,
            SpeechEvent::Cancelled
        ]
    );
}
