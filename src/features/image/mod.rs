//! Pictures: a JPEG or PNG file becomes upright 8-bit RGB, then of the size that the vision encoder looks at.
//!
//! Files are told apart by their first bytes, never by their names. The header is judged against [`ImageLimits`] before
//! anything is allocated, so a small file that promises a huge picture costs nothing.

mod jpeg;
mod jpeg_bits;
mod jpeg_blocks;
mod jpeg_file;
mod jpeg_tables;
mod orientation;
mod png;
mod resize;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::media::Resampling;

/// What a picture may cost; a file beyond it is refused with an error that names the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageLimits {
    /// Largest file, in bytes.
    pub max_file_bytes: usize,
    /// Most pixels (width x height) that a header may promise.
    pub max_pixels: usize,
}

impl Default for ImageLimits {
    /// 16 MiB and 2^24 pixels: a 12-megapixel photograph passes, and decoding needs at most about 150 MB.
    fn default() -> Self {
        ImageLimits {
            max_file_bytes: 16 << 20,
            max_pixels: 1 << 24,
        }
    }
}

/// Why a picture could not be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot read the picture {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no picture that can be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ImageError>,
    },
    /// There is nothing in the file.
    #[error("the picture is empty (0 bytes)")]
    Empty,
    /// The file is larger than allowed.
    #[error(
        "the picture is larger than {max_file_bytes} bytes; make it smaller or raise max_file_bytes"
    )]
    TooManyBytes {
        /// The limit.
        max_file_bytes: usize,
    },
    /// The header promises more pixels than allowed.
    #[error(
        "the picture is {width_px} x {height_px} pixels, more than {max_pixels} in all; make it smaller or raise max_pixels"
    )]
    TooManyPixels {
        /// Width in the header.
        width_px: usize,
        /// Height in the header.
        height_px: usize,
        /// The limit.
        max_pixels: usize,
    },
    /// A known format that is not decoded here.
    #[error("the picture is {format}; only JPEG and PNG are understood, convert it first")]
    Unsupported {
        /// The format's name.
        format: &'static str,
    },
    /// No known format.
    #[error(
        "the file is not a picture: it starts with {start:02x?}, which is neither JPEG nor PNG"
    )]
    Unknown {
        /// The first bytes.
        start: Vec<u8>,
    },
    /// The file ends too early.
    #[error(
        "the {format} picture is cut off: it ends early, before its last pixels ({bytes} bytes present)"
    )]
    Truncated {
        /// The format's name.
        format: &'static str,
        /// Bytes in the file.
        bytes: usize,
    },
    /// The file contradicts its format.
    #[error("the {format} picture is damaged: {reason}")]
    Damaged {
        /// The format's name.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// An upright picture, 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// `[height_px, width_px, 3]`, red first.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// Reads and decodes a picture file.
    ///
    /// # Errors
    /// The file cannot be read, is beyond the limits, or is not a whole JPEG or PNG.
    pub fn open(path: &Path, limits: &ImageLimits) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        // One byte more than allowed, so that a device or a growing file is cut short too.
        let most = limits.max_file_bytes as u64 + 1;
        File::open(path)
            .map_err(read)?
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        Self::decode(&bytes, limits).map_err(|error| ImageError::File {
            path: path.to_owned(),
            source: Box::new(error),
        })
    }

    /// Decodes a JPEG or PNG held in memory and turns it upright.
    ///
    /// Grey is spread over the three channels, a palette is looked up, alpha is dropped, CMYK is converted as Pillow does
    /// it; of 16 bits the upper 8 are kept (Pillow would clip 16-bit grey to white instead). Of an animated PNG the still
    /// picture is used. The Exif orientation is applied.
    ///
    /// # Errors
    /// The picture is beyond the limits, or not a whole JPEG or PNG.
    pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if bytes.len() > limits.max_file_bytes {
            return Err(ImageError::TooManyBytes {
                max_file_bytes: limits.max_file_bytes,
            });
        }
        let (image, exif) = match Format::of(bytes) {
            Some(Format::Jpeg) => jpeg::decode(bytes, limits)?,
            Some(Format::Png) => png::decode(bytes, limits)?,
            Some(Format::Other(format)) => return Err(ImageError::Unsupported { format }),
            None => {
                return Err(ImageError::Unknown {
                    start: bytes[..bytes.len().min(8)].to_vec(),
                });
            }
        };
        Ok(match exif {
            Some(exif) => orientation::upright(image, orientation::of(exif)),
            None => image,
        })
    }

    /// Width and height of a JPEG or PNG held in memory, which is found to be whole; it lies as in the file.
    ///
    /// # Errors
    /// The picture is beyond the limits, or not a whole JPEG or PNG.
    pub fn size_of(bytes: &[u8], limits: &ImageLimits) -> Result<(u32, u32), ImageError> {
        let (width_px, height_px) = Overview::decode(bytes, 1, limits)?.picture_px;
        Ok((width_px as u32, height_px as u32))
    }

    /// The picture resized to `width_px` x `height_px`, its aspect ratio ignored, as the reference image processor does it.
    ///
    /// With antialiasing: a filter that widens as the picture shrinks, first along the rows and then along the columns, each
    /// pass in fixed point and rounded to 8 bits.
    ///
    /// Source: bilinear, `SiglipImageProcessorFast` of transformers (torchvision's `resize` on 8-bit tensors), bit for bit, from
    /// which Pillow's with 22-bit instead of 15-bit weights differs by at most 1 in about 0.3 % of the values. Bicubic, Pillow's
    /// `resize` with `BICUBIC`, bit for bit (from version 12 on Pillow goes along the columns first where that is less work, and
    /// then differs), from which torchvision's differs by 1 in less than 0.5 % of the values, and by 2 in one of 100 000.
    ///
    /// # Panics
    /// If a side of either picture is 0.
    pub fn resized(&self, width_px: usize, height_px: usize, resampling: Resampling) -> RgbImage {
        resize::resize(self, width_px, height_px, resampling)
    }
}

