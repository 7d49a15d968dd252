//! The mean brightness of each 8 × 8 block of a JPEG, without decoding what is within the blocks: for motion, which is looked
//! for several times a second, day and night.
//!
//! A block's first coefficient is its mean (ITU-T T.81 A.3.3); the 63 others are stepped over, a table look-up each. That is an
//! order of magnitude cheaper than decoding the picture, for which no JPEG library has a way.

use super::jpeg_bits::{Bits, marker_of, segment_of, u16_at};
use super::jpeg_tables::{Huffman, Tables};
use super::{LumaImage, Overview};

/// Side of a block, pixels.
const BLOCK_PX: usize = 8;

/// One colour of the frame header (T.81 B.2.2).
#[derive(Clone, Copy)]
struct Component {
    id: u8,
    /// Blocks of an MCU.
    across: usize,
    down: usize,
    quantisation: u8,
    dc_table: u8,
    ac_table: u8,
}

/// What is known before the scan.
struct Header {
    tables: Tables,
    picture_px: (usize, usize),
    components: Vec<Component>,
    restart_interval: usize,
    /// Three colours that are not luma and chroma.
    is_rgb: bool,
}

/// The means of a baseline JPEG of at least `columns` blocks a row and at most `max_pixels`; a block that the edge cuts is one too.
///
/// `None` for anything that wants a real decoder: fewer blocks, progressive, with more than one scan, of colours other than luma and
/// chroma, damaged, cut off, too large.
pub(super) fn decode(bytes: &[u8], columns: usize, max_pixels: usize) -> Option<Overview> {
    let mut header = Header {
        tables: Tables::standard(),
        picture_px: (0, 0),
        components: Vec::new(),
        restart_interval: 0,
        is_rgb: false,
    };
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (marker, segment);
        (marker, rest) = marker_of(rest)?;
        // Some cameras begin twice.
        if marker == 0xd8 && header.components.is_empty() {
            continue;
        }
        (segment, rest) = segment_of(rest)?;
        match marker {
            // Baseline and extended sequential, which differ in nothing that is read here when samples have 8 bits.
            0xc0 | 0xc1 => header.frame(segment, columns, max_pixels)?,
            0xc4 => header.tables.add_huffman(segment)?,
            0xdb => header.tables.add_quantization(segment)?,
            0xdd => header.restart_interval = usize::from(u16_at(segment, 0)?),
            0xee if segment.starts_with(b"Adobe") => header.is_rgb = segment.get(11) == Some(&0),
            0xda => {
                header.scan(segment)?;
                return header.means(rest);
            }
            0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}

impl Header {
    fn frame(&mut self, segment: &[u8], columns: usize, max_pixels: usize) -> Option<()> {
        let &[precision, _, _, _, _, count, ref components @ ..] = segment else {
            return None;
        };
        let (height, width) = (u16_at(segment, 1)?, u16_at(segment, 3)?);
        let (width, height) = (usize::from(width), usize::from(height));
        let sized = width.div_ceil(BLOCK_PX) >= columns.max(1)
            && height > 0
            && width.checked_mul(height)? <= max_pixels;
        let known = matches!(count, 1 | 3) && components.len() == 3 * usize::from(count);
        if precision != 8 || !sized || !known || !self.components.is_empty() {
            return None;
        }
        self.picture_px = (width, height);
        for &[id, sampling, quantisation] in components.as_chunks::<3>().0 {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return None;
            }
            self.components.push(Component {
                id,
                across,
                down,
                quantisation,
                dc_table: 0,
                ac_table: 0,
            });
        }
        let luma = self.components[0];
        let finest = |c: &Component| c.across <= luma.across && c.down <= luma.down;
        let named_rgb = self.components.iter().map(|c| c.id).eq(*b"RGB");
        self.is_rgb |= named_rgb;
        self.components.iter().all(finest).then_some(())
    }

    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let count = self.components.len();
        let wanted = segment.len() == 2 * count + 4 && usize::from(segment[0]) == count;
        if count == 0 || !wanted || (count == 3 && self.is_rgb) {
            return None;
        }
        let selectors = segment[1..].as_chunks::<2>().0;
        for (component, [id, tables]) in self.components.iter_mut().zip(selectors) {
            if component.id != *id {
                return None;
            }
            (component.dc_table, component.ac_table) = (tables >> 4, tables & 15);
        }
        if let [only] = &mut self.components[..] {
            // A colour alone is not interleaved: its MCU is a block, whatever the header says (T.81 A.2.2).
            (only.across, only.down) = (1, 1);
        }
        Some(())
    }

    /// Decodes the scan (T.81 F.2).
    fn means(&self, scan: &[u8]) -> Option<Overview> {
        let coded: Vec<(&Component, &Huffman, &Huffman)> = self
            .components
            .iter()
            .map(|c| Some((c, self.tables.dc(c.dc_table)?, self.tables.ac(c.ac_table)?)))
            .collect::<Option<_>>()?;
        // What cannot be decoded is not to be watched: its captions would fail.
        let stepped = |c: &Component| self.tables.dc_step(c.quantisation).is_some();
        if !self.components.iter().all(stepped) {
            return None;
        }
        let luma = &self.components[0];
        let step = i32::from(self.tables.dc_step(luma.quantisation)?);
        let (width, height) = self.picture_px;
        let (columns, rows) = (width.div_ceil(BLOCK_PX), height.div_ceil(BLOCK_PX));
        let (mcu_columns, mcu_rows) = (columns.div_ceil(luma.across), rows.div_ceil(luma.down));

        let mut means = vec![0; columns * rows];
        let mut bits = Bits::new(scan);
        let mut predicted = [0i32; 3];
        for mcu in 0..mcu_columns * mcu_rows {
            if self.restart_interval > 0 && mcu > 0 && mcu % self.restart_interval == 0 {
                bits.restart(mcu / self.restart_interval - 1)?;
                predicted = [0; 3];
            }
            for (index, (component, dc, ac)) in coded.iter().enumerate() {
                for block in 0..component.across * component.down {
                    predicted[index] = predicted[index].wrapping_add(bits.difference(dc)?);
                    bits.step_over_block(ac)?;
                    if index > 0 {
                        continue;
                    }
                    let column = mcu % mcu_columns * luma.across + block % luma.across;
                    let row = mcu / mcu_columns * luma.down + block / luma.across;
                    if column < columns && row < rows {
                        let mean = predicted[0].wrapping_mul(step).wrapping_add(4) >> 3;
                        means[row * columns + column] =
                            mean.saturating_add(128).clamp(0, 255) as u8;
                    }
                }
            }
        }
        bits.is_whole().then_some(Overview {
            picture_px: self.picture_px,
            luma: LumaImage {
                width_px: columns,
                height_px: rows,
                pixels: means,
            },
        })
    }
}
