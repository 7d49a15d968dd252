//! Whether there is speech in sound at all.

use gemmad::features::speech_check::{SpeechCheck, SpeechOptions};

use super::sounds::{MORE, Random, TWELVE};
use super::{RATE_HZ, audible, clips, rms};

fn holds(samples: &[f32]) -> bool {
    SpeechCheck::holds_speech(&SpeechOptions::default(), samples)
}

#[test]
fn every_clip_holds_speech_however_tightly_it_is_cut_and_however_faint_it_is() {
    for (path, clip) in clips() {
        let (first, last) = audible(&clip);
        let last = last.min(clip.len());
        let quiet: Vec<f32> = clip.iter().map(|x| x * 0.1).collect();
        let padded = [&vec![0.0; RATE_HZ], &clip[..], &vec![0.0; RATE_HZ]].concat();
        // The first word, as a button that is let go too early leaves it.
        let word = &clip[first..(first + RATE_HZ * 6 / 10).min(last)];
        for (how, samples) in [
            ("whole", &clip[..]),
            ("cut tightly", &clip[first..last]),
            ("faint", &quiet),
            ("in silence", &padded),
            ("0.6 s", word),
        ] {
            assert!(holds(samples), "{} {how}", path.display());
        }
    }
}

#[test]
fn silence_and_noise_hold_none_however_long_and_loud() {
    let mut random = Random(3);
    for seconds in [0.0, 0.02, 0.5, 2.0, 5.0, 30.0] {
        let samples = (seconds * RATE_HZ as f64) as usize;
        assert!(!holds(&vec![0.0; samples]), "{seconds} s of zeros");
        for power in [0.0, 1.0, 2.0] {
            for dbfs in [-60.0, -45.0, -25.0, -12.0] {
                let gain = 10f32.powf(dbfs / 20.0);
                let mut noise = match samples {
                    0 => Vec::new(),
                    _ => random.noise(samples, power),
                };
                noise
                    .iter_mut()
                    .for_each(|x| *x = (*x * gain).clamp(-1.0, 1.0));
                let what = format!("{seconds} s of noise {power} at {dbfs} dB");
                assert!(!holds(&noise), "{what}");
            }
        }
    }
}

#[test]
fn bells_and_machines_hold_none() {
    let mut random = Random(7);
    let mut wrong = Vec::new();
    for (name, _, make) in TWELVE.iter().chain(MORE) {
        let sound = make(&mut random);
        let room = random.noise(sound.len() + RATE_HZ, 1.0);
        let mut scene: Vec<f32> = room.iter().map(|x| x * 0.003).collect();
        for (to, x) in scene[RATE_HZ / 2..].iter_mut().zip(&sound) {
            *to = (*to + x).clamp(-1.0, 1.0);
        }
        if holds(&scene) {
            wrong.push(*name);
        }
    }
    println!("taken for speech: {wrong:?}");
    assert!(
        TWELVE.iter().all(|(name, ..)| !wrong.contains(name)),
        "{wrong:?}"
    );
}

#[test]
fn how_the_sound_comes_makes_no_difference() {
    let (_, clip) = clips().swap_remove(3);
    let found_after = |piece: usize| {
        let mut check = SpeechCheck::new(&SpeechOptions::default());
        let mut pushed = 0;
        for samples in clip.chunks(piece) {
            check.push(samples);
            pushed += samples.len();
            // Asked in the middle, it goes on all the same.
            if pushed > RATE_HZ / 2 && check.has_speech() {
                return Some(pushed / 2560);
            }
        }
        None
    };
    let whole = found_after(2560).unwrap();
    for piece in [160, 1280] {
        assert!(found_after(piece).unwrap().abs_diff(whole) <= 1);
    }
    assert!(holds(&clip) && rms(&clip) > 0.0);
}

#[test]
fn where_speech_is_not_required_all_sound_that_can_be_heard_counts() {
    let options = SpeechOptions {
        required: false,
        ..SpeechOptions::default()
    };
    for (samples, counts) in [(0, false), (320, false), (512, false), (513, true)] {
        let found = SpeechCheck::holds_speech(&options, &vec![0.0; samples]);
        assert_eq!(found, counts, "{samples}");
    }
}
