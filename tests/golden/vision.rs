//! The vision tower against golden tensors of the reference implementation (transformers and timm, float32).
//!
//! `GEMMAD_FIXTURES` may name another directory made by the same script; nothing here knows its dimensions.

use std::collections::HashMap;

use crate::common::{Golden, assert_close, fixtures};
use crate::isas::isas;
use gemmad::model::encoder::VisionError;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::vision::{Observation, VisionTower};
use gemmad::model::weights::Checkpoint;
use kernels::{Isa, Pool};

/// Absolute, as the fixtures' own notes suggest: float32 sums in another order differ by up to 1e-4 at these sizes.
const TOLERANCE: f32 = 1e-3;

fn tower() -> VisionTower {
    let config = Config::load(&fixtures()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures()).unwrap();
    VisionTower::load(
        &checkpoint,
        config.vision.as_ref().unwrap(),
        config.text.hidden_size,
    )
    .unwrap()
}

/// `[height, width, 3]` from the golden `[3, height, width]`, and the side.
fn pixels(golden: &Golden, picture: &str) -> (Vec<u8>, usize) {
    let (planes, shape) = golden.u8(&format!("{picture}.pixel_values_u8"));
    let plane = shape[1] * shape[2];
    (
        (0..plane * 3)
            .map(|i| planes[i % 3 * plane + i / 3])
            .collect(),
        shape[1],
    )
}

/// A feature map put together from what the tower showed.
struct Seen {
    width: usize,
    channels: usize,
    values: Vec<f32>,
}

impl Seen {
    /// `[channels, rows, columns]` of the first channels, every `step`-th row and column.
    fn planes(&self, channels: usize, step: usize) -> Vec<f32> {
        let height = self.values.len() / (self.width * self.channels);
        let mut out = Vec::new();
        for c in 0..channels {
            for y in (0..height).step_by(step) {
                for x in (0..self.width).step_by(step) {
                    out.push(self.values[(y * self.width + x) * self.channels + c]);
                }
            }
        }
        out
    }
}

fn watch(
    tower: &VisionTower,
    pool: &Pool,
    pixels: &[u8],
    side: usize,
) -> (HashMap<String, Seen>, Vec<f32>) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let soft_tokens = tower
        .encode_observed(pool, pixels, side, &mut |part: &Observation<'_>| {
            let map = seen.entry(part.name.to_owned()).or_insert_with(|| Seen {
                width: part.width,
                channels: part.channels,
                values: Vec::new(),
            });
            assert_eq!(
                map.values.len(),
                part.rows.start * part.width * part.channels,
                "{}: rows in order",
                part.name
            );
            map.values.extend_from_slice(part.values);
        })
        .unwrap();
    (seen, soft_tokens)
}

#[test]
fn every_stage_and_the_soft_tokens_are_those_of_the_reference() {
    let golden = Golden::open("vision");
    let tower = tower();
    for isa in isas() {
        let pool = Pool::new(isa, 2);
        let (image, side) = pixels(&golden, "photo");
        let (seen, soft_tokens) = watch(&tower, &pool, &image, side);

        let compare = |tensor: &str, map: &str, step: usize| {
            let (want, shape) = golden.f32(&format!("photo.{tensor}"));
            assert_close(
                &format!("{isa} {tensor}"),
                &seen[map].planes(shape[0], step),
                &want,
                TOLERANCE,
            );
        };
        compare("stem_ch0_3", "stem", 4);
        compare("stage0_ch0_7", "stage0", 2);
        compare("stage1", "stage1", 1);
        compare("stage2", "stage2", 1);
        compare("stage3", "stage3", 1);
        compare("encoder_ch0_255", "encoder", 1);

        let (want, shape) = golden.f32("photo.soft_tokens");
        assert_eq!(shape[0], tower.soft_tokens_per_image());
        assert_close(&format!("{isa} photo"), &soft_tokens, &want, TOLERANCE);

        let (image, side) = pixels(&golden, "icon");
        let soft_tokens = tower.encode(&pool, &image, side).unwrap();
        assert_close(
            &format!("{isa} icon"),
            &soft_tokens,
            &golden.f32("icon.soft_tokens").0,
            TOLERANCE,
        );
    }
}

#[test]
fn strips_do_not_show() {
    // At this size the early blocks run in several strips; a picture that repeats itself downwards must give rows
    // that repeat as far as no border is in sight: the first two stages see fewer than 100 pixels to either side.
    let tower = tower();
    let pool = Pool::new(Isa::best(), 2);
    let (side, period) = (512, 128);
    let image: Vec<u8> = (0..side * side * 3)
        .map(|i| {
            let (y, x, c) = (i / 3 / side % period, i / 3 % side, i % 3);
            ((y * 7) ^ (x * 5) ^ (c * 90)) as u8
        })
        .collect();
    let (seen, soft_tokens) = watch(&tower, &pool, &image, side);
    assert_eq!(seen["encoder"].width.pow(2), tower.soft_tokens_per_image());
    assert!(soft_tokens.iter().all(|value| value.is_finite()));
    for map in ["stem", "stage0", "stage1"] {
        let row = seen[map].width * seen[map].channels;
        let shrink = side / seen[map].width;
        let at = |y: usize| &seen[map].values[y / shrink * row..][..period / shrink * row];
        for y in (2 * period..side - period).step_by(period) {
            assert_close(&format!("{map} at row {y}"), at(y), at(period), 1e-5);
        }
    }
}

#[test]
fn resolutions_that_do_not_fit_are_refused() {
    let tower = tower();
    let pool = Pool::new(Isa::best(), 1);
    for side in [0, 1, 100, 1 << 20] {
        let error = tower.encode(&pool, &[], side).unwrap_err();
        assert!(matches!(error, VisionError::Resolution { .. }), "{error}");
        assert!(error.to_string().contains(&side.to_string()), "{error}");
    }
}

#[test]
fn only_vision_ids_have_a_hard_embedding() {
    let config = Config::load(&fixtures()).unwrap();
    let vision = config.vision.unwrap();
    let tower = tower();
    let pool = Pool::new(Isa::best(), 1);
    let first = vision.vocab_offset as u32;
    let last = first + vision.vocab_size as u32 - 1;
    for id in [first, last] {
        let row = tower.hard_embedding(&pool, id).unwrap();
        assert_eq!(row.len(), config.text.hidden_size);
        let mean_square = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
        assert!((mean_square - 1.0).abs() < 1e-3, "normed: {mean_square}");
    }
    assert_ne!(
        tower.hard_embedding(&pool, first),
        tower.hard_embedding(&pool, last)
    );
    assert_eq!(tower.hard_embedding(&pool, first - 1), None);
    assert_eq!(tower.hard_embedding(&pool, last + 1), None);
}