/// The brightness of a picture, 8 bits a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LumaImage {
    /// Columns.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// `[height_px, width_px]`.
    pub pixels: Vec<u8>,
}

impl LumaImage {
    /// Decodes the brightness of a JPEG or PNG held in memory, cheaper than [`RgbImage::decode`] for JPEG. The picture lies as
    /// in the file: the Exif orientation is not applied.
    ///
    /// # Errors
    /// The picture is beyond the limits, or not a whole JPEG or PNG.
    pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<LumaImage, ImageError> {
        // What has no luma of its own (CMYK), and what is damaged, goes the long way.
        if bytes.len() <= limits.max_file_bytes
            && matches!(Format::of(bytes), Some(Format::Jpeg))
            && let Ok(luma) = jpeg::decode_luma(bytes, limits)
        {
            return Ok(luma);
        }
        let rgb = RgbImage::decode(bytes, limits)?;
        // ITU-R BT.601, as JPEG has it, in 16-bit fixed point.
        let luma = |p: &[u8]| {
            let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
            ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) as u8
        };
        Ok(LumaImage {
            width_px: rgb.width_px,
            height_px: rgb.height_px,
            pixels: rgb.pixels.chunks_exact(3).map(luma).collect(),
        })
    }
}

/// The brightness of a picture where no detail is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Width and height of the picture itself, which was found to be whole.
    pub picture_px: (usize, usize),
    /// Its brightness, in as many columns and rows or in fewer.
    pub luma: LumaImage,
}

impl Overview {
    /// The brightness of a JPEG or PNG held in memory, in at least `columns` columns if it has so many. Of a JPEG that is wide enough
    /// only the means of its 8 x 8 blocks are decoded. The picture lies as in the file, as for [`LumaImage::decode`].
    ///
    /// # Errors
    /// The picture is beyond the limits, or not a whole JPEG or PNG.
    pub fn decode(
        bytes: &[u8],
        columns: usize,
        limits: &ImageLimits,
    ) -> Result<Overview, ImageError> {
        if bytes.len() <= limits.max_file_bytes
            && let Some(blocks) = jpeg_blocks::decode(bytes, columns, limits.max_pixels)
        {
            return Ok(blocks);
        }
        let luma = LumaImage::decode(bytes, limits)?;
        Ok(Overview {
            picture_px: (luma.width_px, luma.height_px),
            luma,
        })
    }
}

/// Refuses a header that promises too much.
fn check_size(width_px: usize, height_px: usize, limits: &ImageLimits) -> Result<(), ImageError> {
    match width_px.checked_mul(height_px) {
        Some(pixels) if pixels <= limits.max_pixels => Ok(()),
        _ => Err(ImageError::TooManyPixels {
            width_px,
            height_px,
            max_pixels: limits.max_pixels,
        }),
    }
}

/// What the first bytes of a file say it is.
enum Format {
    Jpeg,
    Png,
    Other(&'static str),
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Format> {
        let brand = bytes.get(8..12);
        Some(match bytes {
            [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Format::Png,
            [b'G', b'I', b'F', b'8', ..] => Format::Other("a GIF"),
            [b'B', b'M', ..] => Format::Other("a BMP"),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Format::Other("a TIFF"),
            [b'R', b'I', b'F', b'F', ..] if brand == Some(b"WEBP") => Format::Other("a WebP"),
            [0xff, 0x0a, ..] => Format::Other("a JPEG XL"),
            _ if bytes.get(4..8) == Some(b"ftyp") && brand == Some(b"avif") => {
                Format::Other("an AVIF")
            }
            _ if bytes.get(4..8) == Some(b"ftyp") => Format::Other("a HEIF or a video"),
            _ => return None,
        })
    }
}
