//! The audio tower against the reference implementation, stage by stage, and against itself in pieces.
//!
//! Tolerance 1e-3 as the fixtures state: the goldens are float32 and so is this; both round differently in every sum.

use std::sync::Arc;

use crate::common::{Golden, assert_close, fixtures};
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::log_mel::LogMel;
use gemmad::model::conformer::Scratch;
use gemmad::model::encoder::AudioEncoder;
use gemmad::model::gemma3n::audio::{AudioTower, EncodeOptions};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::{AudioStream, AudioStreamError, SoftTokenPadding};
use kernels::{Isa, Pool};
use proptest::prelude::*;

const TOLERANCE: f32 = 1e-3;
/// How far a clip in pieces may be from the whole: other matrix shapes round differently.
const STREAMING_TOLERANCE: f32 = 1e-5;
const CLIPS: [&str; 4] = ["a0_5", "a3_2", "a12_3", "a30"];

struct Ear {
    config: Config,
    tower: Arc<AudioTower>,
    pool: Pool,
}

fn ear() -> Ear {
    let pool = Pool::new(Isa::best(), 2);
    let config = Config::load(&fixtures()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures()).unwrap();
    let tower = AudioTower::load(
        &checkpoint,
        config.audio.as_ref().unwrap(),
        config.text.hidden_size,
        &pool,
    )
    .unwrap();
    Ear {
        config,
        tower: Arc::new(tower),
        pool,
    }
}

fn samples(clip: &str) -> Vec<f32> {
    read_audio_file(
        &fixtures().join(format!("golden/{clip}.wav")),
        &AudioLimits::default(),
    )
    .unwrap()
    .samples
}

fn log_mel(ear: &Ear, samples: &[f32]) -> Vec<f32> {
    let mut mel = LogMel::new(AudioEncoder::log_mel(&*ear.tower));
    let mut frames = Vec::new();
    mel.push(samples, &mut frames);
    mel.finish(&mut frames);
    frames
}

fn encode(ear: &Ear, log_mel: &[f32], options: EncodeOptions) -> (Vec<f32>, Vec<bool>) {
    let mut encoded = Vec::new();
    let padded = ear.tower.encode(
        &ear.pool,
        &mut ear.tower.start(options),
        log_mel,
        true,
        &mut encoded,
    );
    (encoded, padded)
}

impl Ear {
    /// The soft tokens of `samples`, pushed in pieces of the given sizes (the last size is repeated).
    fn hear(
        &self,
        samples: &[f32],
        sizes: &[usize],
        batch_frames: usize,
        padding: SoftTokenPadding,
    ) -> Result<Vec<f32>, AudioStreamError> {
        let mut stream = AudioStream::new(self.tower.clone(), batch_frames);
        let mut tokens = Vec::new();
        let mut rest = samples;
        let mut sizes = sizes.iter().copied();
        let mut size = samples.len();
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size);
            let (piece, left) = rest.split_at(size.min(rest.len()));
            stream.push(&self.pool, piece, &mut tokens)?;
            rest = left;
        }
        let padded = match padding {
            SoftTokenPadding::Reference => self.config.audio_soft_tokens_per_image,
            SoftTokenPadding::None => 0,
        };
        let count = stream.finish(&self.pool, padded, &mut tokens)?;
        assert_eq!(tokens.len(), count * self.tower.text_hidden_size());
        Ok(tokens)
    }
}

#[test]
fn log_mel_frames() {
    let (ear, golden) = (ear(), Golden::open("audio"));
    for clip in CLIPS {
        let (want, shape) = golden.f32(&format!("{clip}.mel"));
        let mut got = log_mel(&ear, &samples(clip));
        let ends = 64 * shape[1];
        if clip == "a30" {
            // The golden keeps the first and the last 64 frames.
            assert_eq!(got.len() / shape[1], 2997);
            got.drain(ends..got.len() - ends);
        }
        assert_close(&format!("{clip}.mel"), &got, &want, TOLERANCE);
    }
}

