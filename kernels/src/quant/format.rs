//! The four block formats and where each integer and scale lies in their bytes.

use std::ops::Range;

use half::f16;

use super::block_format::{
    BlockFormat, GROUP, TILE_ROWS, from_row, from_tile, into_row, into_tile,
};

/// Tiles and rows start on multiples of this: a cache line, and the widest register.
const ALIGNMENT_BYTES: usize = 64;

/// A block format: bits a weight and arrangement (see [`crate::quant`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bit, in tiles of 16 rows.
    Q4Tiled,
    /// 8 bit, in tiles of 16 rows.
    Q8Tiled,
    /// 4 bit, row by row.
    Q4Rows,
    /// 8 bit, row by row.
    Q8Rows,
}

/// Does `$do` where `$F` is the type of a [`Format`]: the one place that lists them.
macro_rules! with_block_format {
    ($format:expr, $F:ident => $do:expr) => {
        match $format {
            $crate::quant::Format::Q4Tiled | $crate::quant::Format::Q4Rows => {
                type $F = $crate::quant::Q4;
                $do
            }
            $crate::quant::Format::Q8Tiled | $crate::quant::Format::Q8Rows => {
                type $F = $crate::quant::Q8;
                $do
            }
        }
    };
}
pub(crate) use with_block_format;

impl Format {
    /// Bits of a weight, without its part of the scale.
    pub fn bits(self) -> usize {
        with_block_format!(self, F => F::BITS)
    }

    /// Whether 16 rows are interleaved.
    pub fn is_tiled(self) -> bool {
        matches!(self, Format::Q4Tiled | Format::Q8Tiled)
    }

    /// Rows that are stored as one unit: 16 when tiled, else 1.
    pub(crate) fn unit_rows(self) -> usize {
        if self.is_tiled() { TILE_ROWS } else { 1 }
    }

    /// Bytes of the integers of one group of one row.
    pub(crate) fn group_bytes(self) -> usize {
        GROUP * self.bits() / 8
    }

    /// Bytes of the integers of `cols` columns of one row, whole groups. Where a row stands alone they are its first bytes, and its
    /// scales stand behind those of all its columns.
    pub fn integer_bytes(self, cols: usize) -> usize {
        cols.div_ceil(GROUP) * self.group_bytes()
    }

    /// Bytes of one unit (a tile or a row) of a matrix with `cols` columns; `None` where that does not fit a `usize`.
    pub fn unit_bytes(self, cols: usize) -> Option<usize> {
        cols.div_ceil(GROUP)
            .checked_mul(self.unit_rows() * (self.group_bytes() + size_of::<f16>()))?
            .checked_next_multiple_of(ALIGNMENT_BYTES)
    }

    /// Bytes of a whole matrix; `None` where that does not fit a `usize`.
    pub fn matrix_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        self.unit_bytes(cols)?
            .checked_mul(rows.div_ceil(self.unit_rows()))
    }

    /// Writes one group of one row into the bytes of its unit, which are 0 so far: the inverse of [`Quantized::group`].
    pub(super) fn store_group<F: BlockFormat>(
        self,
        unit: &mut [u8],
        groups: usize,
        row: usize,
        group: usize,
        integers: &[i8; GROUP],
        scale: f16,
    ) {
        let unit_rows = self.unit_rows();
        let group_bytes = unit_rows * self.group_bytes();
        let scale_at = groups * group_bytes + (group * unit_rows + row) * 2;
        unit[scale_at..scale_at + 2].copy_from_slice(&scale.to_le_bytes());
        let bytes = &mut unit[group * group_bytes..][..group_bytes];
        if self.is_tiled() {
            into_tile::<F>(integers, bytes, row);
        } else {
            into_row::<F>(integers, bytes);
        }
    }
}

