//! The block formats and where each integer and scale lies in their bytes.

use std::ops::Range;

use half::f16;

use super::block_format::{
    GROUP, Integers, PAIR_SCALES, TILE_ROWS, TOGETHER, from_row, from_tile, into_row, into_tile,
};
use super::roundings::Roundings;

/// Tiles and rows start on multiples of this: a cache line, and the widest register.
const ALIGNMENT_BYTES: usize = 64;

/// Columns that share a scale in a layer-scaled format: a layer's share of a row of the per-layer embeddings.
pub const LAYER: usize = 256;

/// A block format: bits a weight, arrangement and scales (see [`crate::quant`]).
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
    /// 2 bit, in tiles of 16 rows, one scale for each row.
    Q2RowScaled,
    /// 4 bit, in tiles of 16 rows, one scale for each row.
    Q4RowScaled,
    /// 8 bit, in tiles of 16 rows, one scale for each row.
    Q8RowScaled,
    /// 2 bit, row by row, one scale for [`LAYER`] columns.
    Q2LayerScaled,
    /// 4 bit, row by row, one scale for [`LAYER`] columns.
    Q4LayerScaled,
}

/// What shares a scale in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scaled {
    /// Each group of 32 columns, in f16.
    Group,
    /// All columns, in f32.
    Row,
    /// Each [`LAYER`] columns, in f32.
    Layer,
}

/// Does `$do` where `$F` is the type of the integers of a [`Format`]: the one place that lists them.
macro_rules! with_integers {
    ($format:expr, $F:ident => $do:expr) => {
        match $format {
            $crate::quant::Format::Q2RowScaled | $crate::quant::Format::Q2LayerScaled => {
                type $F = $crate::quant::Q2;
                $do
            }
            $crate::quant::Format::Q4Tiled
            | $crate::quant::Format::Q4Rows
            | $crate::quant::Format::Q4RowScaled
            | $crate::quant::Format::Q4LayerScaled => {
                type $F = $crate::quant::Q4;
                $do
            }
            $crate::quant::Format::Q8Tiled
            | $crate::quant::Format::Q8Rows
            | $crate::quant::Format::Q8RowScaled => {
                type $F = $crate::quant::Q8;
                $do
            }
        }
    };
}

/// Does `$do` where `$F` is the type of a [`Format`] with a scale for each group.
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
            format => unreachable!("{format:?} has no scales for groups"),
        }
    };
}
pub(crate) use with_block_format;

impl Format {
    /// Bits of a weight, without its part of the scale.
    pub fn bits(self) -> usize {
        with_integers!(self, F => F::BITS)
    }

    /// Whether 16 rows are interleaved.
    pub fn is_tiled(self) -> bool {
        match self {
            Format::Q4Tiled | Format::Q8Tiled => true,
            Format::Q4Rows | Format::Q8Rows => false,
            Format::Q2RowScaled | Format::Q4RowScaled | Format::Q8RowScaled => true,
            Format::Q2LayerScaled | Format::Q4LayerScaled => false,
        }
    }

    /// What shares a scale.
    pub(crate) fn scaled(self) -> Scaled {
        match self {
            Format::Q4Tiled | Format::Q8Tiled | Format::Q4Rows | Format::Q8Rows => Scaled::Group,
            Format::Q2RowScaled | Format::Q4RowScaled | Format::Q8RowScaled => Scaled::Row,
            Format::Q2LayerScaled | Format::Q4LayerScaled => Scaled::Layer,
        }
    }

    /// Whether each group of 32 weights has a scale, so that activations are quantised in such groups, too.
    pub fn has_group_scales(self) -> bool {
        self.scaled() == Scaled::Group
    }

    /// The smallest and the largest integer that a weight can be.
    pub fn range(self) -> (i8, i8) {
        let half = 1i16 << (self.bits() - 1);
        ((-half) as i8, (half - 1) as i8)
    }

    /// Scales of a row of `cols` columns.
    pub fn row_scales(self, cols: usize) -> usize {
        match self.scaled() {
            Scaled::Group => cols.div_ceil(GROUP),
            Scaled::Row => 1,
            Scaled::Layer => cols.div_ceil(LAYER),
        }
    }

    /// Bytes of a scale.
    fn scale_bytes(self) -> usize {
        match self.scaled() {
            Scaled::Group => size_of::<f16>(),
            Scaled::Row | Scaled::Layer => size_of::<f32>(),
        }
    }

