//! The vision encoder: sizes of pictures, every stage on the way to soft tokens, and what packs make of it.

use std::path::Path;

use gemmad::features::image::RgbImage;
use gemmad::media::Resampling;
use gemmad::model::encoder::{PictureOptions, VisionEncoder};
use gemmad::model::family;
use gemmad::model::gemma4::config::{Config, VisionConfig};
use gemmad::model::gemma4::vision::{Stage, VisionTower, size};
use gemmad::model::processor_config::ProcessorConfig;
use gemmad::model::weights::Checkpoint;
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use kernels::{Isa, Pool};
use serde_json::Value;

use super::instruction_sets;
use super::text_runs::rms;
use crate::common::{Golden, assert_close, fixtures_gemma4};

/// Absolute, as the fixtures' notes suggest.
const TOLERANCE: f32 = 1e-3;

/// The reference resized with torchvision, and here it is done as Pillow does: that moves soft tokens by so much at most, rms of a share.
const RESIZED: f64 = 0.01;

const PICTURES: [&str; 2] = ["photo", "tall"];

fn config(dir: &Path) -> VisionConfig {
    Config::load(dir).unwrap().vision.unwrap()
}

fn tower(dir: &Path) -> VisionTower {
    let text = Config::load(dir).unwrap().text;
    let checkpoint = Checkpoint::open(dir).unwrap();
    VisionTower::load(&checkpoint, &config(dir), text.hidden_size).unwrap()
}

fn golden() -> Golden {
    Golden::of(&fixtures_gemma4(), "vision")
}

fn picture(golden: &Golden, tensor: &str) -> RgbImage {
    let (pixels, shape) = golden.u8(tensor);
    RgbImage {
        height_px: shape[0],
        width_px: shape[1],
        pixels,
    }
}

fn encoded(tower: &VisionTower, pool: &Pool, image: &RgbImage) -> Vec<f32> {
    let size = [image.width_px, image.height_px];
    tower.encode(pool, &image.pixels, size, &mut || ()).unwrap()
}

/// The root mean square of what values are off, as a share of that of what they should be.
fn share_off(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    rms(got.iter().zip(want).map(|(got, want)| got - want)) / rms(want.iter().copied())
}

