//! Telephones, bells, music and machines against speech in noise: what each way of telling them apart lets through and what it loses,
//! and that the way which is taken loses nothing. `cargo test --test capture -- --nocapture tones` prints the table that stands in
//! `src/features/speech_evidence.rs`.

use gemmad::capture::options::SpeechDetection;
use gemmad::capture::speech::{Gate, Segmenter};
use gemmad::features::speech_detect::{FRAME_SAMPLES, SpeechDetector};
use gemmad::features::speech_evidence::Measures;

use super::sounds::{Kind, MORE, Random, Room, TWELVE};
use super::{RATE_HZ, clips, rms, run};

/// What the detector says of a frame.
struct Frame {
    likely: bool,
    speaking: bool,
    measures: Measures,
}

fn frames(stream: &[f32]) -> Vec<Frame> {
    let mut detector = SpeechDetector::new(0.5);
    let judge = |frame| Frame {
        likely: detector.is_likely(frame),
        speaking: detector.speaking().is_some(),
        measures: detector.measures(),
    };
    stream.chunks_exact(FRAME_SAMPLES).map(judge).collect()
}

/// How often speech begins: where `begins` says so of what was heard so far, until 44 frames are none.
fn begun(frames: &[Frame], begins: impl Fn(&[Frame]) -> bool) -> usize {
    let (mut begun, mut speaking, mut silence) = (0, false, 0);
    for end in 1..=frames.len() {
        silence = match frames[end - 1].likely {
            true => 0,
            false => silence + 1,
        };
        if !speaking && frames[end - 1].likely && begins(&frames[..end]) {
            (begun, speaking) = (begun + 1, true);
        }
        speaking &= silence < 44;
    }
    begun
}

/// A way to tell speech: frames that speak for it, and how many of how many in a row make it speech.
struct Way {
    name: &'static str,
    counts: fn(&Measures) -> bool,
    enough: usize,
    of: usize,
}

const WAYS: &[Way] = &[
    Way {
        name: "none, as it was",
        counts: |_| true,
        enough: 4,
        of: 6,
    },
    Way {
        name: "detector's score >= 0.8",
        counts: |m| m.score >= 0.8,
        enough: 6,
        of: 16,
    },
    Way {
        name: "bands change >= 2.8 dB",
        counts: |m| m.change >= 2.8,
        enough: 10,
        of: 16,
    },
    Way {
        name: "no note: lines alike <= 0.96",
        counts: |m| m.likeness <= 0.96,
        enough: 10,
        of: 16,
    },
    Way {
        name: "16 bins hold <= 0.8",
        counts: |m| m.strongest_share <= 0.8,
        enough: 10,
        of: 16,
    },
    Way {
        name: "each of these",
        counts: |m| {
            m.score >= 0.8 && m.change >= 2.8 && m.likeness <= 0.96 && m.strongest_share <= 0.8
        },
        enough: 8,
        of: 16,
    },
];

impl Way {
    fn begun(&self, frames: &[Frame]) -> usize {
        begun(frames, |heard| {
            let row = |n: usize| heard[heard.len().saturating_sub(n)..].iter();
            let onset = row(6).filter(|frame| frame.likely).count() >= 4;
            let counts = |frame: &&Frame| frame.likely && (self.counts)(&frame.measures);
            onset && row(self.of).filter(counts).count() >= self.enough
        })
    }
}

/// How often an utterance begins for the daemon.
fn utterances(stream: &[f32]) -> usize {
    let mut segmenter = Segmenter::new(&SpeechDetection::default(), Gate::Open);
    // The quiet at the end ends the last one.
    let ended = [stream, &vec![0.0; RATE_HZ]].concat();
    let run = run(&mut segmenter, &ended, 640);
    run.found.len() + run.cancelled
}

