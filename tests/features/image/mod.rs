//! Pictures in: against Pillow's reading of the same files, against the golden resize, and what bad files do.

mod cameras;
mod overview;

use std::path::PathBuf;

use crate::common::Golden;
use gemmad::features::image::{ImageError, ImageLimits, LumaImage, RgbImage};
use gemmad::media::Resampling;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    RgbImage::decode(bytes, &ImageLimits::default())
}

/// Compares with what Pillow read there: (largest difference, mean difference).
fn against_pillow(name: &str) -> (u8, f64) {
    let got = RgbImage::open(&folder().join(name), &ImageLimits::default()).unwrap();
    let want = decode(&bytes(&format!("{name}.expected.png"))).unwrap();
    assert_eq!(
        (got.width_px, got.height_px),
        (want.width_px, want.height_px),
        "{name}"
    );
    let differences: Vec<u8> = got
        .pixels
        .iter()
        .zip(&want.pixels)
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    let sum: f64 = differences.iter().map(|&d| f64::from(d)).sum();
    (
        *differences.iter().max().unwrap(),
        sum / differences.len() as f64,
    )
}

#[test]
fn png_of_every_kind_is_read_as_pillow_reads_it() {
    let names = [
        "orientation_6.png",
        "rgba.png",
        "grey_alpha.png",
        "palette.png",
        "bilevel.png",
        "grey_16.png",
        "animated.png",
    ];
    for name in names {
        assert_eq!(against_pillow(name).0, 0, "{name}");
    }
}

#[test]
fn jpeg_of_every_kind_is_read_as_pillow_reads_it() {
    // Decoders may round the inverse DCT and the colour conversion differently, each by about one step.
    let names = [
        "grey.jpg",
        "cmyk_adobe.jpg",
        "cmyk_plain.jpg",
        "orientation_1.jpg",
    ];
    for name in names {
        let (worst, mean) = against_pillow(name);
        assert!(
            worst <= 4 && mean < 0.8,
            "{name}: at most {worst}, {mean} on average"
        );
    }
    // Halved colour channels are also interpolated differently.
    let (worst, mean) = against_pillow("progressive_420.jpg");
    assert!(
        worst <= 16 && mean < 1.5,
        "at most {worst}, {mean} on average"
    );
}

#[test]
fn every_exif_orientation_is_turned_upright() {
    for orientation in 1..=8 {
        let (worst, mean) = against_pillow(&format!("orientation_{orientation}.jpg"));
        assert!(
            worst <= 4 && mean < 0.8,
            "orientation {orientation}: at most {worst}, {mean} on average"
        );
    }
}

#[test]
fn the_resize_is_that_of_the_reference_processor() {
    let golden = Golden::open("vision");
    for name in ["photo", "icon"] {
        let (pixels, shape) = golden.u8(&format!("{name}.image_u8_hwc"));
        let image = RgbImage {
            height_px: shape[0],
            width_px: shape[1],
            pixels,
        };
        let (want, want_shape) = golden.u8(&format!("{name}.pixel_values_u8"));
        let size_px = want_shape[1];
        let got = image.resized(size_px, size_px, Resampling::Bilinear);
        let plane = size_px * size_px;
        let different = (0..plane * 3)
            .filter(|&i| got.pixels[i] != want[i % 3 * plane + i / 3])
            .count();
        assert_eq!(different, 0, "{name}: of {} values", plane * 3);

        let file = crate::common::fixtures()
            .join("golden")
            .join(format!("{name}.png"));
        assert_eq!(
            RgbImage::open(&file, &ImageLimits::default()).unwrap(),
            image,
            "{name}.png"
        );
    }
}

#[test]
fn the_bicubic_resize_is_that_of_pillow() {
    let image = decode(&bytes("edgy.png")).unwrap();
    for [width_px, height_px] in [[9, 7], [48, 48], [96, 16], [5, 60], [43, 20], [1, 1]] {
        let name = format!("edgy.png.{width_px}x{height_px}.png");
        let want = decode(&bytes(&name)).unwrap();
        let got = image.resized(width_px, height_px, Resampling::Bicubic);
        assert!(got == want, "{name}");
    }
    for resampling in [Resampling::Bilinear, Resampling::Bicubic] {
        assert_eq!(image.resized(43, 31, resampling), image);
    }
}