#[test]
fn pictures_are_brought_to_the_sizes_of_the_reference() {
    let path = fixtures_gemma4().join("golden/manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = config(&fixtures_gemma4());
    let cases = manifest["resize_cases"].as_array().unwrap();
    assert!(cases.len() > 50, "{}", cases.len());
    for case in cases {
        let of = |key: &str| case[key].as_u64().unwrap() as usize;
        let [width, height] = size::fitted(&config, of("budget"), of("w"), of("h")).unwrap();
        assert_eq!([width, height], [of("target_w"), of("target_h")], "{case}");
        let soft_tokens = size::soft_tokens(&config, [width, height]);
        assert_eq!(soft_tokens, of("soft_tokens"), "{case}");
    }
}

#[test]
fn pictures_of_odd_shapes_have_a_size_and_those_of_none_are_refused() {
    let tower = tower(&fixtures_gemma4());
    let config = config(&fixtures_gemma4());
    let side = config.patch_size * config.pooling_kernel_size;
    let input_size = |soft_tokens, width, height| {
        let options = PictureOptions::of_soft_tokens(soft_tokens);
        tower.input_size(options, width, height)
    };
    let most = config.position_embedding_size / config.pooling_kernel_size;
    for (width, height, want) in [
        (1, 20_000, [side, 70 * side]),
        (20_000, 1, [70 * side, side]),
    ] {
        match input_size(70, width, height) {
            Ok(size) => assert_eq!(size, want),
            Err(error) => assert!(most < 70, "{error}"),
        }
        // Beyond the table of positions there is nothing to read.
        let long = size::fitted(&config, 1120, width, height).unwrap();
        assert_eq!(long.iter().max(), Some(&(1120 * side)));
        let error = tower.grid([long[0], long[1]]).err();
        assert_eq!(error.is_some(), most < 1120);
        if let Some(error) = error {
            let error = error.to_string();
            assert!(error.contains("position_embedding_size"), "{error}");
        }
    }
    let [width, height] = input_size(140, 47, 47).unwrap();
    assert_eq!([width, height], [11 * side; 2], "small ones are enlarged");
    for (width, height) in [(0, 0), (0, 7), (7, 0)] {
        let error = input_size(70, width, height).unwrap_err().to_string();
        assert!(error.contains(&format!("{width} x {height}")), "{error}");
    }
    // A size that nobody gave.
    let pool = Pool::new(Isa::best(), 1);
    for size in [[0, 0], [side, side + 1], [side - 1, side]] {
        assert!(tower.encode(&pool, &[], size, &mut || ()).is_err());
    }
}

#[test]
fn every_stage_is_that_of_the_reference() {
    let golden = golden();
    let tower = tower(&fixtures_gemma4());
    let layers = config(&fixtures_gemma4()).num_hidden_layers;
    for isa in instruction_sets() {
        let pool = Pool::new(isa, 2);
        for picture_name in PICTURES {
            let image = picture(&golden, &format!("{picture_name}.resized_u8_hwc"));
            let want = |leaf: &str| golden.f32(&format!("{picture_name}.{leaf}"));
            let close = |leaf: &str, got: &[f32], want: &[f32]| {
                assert_close(
                    &format!("{isa} {picture_name} {leaf}"),
                    got,
                    want,
                    TOLERANCE,
                );
            };
            let (blocks, shape) = want("blocks");
            // Of some pictures the last layers only are kept.
            let first = layers - shape[0];
            let block = shape[1] * shape[2];
            let mut stages = Vec::new();
            let mut pauses = 0;
            let size = [image.width_px, image.height_px];
            let soft_tokens = tower
                .encode_observed(&pool, &image.pixels, size, &mut |seen| {
                    let Some((stage, values)) = seen else {
                        pauses += 1;
                        return;
                    };
                    match stage {
                        Stage::PatchEmbed => close("patch_embed", values, &want("patch_embed").0),
                        Stage::Layer(layer) if layer >= first => {
                            let want = &blocks[(layer - first) * block..][..block];
                            close(&format!("layer {layer}"), values, want);
                        }
                        Stage::Layer(_) => {}
                        Stage::Pooled => close("pooled", values, &want("pooled").0),
                    }
                    stages.push(stage);
                })
                .unwrap();
            let (values, shape) = want("soft_tokens");
            assert_eq!(tower.soft_tokens(size), shape[0]);
            close("soft_tokens", &soft_tokens, &values);
            let mut all = vec![Stage::PatchEmbed];
            all.extend((0..layers).map(Stage::Layer));
            all.push(Stage::Pooled);
            assert_eq!(stages, all);
            assert!(pauses > layers, "{pauses} times in {layers} layers");
        }
    }
}

#[test]
fn patches_lie_row_by_row() {
    let golden = golden();
    let tower = tower(&fixtures_gemma4());
    for name in PICTURES {
        let image = picture(&golden, &format!("{name}.resized_u8_hwc"));
        let grid = tower.grid([image.width_px, image.height_px]).unwrap();
        let (positions, shape) = golden.i32(&format!("{name}.positions_xy"));
        assert_eq!(shape, [grid.patches(), 2]);
        for (patch, position) in positions.chunks_exact(2).enumerate() {
            let want = [patch % grid.columns, patch / grid.columns];
            assert_eq!([position[0] as usize, position[1] as usize], want);
        }
    }
}

#[test]
fn pictures_as_they_come_are_seen_as_the_reference_sees_them() {
    let golden = golden();
    let tower = tower(&fixtures_gemma4());
    let pool = Pool::new(Isa::best(), 2);
    let dir = fixtures_gemma4();
    let processor = ProcessorConfig::load(&dir).unwrap();
    let architecture = family::load(&dir).unwrap();
    let (own, _) = architecture
        .picture_options(PictureOptions::default(), &processor)
        .unwrap();
    for name in PICTURES {
        let image = picture(&golden, &format!("{name}.image_u8_hwc"));
        let want = picture(&golden, &format!("{name}.resized_u8_hwc"));
        let size = tower
            .input_size(own, image.width_px, image.height_px)
            .unwrap();
        assert_eq!(size, [want.width_px, want.height_px]);
        assert_eq!(tower.resampling(), Resampling::Bicubic);
        let got = image.resized(size[0], size[1], tower.resampling());
        // Pillow's own differ from torchvision's as much: by 1 here and there, by 2 once in 100 000.
        let off = |least: u8| {
            let pairs = got.pixels.iter().zip(&want.pixels);
            let differ = pairs.filter(|(got, want)| got.abs_diff(**want) >= least);
            differ.count() as f64 / got.pixels.len() as f64
        };
        assert!(off(1) < 0.005 && off(2) < 1e-4, "{name}: {}", off(1));
        assert_eq!(off(3), 0.0, "{name}");
        let (want, _) = golden.f32(&format!("{name}.soft_tokens"));
        let share = share_off(&encoded(&tower, &pool, &got), &want);
        println!("{name}: {share:.5} of the soft tokens");
        assert!(share < RESIZED, "{name}: {share}");
    }
}

#[test]
fn packs_see_pictures_as_the_reference_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let golden = golden();
    let pack = dir.path().join("tiny.pack");
    let options = PackOptions {
        recipe: Recipe::Balanced,
        force: false,
        ..PackOptions::default()
    };
    let pool = Pool::new(Isa::best(), 2);
    pack_checkpoint(&fixtures_gemma4(), &pack, options, &pool, &mut |_, _| {}).unwrap();
    let tower = tower(&pack);
    for isa in instruction_sets() {
        let pool = Pool::new(isa, 2);
        for name in PICTURES {
            let image = picture(&golden, &format!("{name}.resized_u8_hwc"));
            let got = encoded(&tower, &pool, &image);
            let (want, _) = golden.f32(&format!("{name}.soft_tokens"));
            let share = share_off(&got, &want);
            // 8 bits are no 16: an error of nothing would mean that the pack was not read.
            assert!((1e-4..0.05).contains(&share), "{isa} {name}: {share}");
        }
    }
}
