//! The Exif orientation: which corner of the stored picture is the upper left one of the scene.

use exif::{In, Reader, Tag};

use super::RgbImage;

/// The orientation in an Exif block, 1 (upright) where it is missing, unreadable or out of range.
pub(super) fn of(exif: Vec<u8>) -> u32 {
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    let parsed = reader
        .read_raw(exif)
        .or_else(|error| error.distill_partial_result(|_| {}));
    parsed
        .ok()
        .and_then(|exif| {
            exif.get_field(Tag::Orientation, In::PRIMARY)?
                .value
                .get_uint(0)
        })
        .filter(|orientation| (1..=8).contains(orientation))
        .unwrap_or(1)
}

/// Turns and mirrors the stored picture so that it stands upright.
///
/// Source: Exif 2.3, tag 0x0112; the same table as Pillow's `ImageOps.exif_transpose`.
pub(super) fn upright(image: RgbImage, orientation: u32) -> RgbImage {
    if orientation == 1 {
        return image;
    }
    let (stored_width, stored_height) = (image.width_px, image.height_px);
    let swapped = orientation >= 5;
    let (width_px, height_px) = if swapped {
        (stored_height, stored_width)
    } else {
        (stored_width, stored_height)
    };
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for y in 0..height_px {
        for x in 0..width_px {
            let (right, bottom) = (width_px - 1 - x, height_px - 1 - y);
            let (column, row) = match orientation {
                2 => (right, y),
                3 => (right, bottom),
                4 => (x, bottom),
                5 => (y, x),
                6 => (y, right),
                7 => (bottom, right),
                _ => (bottom, x),
            };
            let at = (row * stored_width + column) * 3;
            pixels.extend_from_slice(&image.pixels[at..at + 3]);
        }
    }
    RgbImage {
        width_px,
        height_px,
        pixels,
    }
}