/// Speech of 20 clips in 12 rooms, each as loud above the noise as is said.
fn spoken() -> Vec<(String, Vec<f32>)> {
    let clips = clips();
    let mut random = Random(5);
    let mut scenes = Vec::new();
    // A minute of each color that joins its own beginning, of which each scene has a stretch of its own.
    let [white, pink, brown] = [0.0, 1.0, 2.0].map(|power| random.noise(1 << 20, power));
    let mut stretch = |color: &[f32], samples: usize| -> Vec<f32> {
        let from = (random.uniform() * color.len() as f64) as usize;
        let at = |i: usize| color[(from + i) % color.len()];
        (0..samples).map(at).collect()
    };
    let babble = |at: usize, samples: usize| -> Vec<f32> {
        let voices = clips.iter().skip(at % 16).take(8);
        let mut sum = vec![0.0; samples];
        for (i, (_, clip)) in voices.enumerate() {
            let talk = clip.iter().cycle().skip(3000 * i);
            sum.iter_mut().zip(talk).for_each(|(to, x)| *to += x);
        }
        let loud = rms(&sum);
        sum.iter().map(|x| x / loud).collect()
    };
    let hum = |samples: usize, noise: Vec<f32>| -> Vec<f32> {
        let hum = |i: usize| (std::f32::consts::TAU * 100.0 * i as f32 / RATE_HZ as f32).sin();
        noise
            .iter()
            .zip((0..samples).map(hum))
            .map(|(a, b)| a + b)
            .collect()
    };
    for (at, (path, clip)) in clips.iter().take(20).enumerate() {
        let around = 2 * RATE_HZ;
        let samples = clip.len() + 2 * around;
        for (room, snr_db) in [
            ("pink", 40.0),
            ("pink", 20.0),
            ("pink", 10.0),
            ("pink", 5.0),
            ("pink", 0.0),
            ("white", 10.0),
            ("white", 5.0),
            ("white", 0.0),
            ("brown", 10.0),
            ("brown", 5.0),
            ("hum", 5.0),
            ("babble", 10.0),
        ] {
            let noise = match room {
                "white" => stretch(&white, samples),
                "brown" => stretch(&brown, samples),
                "babble" => babble(at, samples),
                "hum" => hum(samples, stretch(&pink, samples)),
                _ => stretch(&pink, samples),
            };
            let gain = rms(clip) / rms(&noise) / 10f32.powf(snr_db / 20.0);
            let mut scene: Vec<f32> = noise.iter().map(|x| x * gain).collect();
            for (to, x) in scene[around..].iter_mut().zip(clip) {
                *to += x;
            }
            scene.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
            let name = path.file_name().unwrap().display();
            scenes.push((format!("{name} in {room} noise, {snr_db} dB"), scene));
        }
    }
    scenes
}

/// Noisy speech that no way finds, nor did the one before there were any: all as faint as the noise.
const NEVER_FOUND: &[&str] = &[
    "007_voice.wav in white noise, 0 dB",
    "010_voice.wav in white noise, 0 dB",
    "011_combo.wav in white noise, 0 dB",
    "012_both.wav in white noise, 0 dB",
];

#[test]
fn tones_and_machines_begin_no_utterance_and_no_noisy_speech_is_lost() {
    let groups: [(&str, &[Kind], f32); 3] = [
        ("the twelve", TWELVE, 1.0),
        ("the twelve, 14 dB less", TWELVE, 0.2),
        ("more", MORE, 1.0),
    ];
    let room = Room::new();
    let mut table = vec![(Vec::new(), 0); WAYS.len()];
    let mut taken = Vec::new();
    for (group, kinds, gain) in groups {
        let heard: Vec<Vec<Frame>> = kinds
            .iter()
            .map(|k| frames(&room.minute(k, gain)))
            .collect();
        for (way, (begun, _)) in WAYS.iter().zip(&mut table) {
            begun.push(heard.iter().map(|frames| way.begun(frames)).sum::<usize>());
        }
        let mut sum = 0;
        for ((name, ..), frames) in kinds.iter().zip(&heard) {
            let begun = begun(frames, |heard| heard[heard.len() - 1].speaking);
            if begun > 0 {
                println!("{group}: {name}: {begun} utterances");
            }
            sum += begun;
        }
        taken.push(sum);
    }
    let (mut before, mut found, mut never, mut lost) = (0, 0, Vec::new(), Vec::new());
    for (name, scene) in spoken() {
        let frames = frames(&scene);
        for (way, (_, found)) in WAYS.iter().zip(&mut table) {
            *found += usize::from(way.begun(&frames) > 0);
        }
        let was = WAYS[0].begun(&frames) > 0;
        let is = begun(&frames, |heard| heard[heard.len() - 1].speaking) > 0;
        if name.ends_with(" 0 dB") {
            assert_eq!(is, utterances(&scene) > 0, "{name}");
        }
        before += usize::from(was);
        found += usize::from(is);
        if !was {
            never.push(name.clone());
        }
        if was && !is {
            lost.push(name);
        }
    }
    for (way, row) in WAYS.iter().zip(&table) {
        println!("{:28} begins {:?}, finds {} of 240", way.name, row.0, row.1);
    }
    println!("the evidence of all: begins {taken:?}, finds {found} of {before}");
    // As it was, all four of the report are there.
    assert!(table[0].0[0] >= 16 + 14 + 16 + 4, "{table:?}");
    assert_eq!(taken[..2], [0, 0], "the twelve");
    assert!(taken[2] <= 2, "{taken:?}");
    assert_eq!(lost, [""; 0]);
    assert_eq!(never, NEVER_FOUND);
    // No other way does: each lets some of the twelve through, or loses some of the speech.
    for (way, (begun, way_found)) in WAYS.iter().zip(&table).skip(1) {
        assert!(begun[0] > 0 || *way_found < found, "{}", way.name);
    }
}
