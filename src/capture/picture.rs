//! A picture as a source gives it: a file, or raw pixels that become one only when somebody wants to look.

use std::time::SystemTime;

use jpeg_encoder::{ColorType, Encoder, EncodingError, ImageBuffer, JpegColorType};

use super::motion::GRID_COLUMNS;
use crate::features::image::{ImageError, ImageLimits, LumaImage, Overview};
use crate::media::VideoFrame;

/// Quality of pictures that are encoded here, 1 to 100: what cameras use.
const JPEG_QUALITY: u8 = 85;

/// How raw pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelFormat {
    /// Two pixels in four bytes: Y, Cb, Y, Cr.
    Yuyv,
    /// Rows of Y, then rows of Cb and Cr in turn, half as many and half as wide.
    Nv12,
    /// Y only.
    Grey,
}

/// Raw pixels.
#[derive(Clone, Debug)]
pub(super) struct RawImage {
    format: PixelFormat,
    width: usize,
    height: usize,
    /// Bytes from one row to the next.
    stride: usize,
    bytes: Vec<u8>,
}

impl RawImage {
    /// Raw pixels with a width and height that are even (but for [`PixelFormat::Grey`]), as these formats have them.
    ///
    /// # Errors
    /// The bytes are too few for that size: the frame is cut off.
    pub(super) fn new(
        format: PixelFormat,
        (width, height): (usize, usize),
        stride: usize,
        bytes: Vec<u8>,
    ) -> Result<RawImage, String> {
        let row_bytes = match format {
            PixelFormat::Yuyv => width
                .checked_next_multiple_of(2)
                .and_then(|w| w.checked_mul(2)),
            PixelFormat::Nv12 => width.checked_next_multiple_of(2),
            PixelFormat::Grey => Some(width),
        };
        let rows = match format {
            PixelFormat::Nv12 => height.checked_add(height.div_ceil(2)),
            PixelFormat::Yuyv | PixelFormat::Grey => Some(height),
        };
        // Some drivers leave the stride empty.
        let stride = stride.max(row_bytes.unwrap_or(usize::MAX));
        let needed = rows
            .and_then(|rows| rows.checked_sub(1))
            .and_then(|rows| rows.checked_mul(stride))
            .and_then(|whole| whole.checked_add(row_bytes?));
        let sides = 1..=usize::from(u16::MAX);
        match needed {
            Some(needed)
                if needed <= bytes.len() && sides.contains(&width) && sides.contains(&height) =>
            {
                Ok(RawImage {
                    format,
                    width,
                    height,
                    stride,
                    bytes,
                })
            }
            _ => Err(format!(
                "a frame of {width} x {height} pixels came with {} bytes only",
                bytes.len()
            )),
        }
    }

    fn luma(&self) -> LumaImage {
        let step = match self.format {
            PixelFormat::Yuyv => 2,
            PixelFormat::Nv12 | PixelFormat::Grey => 1,
        };
        let rows = self.bytes.chunks(self.stride).take(self.height);
        LumaImage {
            width_px: self.width,
            height_px: self.height,
            pixels: rows
                .flat_map(|row| row.iter().step_by(step).take(self.width).copied())
                .collect(),
        }
    }

    fn jpeg(&self) -> Result<Vec<u8>, EncodingError> {
        let mut file = Vec::new();
        let encoder = Encoder::new(&mut file, JPEG_QUALITY);
        if self.format == PixelFormat::Grey {
            let (width, height) = (self.width as u16, self.height as u16);
            encoder.encode(&self.luma().pixels, width, height, ColorType::Luma)?;
        } else {
            encoder.encode_image(FullRange(self))?;
        }
        Ok(file)
    }

    /// Y, Cb and Cr of a pixel.
    fn ycbcr(&self, x: usize, y: usize) -> [u8; 3] {
        let pair = x & !1;
        match self.format {
            PixelFormat::Yuyv => {
                let at = y * self.stride + pair * 2;
                let byte = |i: usize| self.bytes[at + i];
                [byte(if x == pair { 0 } else { 2 }), byte(1), byte(3)]
            }
            PixelFormat::Nv12 => {
                let chroma = (self.height + y / 2) * self.stride + pair;
                [
                    self.bytes[y * self.stride + x],
                    self.bytes[chroma],
                    self.bytes[chroma + 1],
                ]
            }
            PixelFormat::Grey => [self.bytes[y * self.stride + x], 128, 128],
        }
    }
}

/// Colours as JPEG has them: cameras that give raw video keep Y within 16 to 235 and Cb, Cr within 16 to 240.
struct FullRange<'a>(&'a RawImage);

impl ImageBuffer for FullRange<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.0.width as u16
    }

    fn height(&self) -> u16 {
        self.0.height as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let stretch = |value: u8, middle: i32, range: i32| {
            let from_middle = i32::from(value) - middle;
            (from_middle * 255 + from_middle.signum() * range / 2) / range
        };
        for x in 0..self.0.width {
            let [luma, blue, red] = self.0.ycbcr(x, usize::from(y));
            buffers[0].push(stretch(luma, 16, 219).clamp(0, 255) as u8);
            buffers[1].push((128 + stretch(blue, 128, 224)).clamp(0, 255) as u8);
            buffers[2].push((128 + stretch(red, 128, 224)).clamp(0, 255) as u8);
        }
    }
}

/// A picture and when it was taken.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) pixels: Pixels,
    pub(super) taken_at: SystemTime,
}

/// What a picture is made of.
#[derive(Clone, Debug)]
pub(super) enum Pixels {
    /// The bytes of a JPEG or PNG file, not looked at yet.
    File(Vec<u8>),
    /// Raw pixels.
    Raw(RawImage),
}

