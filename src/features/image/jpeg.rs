//! JPEG by `zune-jpeg`, which fills what is missing with grey; so whether the file is whole is looked at before, in `jpeg_file`.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::jpeg_file::sound;
use super::{ImageError, ImageLimits, LumaImage, RgbImage, check_size};

/// Bytes that every decoded pixel takes, by what it is decoded to.
const RGB_BYTES: usize = 3;
const LUMA_BYTES: usize = 1;

/// The luma alone, as it lies in the file: the colours are neither transformed nor interpolated.
pub(super) fn decode_luma(file: &[u8], limits: &ImageLimits) -> Result<LumaImage, ImageError> {
    let file = sound(file, limits)?;
    let ((width_px, height_px), pixels) =
        decode_as(&file.bytes, limits, ColorSpace::Luma, LUMA_BYTES)?;
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
    file: &[u8],
    limits: &ImageLimits,
) -> Result<(RgbImage, Option<Vec<u8>>), ImageError> {
    let file = sound(file, limits)?;
    let ((width_px, height_px), pixels) =
        decode_as(&file.bytes, limits, ColorSpace::RGB, RGB_BYTES)?;
    let image = RgbImage {
        width_px,
        height_px,
        pixels,
    };
    Ok((image, file.exif))
}

/// Width and height, and pixels of `pixel_bytes` each, of a file that is whole.
fn decode_as(
    bytes: &[u8],
    limits: &ImageLimits,
    colors: ColorSpace,
    pixel_bytes: usize,
) -> Result<((usize, usize), Vec<u8>), ImageError> {
    let failed = |reason: String| ImageError::Damaged {
        format: "JPEG",
        reason,
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
    let pixels = decoder
        .decode()
        .map_err(|error| failed(error.to_string()))?;
    if pixels.len() != width_px * height_px * pixel_bytes {
        return Err(failed(format!(
            "its colours are {:?}",
            decoder.input_colorspace()
        )));
    }
    Ok(((width_px, height_px), pixels))
}
