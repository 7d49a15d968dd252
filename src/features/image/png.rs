//! PNG by the `png` crate.

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{ImageError, ImageLimits, RgbImage, check_size};

/// The picture as it lies in the file, and the Exif block if there is one.
pub(super) fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<(RgbImage, Option<Vec<u8>>), ImageError> {
    let failed = |error: DecodingError| match error {
        DecodingError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated {
                format: "PNG",
                bytes: bytes.len(),
            }
        }
        error => ImageError::Damaged {
            format: "PNG",
            reason: error.to_string(),
        },
    };
    let mut decoder = Decoder::new_with_limits(
        Cursor::new(bytes),
        Limits {
            bytes: limits.max_pixels.saturating_mul(8),
        },
    );
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width_px, height_px) = (header.width as usize, header.height as usize);
    check_size(width_px, height_px, limits)?;

    let mut reader = decoder.read_info().map_err(failed)?;
    let exif = reader
        .info()
        .exif_metadata
        .as_ref()
        .map(|exif| exif.to_vec());
    let size = reader
        .output_buffer_size()
        .ok_or(ImageError::TooManyPixels {
            width_px,
            height_px,
            max_pixels: limits.max_pixels,
        })?;
    let mut samples = vec![0; size];
    let info = reader.next_frame(&mut samples).map_err(failed)?;
    samples.truncate(info.buffer_size());
    let pixels = match info.color_type {
        ColorType::Rgb => samples,
        ColorType::Rgba => samples
            .chunks_exact(4)
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect(),
        ColorType::Grayscale => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => samples.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Indexed => {
            return Err(ImageError::Damaged {
                format: "PNG",
                reason: "a palette picture without a palette".into(),
            });
        }
    };
    Ok((
        RgbImage {
            width_px: info.width as usize,
            height_px: info.height as usize,
            pixels,
        },
        exif,
    ))
}