impl Picture {
    /// Its brightness, for motion.
    ///
    /// # Errors
    /// It is damaged, or beyond the limits.
    pub(super) fn overview(&self, limits: &ImageLimits) -> Result<Overview, ImageError> {
        match &self.pixels {
            Pixels::File(bytes) => Overview::decode(bytes, GRID_COLUMNS, limits),
            Pixels::Raw(raw) => Ok(Overview {
                picture_px: (raw.width, raw.height),
                luma: raw.luma(),
            }),
        }
    }

    /// The picture as a file, known to be whole: `width` and `height` are its overview's.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(super) fn into_frame(
        self,
        (width, height): (usize, usize),
    ) -> Result<VideoFrame, EncodingError> {
        Ok(VideoFrame {
            encoded: match self.pixels {
                Pixels::File(bytes) => bytes,
                Pixels::Raw(raw) => raw.jpeg()?,
            },
            width_px: width as u32,
            height_px: height as u32,
            taken_at: self.taken_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::image::RgbImage;

    /// Colour bars at full saturation, RGB and the Y, Cb, Cr of video (ITU-R BT.601).
    const BARS: [([u8; 3], [u8; 3]); 6] = [
        ([255, 255, 255], [235, 128, 128]),
        ([255, 255, 0], [210, 16, 146]),
        ([0, 255, 0], [145, 54, 34]),
        ([255, 0, 0], [81, 90, 240]),
        ([0, 0, 255], [41, 240, 110]),
        ([0, 0, 0], [16, 128, 128]),
    ];
    const BAR_PX: usize = 16;
    const SIZE: (usize, usize) = (BARS.len() * BAR_PX, 32);
    /// Bytes behind each row.
    const PADDING: usize = 6;

    fn bars(format: PixelFormat) -> RawImage {
        let (width, height) = SIZE;
        let color = |x: usize| BARS[x / BAR_PX].1;
        let row = |even: &dyn Fn(usize) -> Vec<u8>| -> Vec<u8> {
            let pairs = (0..width).step_by(2).flat_map(even);
            pairs.chain([77; PADDING]).collect()
        };
        let luma = row(&|x| vec![color(x)[0], color(x)[0]]);
        let bytes: Vec<u8> = match format {
            PixelFormat::Yuyv => row(&|x| {
                let [y, cb, cr] = color(x);
                vec![y, cb, y, cr]
            })
            .repeat(height),
            PixelFormat::Nv12 => [
                luma.repeat(height),
                row(&|x| color(x)[1..].to_vec()).repeat(height / 2),
            ]
            .concat(),
            PixelFormat::Grey => luma.repeat(height),
        };
        let stride = bytes.len()
            / (height
                + if format == PixelFormat::Nv12 {
                    height / 2
                } else {
                    0
                });
        RawImage::new(format, SIZE, stride, bytes).unwrap()
    }

    #[test]
    fn raw_pixels_become_the_colours_that_they_stand_for() {
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
            let jpeg = bars(format).jpeg().unwrap();
            let image = RgbImage::decode(&jpeg, &ImageLimits::default()).unwrap();
            assert_eq!((image.width_px, image.height_px), SIZE);
            for (i, (rgb, _)) in BARS.iter().enumerate() {
                // The middle of the bar: JPEG blurs its edges.
                let at = (SIZE.1 / 2 * SIZE.0 + i * BAR_PX + BAR_PX / 2) * 3;
                for (found, wanted) in image.pixels[at..at + 3].iter().zip(rgb) {
                    assert!(
                        found.abs_diff(*wanted) <= 8,
                        "{format:?} bar {i}: {:?}",
                        &image.pixels[at..at + 3]
                    );
                }
            }
        }
        let jpeg = bars(PixelFormat::Grey).jpeg().unwrap();
        let luma = LumaImage::decode(&jpeg, &ImageLimits::default()).unwrap();
        assert_eq!((luma.width_px, luma.height_px), SIZE);
        assert!(luma.pixels[3 * BAR_PX + BAR_PX / 2].abs_diff(81) <= 8);
    }

    #[test]
    fn luma_is_taken_without_a_detour() {
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey] {
            let luma = bars(format).luma();
            assert_eq!(luma.pixels.len(), SIZE.0 * SIZE.1);
            let wanted = |i: usize| BARS[i % SIZE.0 / BAR_PX].1[0];
            assert!((0..luma.pixels.len()).all(|i| luma.pixels[i] == wanted(i)));
        }
    }

    #[test]
    fn frames_that_are_cut_off_or_lie_are_refused() {
        for (format, size, stride, bytes) in [
            (PixelFormat::Yuyv, (640, 480), 1280, 614_399),
            (PixelFormat::Nv12, (640, 480), 640, 460_799),
            (PixelFormat::Grey, (640, 480), 640, 307_199),
            (PixelFormat::Grey, (0, 480), 0, 1000),
            (PixelFormat::Grey, (480, 0), 480, 1000),
            (
                PixelFormat::Yuyv,
                (usize::MAX, usize::MAX),
                usize::MAX,
                1000,
            ),
            (PixelFormat::Nv12, (70_000, 1), 70_000, 200_000),
        ] {
            assert!(
                RawImage::new(format, size, stride, vec![0; bytes]).is_err(),
                "{format:?} {size:?}"
            );
        }
        assert!(RawImage::new(PixelFormat::Yuyv, (640, 480), 0, vec![0; 614_400]).is_ok());
        // An odd size has whole pairs and a row of colours more.
        let odd = RawImage::new(PixelFormat::Nv12, (3, 3), 4, vec![128; 4 * 5]).unwrap();
        assert!(odd.jpeg().is_ok() && odd.luma().pixels.len() == 9);
    }
}