#[test]
fn a_picture_cut_short_is_an_error_wherever_it_is_cut() {
    for name in ["orientation_1.jpg", "progressive_420.jpg", "rgba.png"] {
        let whole = bytes(name);
        decode(&whole).unwrap();
        for length in 0..whole.len() - 1 {
            let closing = match name {
                "rgba.png" => 12,
                "orientation_1.jpg" => 2,
                // The last scan may be followed by another.
                _ => 0,
            };
            if length >= whole.len() - closing {
                continue; // all pixels are there
            }
            let error = decode(&whole[..length])
                .err()
                .unwrap_or_else(|| panic!("{name} cut to {length} bytes was accepted"));
            if length > whole.len() / 2 {
                assert!(
                    matches!(error, ImageError::Truncated { .. }),
                    "{name} cut to {length} bytes: {error}"
                );
            }
        }
    }
    let error = decode(&[]).unwrap_err();
    assert!(matches!(error, ImageError::Empty), "{error}");
}

#[test]
fn a_header_that_promises_too_much_is_refused_by_its_size() {
    // Only the size in the header changes: nothing of that size can have been read, nor was it set aside.
    let mut jpeg = bytes("orientation_1.jpg");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    jpeg[frame + 5..frame + 9]
        .copy_from_slice(&[20_000u16.to_be_bytes(), 20_000u16.to_be_bytes()].concat());
    let mut png = bytes("rgba.png");
    png[16..24].copy_from_slice(&[20_000u32.to_be_bytes(), 20_000u32.to_be_bytes()].concat());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    for file in [jpeg, png] {
        let error = decode(&file).unwrap_err();
        assert!(
            matches!(
                error,
                ImageError::TooManyPixels {
                    width_px: 20_000,
                    height_px: 20_000,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("max_pixels"), "{error}");
    }

    let limits = ImageLimits {
        max_file_bytes: 100,
        ..ImageLimits::default()
    };
    let error = RgbImage::open(&folder().join("rgba.png"), &limits).unwrap_err();
    let ImageError::File { source, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(
            **source,
            ImageError::TooManyBytes {
                max_file_bytes: 100
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("rgba.png"), "{error}");
}

#[test]
fn the_content_decides_not_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let misnamed = directory.path().join("picture.jpg");
    std::fs::copy(folder().join("rgba.png"), &misnamed).unwrap();
    let right = RgbImage::open(&folder().join("rgba.png"), &ImageLimits::default()).unwrap();
    assert_eq!(
        RgbImage::open(&misnamed, &ImageLimits::default()).unwrap(),
        right
    );

    let error = decode(&bytes("animated.gif")).unwrap_err();
    assert!(
        matches!(error, ImageError::Unsupported { format: "a GIF" }),
        "{error}"
    );
    let error = decode(b"not a picture at all").unwrap_err();
    assert!(matches!(error, ImageError::Unknown { .. }), "{error}");
    let error = RgbImage::open(
        &directory.path().join("missing.png"),
        &ImageLimits::default(),
    )
    .unwrap_err();
    assert!(matches!(error, ImageError::Read { .. }), "{error}");
    let error = RgbImage::open(directory.path(), &ImageLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Read { .. }), "{error}");
}

#[test]
fn damaged_bytes_never_panic() {
    // A fixed linear congruential sequence: the same damage on every run.
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for name in [
        "orientation_6.jpg",
        "progressive_420.jpg",
        "cmyk_adobe.jpg",
        "palette.png",
        "animated.png",
    ] {
        let whole = bytes(name);
        for _ in 0..400 {
            let mut file = whole.clone();
            for _ in 0..1 + random(4) {
                let at = random(file.len());
                file[at] = random(256) as u8;
            }
            if let Ok(image) = decode(&file) {
                assert_eq!(
                    image.pixels.len(),
                    image.width_px * image.height_px * 3,
                    "{name}"
                );
            }
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

/// The luma that cameras are watched by is that of the colours, and damage is seen as there.
#[test]
fn luma_is_that_of_the_colours() {
    let limits = ImageLimits::default();
    let mut jpegs = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        let (Ok(luma), Ok(rgb)) = (
            LumaImage::decode(&file, &limits),
            RgbImage::decode(&file, &limits),
        ) else {
            assert!(LumaImage::decode(&file, &limits).is_err());
            continue;
        };
        // One that is turned by its Exif orientation lies otherwise.
        if (luma.width_px, luma.height_px) != (rgb.width_px, rgb.height_px) {
            continue;
        }
        jpegs += usize::from(file.starts_with(&[0xff, 0xd8]));
        let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n as f64;
        let pixels = luma.pixels.len();
        let from_luma = mean(&mut luma.pixels.iter().map(|&y| f64::from(y)), pixels);
        let weigh =
            |p: &[u8]| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
        let from_rgb = mean(&mut rgb.pixels.chunks_exact(3).map(weigh), pixels);
        assert!(
            (from_luma - from_rgb).abs() < 1.5,
            "{from_luma} and {from_rgb}"
        );
    }
    assert!(jpegs > 0);
}
