//! A quantised matrix in the bytes in which it is stored.

use std::ops::Range;

use half::f16;

use super::block_format::{FIRST_COLUMN, GROUP, TOGETHER, from_row, from_tile};
use super::format::{Format, Scaled, with_integers};
use super::roundings::Roundings;

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
    roundings: Roundings,
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
            roundings: Roundings::default(),
            bytes,
        })
    }

    /// The same matrix, whose products round what goes in and what comes out.
    ///
    /// # Panics
    /// When there are roundings and the matrix is not scaled row by row.
    pub fn with_roundings(self, roundings: Roundings) -> Self {
        assert!(
            roundings == Roundings::default() || self.format.scaled() == Scaled::Row,
            "roundings of a matrix in {:?}",
            self.format
        );
        Quantized { roundings, ..self }
    }

    /// How its products round what goes in and what comes out.
    pub fn roundings(&self) -> Roundings {
        self.roundings
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
    /// When the range is out of bounds, begins elsewhere than at a multiple of [`FIRST_COLUMN`] (of a tiled matrix) or of a group, or ends
    /// within a group, but at the last column.
    pub fn slice_columns(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of a matrix of {} columns",
            self.cols
        );
        let first = match self.format.scaled() {
            _ if self.format.is_paired() => FIRST_COLUMN,
            Scaled::Group | Scaled::Row => GROUP,
            // Where it ends, scales of more columns do no harm.
            Scaled::Layer(width) => width,
        };
        assert!(
            range.start.is_multiple_of(first),
            "columns {range:?} of a matrix whose groups stand together in {first} columns"
        );
        let is_cut = |at: usize| at != self.cols && !at.is_multiple_of(GROUP);
        assert!(
            !is_cut(range.start) && !is_cut(range.end),
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
        let rows = self.format.unit_rows();
        (
            self.groups() * rows * self.format.group_bytes(),
            self.format.row_scales(self.cols) * rows * self.format.scale_bytes(),
        )
    }

    /// The pairs of groups of tile `tile` of a matrix with scales for groups.
    pub(crate) fn pairs(&self, tile: usize) -> &'a [u8] {
        let bytes = &self.bytes[tile * self.unit_bytes..][..self.unit_bytes];
        let first = self.first_group / TOGETHER;
        let pairs = self.groups().div_ceil(TOGETHER);
        &bytes[first * self.format.pair_bytes()..][..pairs * self.format.pair_bytes()]
    }

    /// The integers and the scales (little-endian) of unit `unit`, a row or a tile of which they lie apart.
    pub(crate) fn unit(&self, unit: usize) -> (&'a [u8], &'a [u8]) {
        let (integers, scales) = self.unit_lengths();
        let bytes = &self.bytes[unit * self.unit_bytes..][..self.unit_bytes];
        let rows = self.format.unit_rows();
        let (integer_bytes, scale_bytes) = (
            rows * self.format.group_bytes(),
            rows * self.format.scale_bytes(),
        );
        let (all_integers, all_scales) = bytes.split_at(self.stored_groups * integer_bytes);
        let first_scale = self.format.scale_of(self.first_group);
        (
            &all_integers[self.first_group * integer_bytes..][..integers],
            &all_scales[first_scale * scale_bytes..][..scales],
        )
    }

    /// Unpacks group `group` of `row` into integers and returns the scale of the first.
    pub(crate) fn group(&self, row: usize, group: usize, integers: &mut [i8; GROUP]) -> f32 {
        let unit_rows = self.format.unit_rows();
        let unit = &self.bytes[row / unit_rows * self.unit_bytes..][..self.unit_bytes];
        let stored_group = self.first_group + group;
        let bytes =
            &unit[self.format.integers_at(stored_group)..][..unit_rows * self.format.group_bytes()];
        *integers = with_integers!(self.format, F => if self.format.is_tiled() {
            from_tile::<F>(bytes, row % unit_rows)
        } else {
            from_row::<F>(bytes)
        });
        self.scale(row, self.format.scale_of(stored_group))
    }

    /// The scale of a column, where columns of one scale are no whole number of groups; else `None`.
    pub(super) fn scale_of_column(&self, row: usize, col: usize) -> Option<f32> {
        match self.format.scaled() {
            Scaled::Layer(width) if !width.is_multiple_of(GROUP) => {
                Some(self.scale(row, (self.first_group * GROUP + col) / width))
            }
            _ => None,
        }
    }

    /// A scale of a row as it is stored.
    fn scale(&self, row: usize, scale: usize) -> f32 {
        let unit_rows = self.format.unit_rows();
        let unit = &self.bytes[row / unit_rows * self.unit_bytes..][..self.unit_bytes];
        let at = self
            .format
            .scale_at(self.stored_groups, row % unit_rows, scale);
        let bytes = &unit[at..];
        let [first, second, ..] = *bytes else {
            return 0.0;
        };
        match self.format.scaled() {
            Scaled::Group => f16::from_le_bytes([first, second]).to_f32(),
            Scaled::Row | Scaled::Layer(_) => bytes
                .first_chunk()
                .map_or(0.0, |bytes| f32::from_le_bytes(*bytes)),
        }
    }
}
