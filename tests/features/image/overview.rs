//! The overview that motion is looked for in: what it tells of a JPEG without decoding it is what decoding it tells, and it lets
//! nothing through that decoding would not.

use std::path::Path;

use gemmad::features::image::{ImageLimits, LumaImage, Overview};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// Neither side is a whole number of blocks.
const WIDTH: usize = 203;
const HEIGHT: usize = 117;

/// A picture with slopes, edges and noise.
fn scene() -> Vec<u8> {
    let mut seed = 1u32;
    let mut pixels = Vec::new();
    for (y, x) in (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (y, x))) {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (seed >> 27) as usize;
        let dark = if (x / 24 + y / 40) % 2 == 0 { 1 } else { 3 };
        pixels.extend([x, 200 - y, x / 2 + y].map(|value| ((value + noise) / dark).min(255) as u8));
    }
    pixels
}

fn encoded(quality: u8, set: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    set(&mut encoder);
    let size = (WIDTH as u16, HEIGHT as u16);
    encoder
        .encode(&scene(), size.0, size.1, ColorType::Rgb)
        .unwrap();
    file
}

fn overview(file: &[u8], columns: usize) -> Option<Overview> {
    Overview::decode(file, columns, &ImageLimits::default()).ok()
}

/// The largest difference between the means of an overview and of the picture decoded by `zune-jpeg`, over whole blocks.
fn difference(file: &[u8]) -> f32 {
    let seen = overview(file, 1).unwrap();
    let whole = LumaImage::decode(file, &ImageLimits::default()).unwrap();
    assert_eq!(seen.picture_px, (whole.width_px, whole.height_px));
    assert_eq!(
        seen.luma.width_px,
        whole.width_px.div_ceil(8),
        "the picture was decoded"
    );
    assert_eq!(seen.luma.height_px, whole.height_px.div_ceil(8));
    let mut largest = 0.0f32;
    for (row, column) in
        (0..whole.height_px / 8).flat_map(|y| (0..whole.width_px / 8).map(move |x| (y, x)))
    {
        let line = |y: usize| &whole.pixels[(row * 8 + y) * whole.width_px + column * 8..][..8];
        let sum: u32 = (0..8).flat_map(line).map(|&luma| u32::from(luma)).sum();
        let mean = f32::from(seen.luma.pixels[row * seen.luma.width_px + column]);
        largest = largest.max((sum as f32 / 64.0 - mean).abs());
    }
    largest
}

#[test]
fn means_of_blocks_are_those_of_the_decoded_picture() {
    for quality in [10, 50, 85, 100] {
        for sampling in [
            SamplingFactor::R_4_4_4,
            SamplingFactor::R_4_2_0,
            SamplingFactor::R_4_2_2,
            SamplingFactor::R_4_4_0,
        ] {
            for interval in [0, 1, 7] {
                let file = encoded(quality, |encoder| {
                    encoder.set_sampling_factor(sampling);
                    if interval > 0 {
                        encoder.set_restart_interval(interval);
                    }
                });
                let found = difference(&file);
                // Where the picture is clipped to black or white, its mean is not quite the block's.
                assert!(
                    found < 2.5,
                    "quality {quality}, {sampling:?}, {interval}: {found}"
                );
            }
        }
    }
}

#[test]
fn pictures_of_other_encoders_are_read_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    for name in ["grey.jpg", "orientation_1.jpg", "orientation_6.jpg"] {
        let found = difference(&std::fs::read(folder.join(name)).unwrap());
        assert!(found < 2.5, "{name}: {found}");
    }
}

/// Cameras leave the usual Huffman tables out; some say by a segment "AVI1" that they do.
#[test]
fn a_camera_s_picture_without_huffman_tables_is_read() {
    let whole = encoded(85, |_| ());
    let mut bare = whole[..2].to_vec();
    bare.extend([0xff, 0xe0, 0, 16]);
    bare.extend(b"AVI1\0\0\0\0\0\0\0\0\0\0");
    let mut at = 2;
    while whole[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        if !matches!(whole[at + 1], 0xc4 | 0xe0) {
            bare.extend(&whole[at..end]);
        }
        at = end;
    }
    bare.extend(&whole[at..]);
    assert!(bare.len() + 300 < whole.len(), "there were tables");
    assert!(difference(&bare) < 2.5);
    assert_eq!(overview(&bare, 1), overview(&whole, 1));
}

/// What cannot be decoded is not watched either: a camera would seem to work, and each of its captions fail.
#[test]
fn what_lacks_a_table_of_its_colours_is_refused() {
    let file = encoded(85, |_| ());
    let tables: Vec<usize> = (0..file.len() - 1)
        .filter(|&at| file[at..at + 2] == [0xff, 0xdb])
        .collect();
    let length = |at: usize| 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
    assert_eq!(tables.len(), 2, "one for luma, one for chroma");
    for at in tables {
        let mut lacking = file.clone();
        lacking.drain(at..at + length(at));
        assert_eq!(overview(&lacking, 1), None);
    }
}

#[test]
fn what_has_too_few_blocks_or_is_no_baseline_jpeg_is_decoded() {
    let baseline = encoded(85, |_| ());
    let progressive = encoded(85, |encoder| encoder.set_progressive(true));
    // Its optimised tables come with a scan for each colour.
    let scans = encoded(85, |encoder| encoder.set_optimized_huffman_tables(true));
    let png = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/rgba.png");
    for (file, columns) in [
        (&baseline, 27),
        (&progressive, 1),
        (&scans, 1),
        (&std::fs::read(png).unwrap(), 1),
    ] {
        let seen = overview(file, columns).unwrap();
        assert_eq!(
            seen.luma,
            LumaImage::decode(file, &ImageLimits::default()).unwrap()
        );
    }
    assert_eq!(overview(&baseline, 26).unwrap().luma.width_px, 26);
    let limits = ImageLimits {
        max_pixels: WIDTH * HEIGHT - 1,
        ..ImageLimits::default()
    };
    let told = Overview::decode(&baseline, 1, &limits)
        .unwrap_err()
        .to_string();
    assert!(told.contains("max_pixels"), "{told}");
}

#[test]
fn damage_is_told_and_never_a_panic() {
    let file = encoded(60, |encoder| {
        encoder.set_restart_interval(5);
    });
    // All blocks are there when nothing but the end marker is missing.
    let blocks = file.len() - 2;
    for end in 0..blocks {
        assert_eq!(overview(&file[..end], 1), None, "cut off at {end}");
    }
    assert_eq!(overview(&file[..blocks], 1), overview(&file, 1));
    let mut seed = 7u32;
    for _ in 0..4000 {
        let mut damaged = file.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % damaged.len();
            damaged[at] = seed as u8;
        }
        if let Some(seen) = overview(&damaged, 1) {
            assert_eq!(
                seen.luma.pixels.len(),
                seen.luma.width_px * seen.luma.height_px
            );
        }
    }
}