/// A view of a quantised matrix, or of some of its rows and columns: `bytes` hold `rows × cols` weights in `format`.
#[derive(Clone, Copy, Debug)]
pub struct Quantized<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    /// Groups of a row as it is stored, and how many of them lie before the first column.
    stored_groups: usize,
    first_group: usize,
    unit_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Quantized<'a> {
    /// Views `bytes` as a matrix; `None` where their number is not [`Format::matrix_bytes`].
    pub fn new(format: Format, bytes: &'a [u8], rows: usize, cols: usize) -> Option<Self> {
        let unit_bytes = format.unit_bytes(cols)?;
        (bytes.len() == format.matrix_bytes(rows, cols)?).then_some(Quantized {
            format,
            rows,
            cols,
            stored_groups: cols.div_ceil(GROUP),
            first_group: 0,
            unit_bytes,
            bytes,
        })
    }

    /// The block format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the integers and scales, and of the padding if no columns are left out.
    pub fn bytes(&self) -> usize {
        if self.groups() == self.stored_groups {
            return self.bytes.len();
        }
        let (integers, scales) = self.unit_lengths();
        self.rows.div_ceil(self.format.unit_rows()) * (integers + scales)
    }

    /// Rows, without padding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP)
    }

    /// The rows `first .. first + rows`.
    ///
    /// # Panics
    /// When the range is out of bounds, or `first` does not start a tile of a tiled format.
    pub fn slice_rows(&self, first: usize, rows: usize) -> Self {
        let unit = self.format.unit_rows();
        assert!(
            first + rows <= self.rows,
            "rows {first}..{} of a matrix of {} rows",
            first + rows,
            self.rows
        );
        assert!(
            first.is_multiple_of(unit),
            "row {first} does not start a tile of {unit} rows"
        );
        let bytes = &self.bytes
            [first / unit * self.unit_bytes..(first + rows).div_ceil(unit) * self.unit_bytes];
        Quantized {
            rows,
            bytes,
            ..*self
        }
    }

    /// The columns of `range`.
    ///
    /// # Panics
    /// When the range is out of bounds, or begins or ends within a group, but at the last column.
    pub fn slice_columns(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of a matrix of {} columns",
            self.cols
        );
        let cuts_a_group = |at: usize| at != self.cols && !at.is_multiple_of(GROUP);
        assert!(
            !cuts_a_group(range.start) && !cuts_a_group(range.end),
            "columns {range:?} of a matrix quantised in groups of {GROUP}"
        );
        Quantized {
            cols: range.len(),
            first_group: self.first_group + range.start / GROUP,
            ..*self
        }
    }

    /// Bytes of the integers and of the scales of a unit.
    pub(crate) fn unit_lengths(&self) -> (usize, usize) {
        let groups = self.groups() * self.format.unit_rows();
        (
            groups * self.format.group_bytes(),
            groups * size_of::<f16>(),
        )
    }

    /// The integers and the f16 scales (little-endian) of unit `unit`: a tile or a row.
    pub(crate) fn unit(&self, unit: usize) -> (&'a [u8], &'a [u8]) {
        let (integers, scales) = self.unit_lengths();
        let bytes = &self.bytes[unit * self.unit_bytes..][..self.unit_bytes];
        let rows = self.format.unit_rows();
        let (integer_bytes, scale_bytes) =
            (rows * self.format.group_bytes(), rows * size_of::<f16>());
        let (all_integers, all_scales) = bytes.split_at(self.stored_groups * integer_bytes);
        (
            &all_integers[self.first_group * integer_bytes..][..integers],
            &all_scales[self.first_group * scale_bytes..][..scales],
        )
    }

    /// Unpacks group `group` of `row` into integers and returns its scale.
    pub(crate) fn group(&self, row: usize, group: usize, integers: &mut [i8; GROUP]) -> f32 {
        let unit_rows = self.format.unit_rows();
        let (bytes, scales) = self.unit(row / unit_rows);
        let row = row % unit_rows;
        let group_bytes = unit_rows * self.format.group_bytes();
        let bytes = &bytes[group * group_bytes..][..group_bytes];
        *integers = with_block_format!(self.format, F => if self.format.is_tiled() {
            from_tile::<F>(bytes, row)
        } else {
            from_row::<F>(bytes)
        });
        let scale = &scales[(group * unit_rows + row) * 2..][..2];
        f16::from_le_bytes([scale[0], scale[1]]).to_f32()
    }
}