#[test]
fn sub_sampling_and_every_conformer_block() {
    let (ear, golden) = (ear(), Golden::open("audio"));
    let step = ear.tower.step(&ear.pool);
    for clip in ["a0_5", "a3_2"] {
        let mel = log_mel(&ear, &samples(clip));
        let subsample = ear.tower.subsample();
        let mut h = Vec::new();
        subsample.push(
            &ear.pool,
            ear.tower.weights(),
            &mut subsample.start(),
            &mel,
            true,
            &mut h,
        );
        assert_close(
            &format!("{clip}.sscp"),
            &h,
            &golden.f32(&format!("{clip}.sscp")).0,
            TOLERANCE,
        );
        let (want, shape) = golden.f32(&format!("{clip}.conformer"));
        assert_eq!(shape[0], ear.tower.blocks().len());
        let mut scratch = Scratch::default();
        for (i, (block, want)) in ear
            .tower
            .blocks()
            .iter()
            .zip(want.chunks(h.len()))
            .enumerate()
        {
            block.mix(
                &step,
                &mut block.start(),
                &mut scratch,
                &vec![false; shape[1]],
                &mut h,
            );
            block.finish(&step, &mut scratch, &mut h);
            assert_close(&format!("{clip}.conformer[{i}]"), &h, want, TOLERANCE);
        }
    }
}

#[test]
fn encoder_and_soft_tokens() {
    let (ear, golden) = (ear(), Golden::open("audio"));
    for clip in CLIPS {
        let samples = samples(clip);
        let (encoded, padded) = encode(&ear, &log_mel(&ear, &samples), EncodeOptions::default());
        assert!(padded.iter().all(|padded| !padded));
        assert_close(
            &format!("{clip}.encoder"),
            &encoded,
            &golden.f32(&format!("{clip}.encoder")).0,
            TOLERANCE,
        );
        let tokens = ear.hear(&samples, &[], 12, SoftTokenPadding::None).unwrap();
        assert_close(
            &format!("{clip}.soft_tokens"),
            &tokens,
            &golden.f32(&format!("{clip}.soft_tokens")).0,
            TOLERANCE,
        );
    }
}

/// A short clip beside a longer one: what was padded may not be heard.
#[test]
fn padded_clip_of_a_batch() {
    let (ear, golden) = (ear(), Golden::open("audio"));
    let (mel, _) = golden.f32("batch.short_mel");
    let (mask, _) = golden.u8("batch.short_mask_true_is_valid");
    let (want_padded, _) = golden.u8("batch.short_masked");
    let (want, _) = golden.f32("batch.short_encoder");
    let valid = mask.iter().filter(|&&valid| valid != 0).count();
    for batch_frames in [12, 1000] {
        let (encoded, padded) = encode(
            &ear,
            &mel,
            EncodeOptions {
                batch_frames,
                valid_frames: Some(valid),
            },
        );
        assert_eq!(
            padded.iter().map(|&p| u8::from(p)).collect::<Vec<_>>(),
            want_padded
        );
        assert_close("batch.short_encoder", &encoded, &want, TOLERANCE);
    }
}