    /// Which scale of its row group `group` has.
    fn scale_of(self, group: usize) -> usize {
        match self.scaled() {
            Scaled::Group => group,
            Scaled::Row => 0,
            Scaled::Layer => group / (LAYER / GROUP),
        }
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

    /// Whether the groups of a tile stand two by two, each pair behind its scales.
    fn is_paired(self) -> bool {
        self.is_tiled() && self.scaled() == Scaled::Group
    }

    /// Bytes of a pair of groups of a tile.
    fn pair_bytes(self) -> usize {
        PAIR_SCALES + TOGETHER * TILE_ROWS * self.group_bytes()
    }

    /// Where the integers of a group begin in its unit.
    fn integers_at(self, group: usize) -> usize {
        let bytes = self.unit_rows() * self.group_bytes();
        if self.is_paired() {
            group / TOGETHER * self.pair_bytes() + PAIR_SCALES + group % TOGETHER * bytes
        } else {
            group * bytes
        }
    }

    /// Where a scale of a row of a unit begins, where a row has `groups` groups.
    fn scale_at(self, groups: usize, row: usize, scale: usize) -> usize {
        let at = |scale: usize| (scale * self.unit_rows() + row) * self.scale_bytes();
        if self.is_paired() {
            scale / TOGETHER * self.pair_bytes() + at(scale % TOGETHER)
        } else {
            groups * self.unit_rows() * self.group_bytes() + at(scale)
        }
    }

    /// Bytes of one unit (a tile or a row) of a matrix with `cols` columns; `None` where that does not fit a `usize`.
    pub fn unit_bytes(self, cols: usize) -> Option<usize> {
        if self.is_paired() {
            let pairs = cols.div_ceil(TOGETHER * GROUP);
            return pairs.checked_mul(self.pair_bytes());
        }
        let integers = cols.div_ceil(GROUP).checked_mul(self.group_bytes())?;
        let scales = self.row_scales(cols).checked_mul(self.scale_bytes())?;
        integers
            .checked_add(scales)?
            .checked_mul(self.unit_rows())?
            .checked_next_multiple_of(ALIGNMENT_BYTES)
    }

    /// Bytes of a whole matrix; `None` where that does not fit a `usize`.
    pub fn matrix_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        self.unit_bytes(cols)?
            .checked_mul(rows.div_ceil(self.unit_rows()))
    }

    /// Writes the integers of one group of one row into the bytes of its unit, which are 0 so far: the inverse of [`Quantized::group`].
    pub(super) fn store_group(
        self,
        unit: &mut [u8],
        row: usize,
        group: usize,
        integers: &[i8; GROUP],
    ) {
        let bytes = &mut unit[self.integers_at(group)..][..self.unit_rows() * self.group_bytes()];
        with_integers!(self, F => if self.is_tiled() {
            into_tile::<F>(integers, bytes, row);
        } else {
            into_row::<F>(integers, bytes);
        });
    }

    /// Writes scale `scale` of one row into its unit, where a row has `groups` groups: the bytes are little-endian, of the length of
    /// this format's scales.
    pub(super) fn store_scale(
        self,
        unit: &mut [u8],
        groups: usize,
        row: usize,
        scale: usize,
        bytes: &[u8],
    ) {
        assert_eq!(bytes.len(), self.scale_bytes(), "bytes of a scale");
        let at = self.scale_at(groups, row, scale);
        unit[at..at + bytes.len()].copy_from_slice(bytes);
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
    /// When the range is out of bounds, or begins or ends within a group, but at the last column.
    pub fn slice_columns(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of a matrix of {} columns",
            self.cols
        );
        let whole = match self.format.scaled() {
            Scaled::Group | Scaled::Row => GROUP,
            Scaled::Layer => LAYER,
        };
        let first = if self.format.is_paired() {
            TOGETHER * GROUP
        } else {
            whole
        };
        assert!(
            range.start.is_multiple_of(first),
            "columns {range:?} of a matrix whose groups stand together in {first} columns"
        );
        let is_cut = |at: usize| at != self.cols && !at.is_multiple_of(whole);
        assert!(
            !is_cut(range.start) && !is_cut(range.end),
            "columns {range:?} of a matrix quantised in groups of {whole}"
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

    /// Unpacks group `group` of `row` into integers and returns its scale.
    pub(crate) fn group(&self, row: usize, group: usize, integers: &mut [i8; GROUP]) -> f32 {
        let unit_rows = self.format.unit_rows();
        let unit = &self.bytes[row / unit_rows * self.unit_bytes..][..self.unit_bytes];
        let (row, group) = (row % unit_rows, self.first_group + group);
        let bytes =
            &unit[self.format.integers_at(group)..][..unit_rows * self.format.group_bytes()];
        *integers = with_integers!(self.format, F => if self.format.is_tiled() {
            from_tile::<F>(bytes, row)
        } else {
            from_row::<F>(bytes)
        });
        let scale = self.format.scale_of(group);
        let bytes = &unit[self.format.scale_at(self.stored_groups, row, scale)..];
        let [first, second, ..] = *bytes else {
            return 0.0;
        };
        match self.format.scaled() {
            Scaled::Group => f16::from_le_bytes([first, second]).to_f32(),
            Scaled::Row | Scaled::Layer => bytes
                .first_chunk()
                .map_or(0.0, |bytes| f32::from_le_bytes(*bytes)),
        }
    }
}
