//! The audio tower against the reference implementation, stage by stage, and against itself in pieces.
//!
//! Tolerance 1e-3 as the fixtures state: the goldens are float32 and so is this; both round differently in every sum.

use std::sync::Arc;

use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::log_mel::LogMel;
use gemmad::model::conformer::Scratch;
use gemmad::model::gemma4::audio::{AudioTower, LOG_MEL};
use gemmad::model::gemma4::config::Config;
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::{AudioStream, AudioStreamError};
use kernels::{Isa, Pool};
use proptest::prelude::*;

use super::instruction_sets;
use crate::common::{Golden, assert_close, fixtures_gemma4};

const TOLERANCE: f32 = 1e-3;
/// How far a clip in pieces may be from the whole: other matrix shapes round differently.
const STREAMING_TOLERANCE: f32 = 1e-5;
const CLIPS: [&str; 4] = ["a0_5", "a3_2", "a12_3", "a30"];
/// Samples for each soft token.
const TOKEN_SAMPLES: usize = 640;

/// Keys that the reference's attention sees: one less than its config says.
fn keys_of_transformers(said: usize) -> usize {
    said - 1
}

struct Ear {
    tower: Arc<AudioTower>,
    pool: Pool,
}

impl Ear {
    /// With as many keys as `keys` makes of what config.json says.
    fn new(pool: Pool, keys: impl Fn(usize) -> usize) -> Ear {
        let config = Config::load(&fixtures_gemma4()).unwrap();
        let checkpoint = Checkpoint::open(&fixtures_gemma4()).unwrap();
        let mut audio = config.audio.unwrap();
        audio.attention_context_left = keys(audio.attention_context_left);
        let tower = AudioTower::load(&checkpoint, &audio, config.text.hidden_size, &pool).unwrap();
        Ear {
            tower: Arc::new(tower),
            pool,
        }
    }

    fn of_transformers() -> Ear {
        Ear::new(Pool::new(Isa::best(), 2), keys_of_transformers)
    }

    fn encode(&self, log_mel: &[f32], batch_frames: usize) -> Vec<f32> {
        let (mut state, mut encoded) = (self.tower.start(batch_frames), Vec::new());
        self.tower
            .encode(&self.pool, &mut state, log_mel, true, &mut encoded);
        encoded
    }

    /// The soft tokens of `samples`, pushed in pieces of the given sizes (the last size is repeated).
    fn hear(
        &self,
        samples: &[f32],
        sizes: &[usize],
        batch_frames: usize,
    ) -> Result<Vec<f32>, AudioStreamError> {
        let mut stream = AudioStream::new(self.tower.clone(), batch_frames);
        let (mut tokens, mut rest) = (Vec::new(), samples);
        let (mut sizes, mut size) = (sizes.iter().copied(), samples.len());
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size);
            let (piece, left) = rest.split_at(size.min(rest.len()));
            stream.push(&self.pool, piece, &mut tokens)?;
            rest = left;
            if batch_frames == 1 {
                // A token is final 40 ms after its start.
                let heard = samples.len() - rest.len();
                assert_eq!(
                    self.count(&tokens),
                    heard.saturating_sub(1) / TOKEN_SAMPLES,
                    "after {heard} samples"
                );
            }
        }
        let count = stream.finish(&self.pool, 0, &mut tokens)?;
        assert_eq!(self.count(&tokens), count);
        Ok(tokens)
    }

    fn count(&self, tokens: &[f32]) -> usize {
        tokens.len() / self.tower.text_hidden_size()
    }
}

fn samples(clip: &str) -> Vec<f32> {
    let file = fixtures_gemma4().join(format!("golden/{clip}.wav"));
    read_audio_file(&file, &AudioLimits::default())
        .unwrap()
        .samples
}

fn log_mel(samples: &[f32]) -> Vec<f32> {
    let (mut mel, mut frames) = (LogMel::new(LOG_MEL), Vec::new());
    mel.push(samples, &mut frames);
    mel.finish(&mut frames);
    frames
}

/// The reference pads the end of a clip; the frames that touch its padding are not valid, and there are none here.
#[test]
fn log_mel_frames() {
    let golden = Golden::of(&fixtures_gemma4(), "audio");
    for clip in CLIPS {
        let (valid, _) = golden.u8(&format!("{clip}.mel_valid"));
        let (want, shape) = golden.f32(&format!("{clip}.mel"));
        let mut got = log_mel(&samples(clip));
        let count = valid.iter().filter(|&&valid| valid != 0).count();
        assert_eq!(got.len(), count * shape[1], "{clip}");
        assert!(valid[..count].iter().all(|&valid| valid != 0), "{clip}");
        let want = if clip == "a30" {
            // The golden keeps the first and the last 64 frames.
            let ends = 64 * shape[1];
            got.drain(ends..got.len() - ends);
            &want[..]
        } else {
            let (want, invalid) = want.split_at(got.len());
            assert!(invalid.iter().all(|&x| x == 0.0), "{clip}");
            want
        };
        assert_close(&format!("{clip}.mel"), &got, want, TOLERANCE);
    }
}

