//! The bits of a JPEG's scan, as far as blocks are stepped over.

use super::jpeg_tables::Huffman;

/// A marker, over its fill bytes, and what follows.
pub(super) fn marker_of(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let bytes = bytes.strip_prefix(&[0xff])?;
    let at = bytes.iter().position(|&byte| byte != 0xff)?;
    Some((bytes[at], &bytes[at + 1..]))
}

/// A segment without its length, and what follows.
pub(super) fn segment_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    Some((bytes.get(2..length)?, &bytes[length..]))
}

/// A number of two bytes.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The bits of a scan, stuffed bytes left out.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits not read yet, the next one uppermost, zeros below.
    ahead: u64,
    count: u32,
    /// Bits of zero that were made up behind the end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits {
            bytes,
            at: 0,
            ahead: 0,
            count: 0,
            made_up: 0,
        }
    }

    /// At least 32 bits, as many as the longest code with its value may have and one more.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(&next) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<4>)
            && !next.contains(&0xff)
        {
            self.ahead |= u64::from(u32::from_be_bytes(next)) << (32 - self.count);
            self.at += 4;
            self.count += 32;
            return;
        }
        while self.count <= 56 {
            let next = match self.bytes.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                // A marker, or the end.
                Some([0xff, ..] | []) | None => {
                    self.made_up += 8;
                    0
                }
                Some(&[byte, ..]) => {
                    self.at += 1;
                    byte
                }
            };
            self.ahead |= u64::from(next) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.ahead <<= bits;
        self.count -= bits;
    }

    /// What a DC coefficient differs by from the one before (T.81 F.2.2.1).
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &Huffman) -> Option<i32> {
        self.fill();
        let (length, size) = table.symbol(self.ahead)?;
        if size > 15 {
            return None;
        }
        self.skip(length);
        let size = u32::from(size);
        // Shifted in two steps, as no bits at all are a value too.
        let value = (self.ahead >> 1 >> (63 - size)) as i32;
        self.skip(size);
        let is_negative = size > 0 && value >> (size - 1) == 0;
        Some(if is_negative {
            value - (1 << size) + 1
        } else {
            value
        })
    }

    /// Steps over the 63 other coefficients of a block (T.81 F.2.2.2).
    #[inline(always)]
    pub(super) fn step_over_block(&mut self, table: &Huffman) -> Option<()> {
        let mut coefficient = 1;
        while coefficient < 64 {
            self.fill();
            let (bits, coefficients) = table.step(self.ahead)?;
            self.skip(bits);
            coefficient += coefficients;
        }
        (coefficient == 64 || coefficient >= Huffman::END_OF_BLOCK).then_some(())
    }

    /// Whether nothing was read that was made up.
    pub(super) fn is_whole(&self) -> bool {
        self.made_up <= self.count
    }

    /// Where the next byte lies of which nothing was read; `None` if something was read that was made up.
    pub(super) fn position(&self) -> Option<usize> {
        let mut at = self.at;
        for _ in 0..self.count.checked_sub(self.made_up)? / 8 {
            // Stuffed bytes are two in the file.
            let stuffed = self.bytes[..at].ends_with(&[0xff, 0]);
            at = at.checked_sub(1 + usize::from(stuffed))?;
        }
        Some(at)
    }

    /// Steps over restart marker `index` (T.81 F.2.1.3.1).
    pub(super) fn restart(&mut self, index: usize) -> Option<()> {
        let padding = self.count.checked_sub(self.made_up)?;
        let (marker, rest) = marker_of(self.bytes.get(self.at..)?)?;
        if padding >= 8 || marker != 0xd0 + (index % 8) as u8 {
            return None;
        }
        *self = Bits::new(rest);
        Some(())
    }
}