#[test]
fn padding_fills_the_clip() {
    let (ear, golden) = (ear(), Golden::open("audio"));
    let (pad, _) = golden.f32("pad_embedding");
    assert_close("pad_embedding", ear.tower.pad_embedding(), &pad, TOLERANCE);
    let last_id = ear
        .config
        .audio
        .as_ref()
        .map(|audio| audio.vocab_offset + audio.vocab_size - 1)
        .unwrap();
    assert_close(
        "hard embedding",
        &ear.tower.hard_embedding(&ear.pool, last_id as u32).unwrap(),
        &pad,
        TOLERANCE,
    );
    assert!(
        ear.tower
            .hard_embedding(&ear.pool, last_id as u32 + 1)
            .is_none()
    );
    assert!(ear.tower.hard_embedding(&ear.pool, 0).is_none());

    let (width, per_clip) = (
        ear.tower.text_hidden_size(),
        ear.config.audio_soft_tokens_per_image,
    );
    let samples = samples("a0_5");
    let heard = ear.hear(&samples, &[], 12, SoftTokenPadding::None).unwrap();
    let filled = ear
        .hear(&samples, &[], 12, SoftTokenPadding::Reference)
        .unwrap();
    assert_eq!(filled.len(), per_clip * width);
    assert_eq!(filled[..heard.len()], heard);
    for token in filled[heard.len()..].chunks(width) {
        assert_close("padding", token, &pad, TOLERANCE);
    }
}

/// A clip of one sample a push, of one frame a batch, and in one piece are the same clip.
#[test]
fn one_sample_at_a_time_is_the_whole() {
    let ear = ear();
    for clip in ["a0_5", "a3_2"] {
        let samples = samples(clip);
        let whole = ear
            .hear(&samples, &[], 1000, SoftTokenPadding::None)
            .unwrap();
        for batch_frames in [1, 12] {
            let pieces = ear
                .hear(&samples, &[1], batch_frames, SoftTokenPadding::None)
                .unwrap();
            assert_close(
                &format!("{clip}, batches of {batch_frames}"),
                &pieces,
                &whole,
                STREAMING_TOLERANCE,
            );
        }
    }
}

/// Soft tokens come while the clip is being spoken, not at its end.
#[test]
fn tokens_come_early() {
    let ear = ear();
    let samples = samples("a3_2");
    let mut stream = AudioStream::new(ear.tower.clone(), 12);
    let mut tokens = Vec::new();
    stream.push(&ear.pool, &samples, &mut tokens).unwrap();
    // 317 frames are 6 batches of 48, of which the look-ahead keeps back the last frame: 71 frames, 18 of the 20 tokens.
    assert_eq!(tokens.len() / ear.tower.text_hidden_size(), 18);
}

#[test]
fn too_short_and_too_long_are_refused() {
    let ear = ear();
    let hear = |samples: usize| {
        ear.hear(
            &vec![0.0; samples],
            &[16_000],
            12,
            SoftTokenPadding::Reference,
        )
    };
    for samples in [0, 160, 512] {
        assert_eq!(
            hear(samples).unwrap_err(),
            AudioStreamError::TooShort {
                samples,
                least: 513
            }
        );
    }
    assert!(
        AudioStreamError::TooShort {
            samples: 160,
            least: 513
        }
        .to_string()
        .contains("expected at least 513 (32.1 ms")
    );
    assert!(hear(513).unwrap().iter().all(|x| x.is_finite()));
    assert_eq!(
        hear(480_001).unwrap_err(),
        AudioStreamError::TooLong { samples: 480_001 }
    );
}

/// Digital silence has no variance: the norms must not divide by zero.
#[test]
fn silence_gives_finite_tokens() {
    let ear = ear();
    let tokens = ear
        .hear(&[0.0; 16_000], &[], 12, SoftTokenPadding::None)
        .unwrap();
    assert_eq!(tokens.len() / ear.tower.text_hidden_size(), 7);
    assert!(tokens.iter().all(|x| x.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_split_is_the_whole(
        length in 513usize..51_200,
        sizes in prop::collection::vec(prop_oneof![1usize..200, 1usize..8000], 1..40),
        batch_frames in 1usize..40,
    ) {
        let ear = ear();
        let samples = &samples("a3_2")[..length];
        let whole = ear.hear(samples, &[], 1000, SoftTokenPadding::None).unwrap();
        let pieces = ear.hear(samples, &sizes, batch_frames, SoftTokenPadding::None).unwrap();
        assert_close("soft tokens", &pieces, &whole, STREAMING_TOLERANCE);
    }
}
