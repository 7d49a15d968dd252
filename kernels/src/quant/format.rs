//! The block formats and where each integer and scale lies in their bytes.

use half::f16;

use super::block_format::{
    FIRST_COLUMN, GROUP, Integers, PAIR_SCALES, TILE_ROWS, TOGETHER, into_row, into_tile,
};

/// Tiles and rows start on multiples of this: a cache line, and the widest register.
const ALIGNMENT_BYTES: usize = 64;

/// Columns of a row-scaled matrix at most: the sum of so many products of bytes, one of them without a sign, fits 32 bits.
const ROW_SCALED_COLS: usize = 1 << 16;

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
    /// 2 bit, row by row, one scale for so many columns: a layer's part of a row of per-layer embeddings.
    Q2LayerScaled {
        /// The columns.
        width: u32,
    },
    /// 4 bit, likewise.
    Q4LayerScaled {
        /// The columns.
        width: u32,
    },
}

/// What shares a scale in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scaled {
    /// Each group of 32 columns, in f16.
    Group,
    /// All columns, in f32.
    Row,
    /// So many columns, in f32.
    Layer(usize),
}

/// Does `$do` where `$F` is the type of the integers of a [`Format`]: the one place that lists them.
macro_rules! with_integers {
    ($format:expr, $F:ident => $do:expr) => {
        match $format {
            $crate::quant::Format::Q2RowScaled | $crate::quant::Format::Q2LayerScaled { .. } => {
                type $F = $crate::quant::Q2;
                $do
            }
            $crate::quant::Format::Q4Tiled
            | $crate::quant::Format::Q4Rows
            | $crate::quant::Format::Q4RowScaled
            | $crate::quant::Format::Q4LayerScaled { .. } => {
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
pub(crate) use with_integers;

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
            Format::Q2LayerScaled { .. } | Format::Q4LayerScaled { .. } => false,
        }
    }

    /// What shares a scale.
    pub(crate) fn scaled(self) -> Scaled {
        match self {
            Format::Q4Tiled | Format::Q8Tiled | Format::Q4Rows | Format::Q8Rows => Scaled::Group,
            Format::Q2RowScaled | Format::Q4RowScaled | Format::Q8RowScaled => Scaled::Row,
            Format::Q2LayerScaled { width } | Format::Q4LayerScaled { width } => {
                Scaled::Layer(width.max(1) as usize)
            }
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
            Scaled::Layer(width) => cols.div_ceil(width),
        }
    }

    /// Bytes of a scale.
    pub(super) fn scale_bytes(self) -> usize {
        match self.scaled() {
            Scaled::Group => size_of::<f16>(),
            Scaled::Row | Scaled::Layer(_) => size_of::<f32>(),
        }
    }

    /// Which scale of its row the first column of group `group` has.
    pub(super) fn scale_of(self, group: usize) -> usize {
        match self.scaled() {
            Scaled::Group => group,
            Scaled::Row => 0,
            Scaled::Layer(width) => group * GROUP / width,
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
    pub(super) fn is_paired(self) -> bool {
        self.is_tiled() && self.scaled() == Scaled::Group
    }

    /// Bytes of a pair of groups of a tile.
    pub(super) fn pair_bytes(self) -> usize {
        PAIR_SCALES + TOGETHER * TILE_ROWS * self.group_bytes()
    }

    /// Where the integers of a group begin in its unit.
    pub(super) fn integers_at(self, group: usize) -> usize {
        let bytes = self.unit_rows() * self.group_bytes();
        if self.is_paired() {
            group / TOGETHER * self.pair_bytes() + PAIR_SCALES + group % TOGETHER * bytes
        } else {
            group * bytes
        }
    }

    /// Where a scale of a row of a unit begins, where a row has `groups` groups.
    pub(super) fn scale_at(self, groups: usize, row: usize, scale: usize) -> usize {
        let at = |scale: usize| (scale * self.unit_rows() + row) * self.scale_bytes();
        if self.is_paired() {
            scale / TOGETHER * self.pair_bytes() + at(scale % TOGETHER)
        } else {
            groups * self.unit_rows() * self.group_bytes() + at(scale)
        }
    }

    /// Bytes of one unit (a tile or a row) of a matrix with `cols` columns; `None` where that does not fit a `usize`, or the sum of a
    /// row 32 bits: row-scaled matrices have at most 65,536 columns.
    pub fn unit_bytes(self, cols: usize) -> Option<usize> {
        if self.scaled() == Scaled::Row && cols > ROW_SCALED_COLS {
            return None;
        }
        if self.is_paired() {
            let pairs = cols.div_ceil(FIRST_COLUMN);
            return pairs.checked_mul(self.pair_bytes());
        }
        let integers = cols.div_ceil(GROUP).checked_mul(self.group_bytes())?;
        let scales = self.row_scales(cols).checked_mul(self.scale_bytes())?;
        integers
            .checked_add(scales)?
            .checked_mul(self.unit_rows())?
            .checked_next_multiple_of(ALIGNMENT_BYTES)
    }

    /// Bytes of a whole matrix; `None` as for [`Format::unit_bytes`].
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
