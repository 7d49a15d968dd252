//! JPEG by `zune-jpeg`, which fills what is missing with grey; so whether the file is whole is looked at here.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{ImageError, ImageLimits, LumaImage, RgbImage, check_size};

/// Bytes that every decoded pixel takes, by what it is decoded to.
const RGB_BYTES: usize = 3;
const LUMA_BYTES: usize = 1;

/// The luma alone, as it lies in the file: the colours are neither transformed nor interpolated.
pub(super) fn decode_luma(bytes: &[u8], limits: &ImageLimits) -> Result<LumaImage, ImageError> {
    let (decoder, pixels) = decode_as(bytes, limits, ColorSpace::Luma, LUMA_BYTES)?;
    let (width_px, height_px) = decoder.dimensions().unwrap_or_default();
    Ok(LumaImage {
        width_px,
        height_px,
        pixels,
    })
}

/// The picture as it lies in the file, and the Exif block if there is one.
///
/// The decoder takes four channels for Adobe's inverted CMYK, as Pillow does.
pub(super) fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<(RgbImage, Option<Vec<u8>>), ImageError> {
    let (decoder, pixels) = decode_as(bytes, limits, ColorSpace::RGB, RGB_BYTES)?;
    let (width_px, height_px) = decoder.dimensions().unwrap_or_default();
    Ok((
        RgbImage {
            width_px,
            height_px,
            pixels,
        },
        decoder.exif().cloned(),
    ))
}

type Decoder<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

/// The decoder after its work, and pixels of `pixel_bytes` each.
fn decode_as<'a>(
    bytes: &'a [u8],
    limits: &ImageLimits,
    colors: ColorSpace,
    pixel_bytes: usize,
) -> Result<(Decoder<'a>, Vec<u8>), ImageError> {
    let whole = is_whole(bytes);
    let failed = |reason: String| match whole {
        true => ImageError::Damaged {
            format: "JPEG",
            reason,
        },
        false => ImageError::Truncated {
            format: "JPEG",
            bytes: bytes.len(),
        },
    };
    // Sides are 16-bit in the format; the pixel limit below is the one that counts.
    let side = usize::from(u16::MAX);
    let options = DecoderOptions::default()
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_out_colorspace(colors);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder
        .decode_headers()
        .map_err(|error| failed(error.to_string()))?;
    let (width_px, height_px) = decoder
        .dimensions()
        .ok_or_else(|| failed("no size in the header".into()))?;
    check_size(width_px, height_px, limits)?;
    if !whole {
        return Err(ImageError::Truncated {
            format: "JPEG",
            bytes: bytes.len(),
        });
    }
    let pixels = decoder
        .decode()
        .map_err(|error| failed(error.to_string()))?;
    if pixels.len() != width_px * height_px * pixel_bytes {
        return Err(failed(format!(
            "its colours are {:?}",
            decoder.input_colorspace()
        )));
    }
    Ok((decoder, pixels))
}

/// Whether the end-of-image marker is reached after at least one scan.
///
/// A thumbnail inside an Exif segment has its own end marker, so segments are stepped over by their lengths; within a
/// scan a marker is an 0xff that is followed neither by a stuffed 0 nor by a restart code.
fn is_whole(bytes: &[u8]) -> bool {
    const START_OF_IMAGE: u8 = 0xd8;
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    const STANDALONE: u8 = 0x01;
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7);
    let mut scanned = false;
    let mut at = 2;
    while let Some(skip) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(2).position(is_marker))
    {
        at += skip + 2;
        match bytes[at - 1] {
            END_OF_IMAGE => return scanned,
            START_OF_IMAGE | STANDALONE => {}
            marker => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else {
                    return false;
                };
                scanned |= marker == START_OF_SCAN;
                at += usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
    false
}