#[test]
fn sub_sampling_and_every_conformer_block() {
    let (ear, golden) = (
        Ear::of_transformers(),
        Golden::of(&fixtures_gemma4(), "audio"),
    );
    let step = ear.tower.step(&ear.pool);
    for clip in ["a0_5", "a3_2"] {
        let (subsample, mut h) = (ear.tower.subsample(), Vec::new());
        subsample.push(
            &ear.pool,
            ear.tower.weights(),
            &mut subsample.start(),
            &log_mel(&samples(clip)),
            true,
            &mut h,
        );
        let (want, _) = golden.f32(&format!("{clip}.sscp"));
        assert_close(&format!("{clip}.sscp"), &h, &want, TOLERANCE);
        let (want, shape) = golden.f32(&format!("{clip}.conformer"));
        assert_eq!(shape[0], ear.tower.blocks().len());
        let (mut scratch, padded) = (Scratch::default(), vec![false; shape[1]]);
        let blocks = ear.tower.blocks().iter().zip(want.chunks(h.len()));
        for (i, (block, want)) in blocks.enumerate() {
            block.mix(&step, &mut block.start(), &mut scratch, &padded, &mut h);
            block.finish(&step, &mut scratch, &mut h);
            assert_close(&format!("{clip}.conformer[{i}]"), &h, want, TOLERANCE);
        }
    }
}

#[test]
fn encoder_and_soft_tokens() {
    let golden = Golden::of(&fixtures_gemma4(), "audio");
    for isa in instruction_sets() {
        let ear = Ear::new(Pool::new(isa, 2), keys_of_transformers);
        for clip in CLIPS {
            let samples = samples(clip);
            if golden.contains(&format!("{clip}.encoder")) {
                let (want, _) = golden.f32(&format!("{clip}.encoder"));
                for batch_frames in [12, 1000] {
                    let got = ear.encode(&log_mel(&samples), batch_frames);
                    assert_close(&format!("{isa} {clip}.encoder"), &got, &want, TOLERANCE);
                }
            }
            let (want, _) = golden.f32(&format!("{clip}.soft_tokens"));
            let got = ear.hear(&samples, &[], 12).unwrap();
            assert_close(&format!("{isa} {clip}.soft_tokens"), &got, &want, TOLERANCE);
        }
    }
}

/// As many keys as config.json says, which is how clips are heard unless somebody changes it, and one less than that are far apart.
#[test]
fn one_key_more_than_transformers() {
    let golden = Golden::of(&fixtures_gemma4(), "audio");
    let ear = Ear::new(Pool::new(Isa::best(), 2), |said| said);
    for clip in CLIPS {
        let name = format!("{clip}.soft_tokens_13");
        if !golden.contains(&name) {
            continue;
        }
        let (want, _) = golden.f32(&name);
        let got = ear.hear(&samples(clip), &[], 12).unwrap();
        assert_close(&name, &got, &want, TOLERANCE);
        let (other, _) = golden.f32(&format!("{clip}.soft_tokens"));
        let differ = want.iter().zip(&other).map(|(a, b)| (a - b).abs());
        assert!(differ.fold(0.0, f32::max) > 10.0 * TOLERANCE, "{clip}");
    }
}

/// The reference pads the shorter clip of a batch and masks what was padded; here it is heard alone.
#[test]
fn the_shorter_clip_of_a_batch_is_as_alone() {
    let golden = Golden::of(&fixtures_gemma4(), "audio");
    let (want, _) = golden.f32("batch.short_soft_tokens");
    let got = Ear::of_transformers()
        .hear(&samples("a0_5"), &[], 12)
        .unwrap();
    assert_close("batch.short_soft_tokens", &got, &want, TOLERANCE);
}

#[test]
fn a_clip_has_as_many_tokens_as_the_reference_says() {
    let path = fixtures_gemma4().join("golden/manifest.json");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ear = Ear::of_transformers();
    let cases = manifest["audio_count_cases"].as_array().unwrap();
    assert!(cases.len() >= 10);
    for case in cases {
        let number = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let (samples, tokens) = (number("samples"), number("soft_tokens"));
        let heard = ear.hear(&vec![0.01; samples], &[16_000], 100);
        match heard {
            Ok(heard) => assert_eq!(ear.count(&heard), tokens, "{samples} samples"),
            // The reference cuts off what is longer than 30 s; here that is an error, and files are split at pauses before.
            Err(AudioStreamError::TooLong { .. }) => assert!(samples > 480_000, "{samples}"),
            Err(error) => assert_eq!(tokens, 0, "{samples} samples: {error}"),
        }
        let frames = log_mel(&vec![0.01; samples.min(480_000)]).len() / LOG_MEL.bands;
        assert_eq!(frames, number("valid_mel_frames"), "{samples} samples");
        assert_eq!(frames.div_ceil(4), tokens, "{samples} samples");
    }
}

/// A clip of one sample a push, of one frame a batch, and in one piece are the same clip.
#[test]
fn one_sample_at_a_time_is_the_whole() {
    let ear = Ear::of_transformers();
    for clip in ["a0_5", "a3_2"] {
        let samples = samples(clip);
        let whole = ear.hear(&samples, &[], 1000).unwrap();
        for batch_frames in [1, 12] {
            let pieces = ear.hear(&samples, &[1], batch_frames).unwrap();
            let what = format!("{clip}, batches of {batch_frames}");
            assert_close(&what, &pieces, &whole, STREAMING_TOLERANCE);
        }
    }
}

/// Soft tokens come while the clip is being spoken: of every prefix those that are final, and the same as of the whole.
#[test]
fn tokens_come_early() {
    let ear = Ear::of_transformers();
    let samples = samples("a3_2");
    let whole = ear.hear(&samples, &[], 12).unwrap();
    let (mut stream, mut tokens) = (AudioStream::new(ear.tower.clone(), 12), Vec::new());
    for (piece, heard) in samples.chunks(1000).zip(1..) {
        stream.push(&ear.pool, piece, &mut tokens).unwrap();
        let heard: usize = (heard * 1000).min(samples.len());
        // 48 log-mel frames are a batch, and no frame of the encoder looks further ahead than its own.
        assert_eq!(ear.count(&tokens), 12 * ((heard - 1) / 160 / 48));
        assert_close(
            "tokens",
            &tokens,
            &whole[..tokens.len()],
            STREAMING_TOLERANCE,
        );
    }
}

#[test]
fn too_short_and_too_long_are_refused() {
    let ear = Ear::of_transformers();
    let hear = |samples: usize| ear.hear(&vec![0.0; samples], &[16_000], 12);
    for samples in [0, 1, 160] {
        let error = hear(samples).unwrap_err();
        let least = 161;
        assert_eq!(error, AudioStreamError::TooShort { samples, least });
        let line = error.to_string();
        assert!(line.contains("at least 161 (10.1 ms"), "{line}");
    }
    assert_eq!(ear.count(&hear(161).unwrap()), 1);
    assert_eq!(ear.count(&hear(480_000).unwrap()), 750);
    let samples = 31 * 16_000;
    let mut stream = AudioStream::new(ear.tower.clone(), 12);
    let error = stream
        .push(&ear.pool, &vec![0.0; samples], &mut Vec::new())
        .unwrap_err();
    assert_eq!(error, AudioStreamError::TooLong { samples });
    assert!(error.to_string().contains("at most 480000"), "{error}");
}

/// Digital silence has no variance: the norms must not divide by zero.
#[test]
fn silence_gives_finite_tokens() {
    let ear = Ear::of_transformers();
    let tokens = ear.hear(&[0.0; 16_000], &[], 12).unwrap();
    assert_eq!(ear.count(&tokens), 25);
    assert!(tokens.iter().all(|x| x.is_finite()));
}

/// However long a clip is, the encoder remembers as many numbers.
#[test]
fn what_is_remembered_is_bounded() {
    let ear = Ear::of_transformers();
    let (mut clip, mut encoded) = (ear.tower.start(12), Vec::new());
    // Whole batches, so that none is waiting.
    let mel = &log_mel(&samples("a3_2"))[..4 * 48 * LOG_MEL.bands];
    let remembered: Vec<usize> = (0..8)
        .map(|_| {
            ear.tower
                .encode(&ear.pool, &mut clip, mel, false, &mut encoded);
            format!("{clip:?}").matches(", ").count()
        })
        .collect();
    assert!(remembered[0] > 1000);
    assert!(
        remembered.iter().all(|&numbers| numbers == remembered[0]),
        "{remembered:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_split_is_the_whole(
        length in 161usize..51_200,
        sizes in prop::collection::vec(prop_oneof![1usize..200, 1usize..8000], 1..40),
        batch_frames in 1usize..40,
    ) {
        let ear = Ear::of_transformers();
        let samples = &samples("a3_2")[..length];
        let whole = ear.hear(samples, &[], 1000).unwrap();
        let pieces = ear.hear(samples, &sizes, batch_frames).unwrap();
        assert_close("soft tokens", &pieces, &whole, STREAMING_TOLERANCE);
        prop_assert_eq!(ear.count(&pieces), ((length - 1) / 160).div_ceil(4));
    }
}
