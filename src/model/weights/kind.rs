//! How the numbers of a matrix are stored, and where which of them lie.

use half::{bf16, f16};
use kernels::Matrix;
use kernels::quant::{GROUP, Quantized, Roundings, TILE_ROWS};
use safetensors::Dtype;

use super::pack::Blocks;

/// How the numbers of a matrix are stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Float(Dtype),
    Quantized(Blocks),
}

impl Kind {
    /// Whether products with it may round what goes in and comes out: it has one scale for each row.
    pub(super) fn rounds(self) -> bool {
        match self {
            Kind::Float(_) => false,
            Kind::Quantized(blocks) => {
                blocks.format.is_tiled() && !blocks.format.has_group_scales()
            }
        }
    }

    /// Bytes of one row of `cols` numbers; `None` where a row's bytes do not lie together.
    pub(super) fn row_bytes(self, cols: usize) -> Option<usize> {
        match self {
            Kind::Float(dtype) => cols.checked_mul(element_bytes(dtype)? as usize),
            Kind::Quantized(blocks) if blocks.columns || blocks.format.is_tiled() => None,
            Kind::Quantized(blocks) => blocks.format.matrix_bytes(1, cols),
        }
    }

    /// How many of a row's `cols` numbers come with its first `wanted`, and the bytes of those, without scales: the first of the row.
    pub(super) fn row_front(self, cols: usize, wanted: usize) -> (usize, usize) {
        match self {
            Kind::Float(dtype) => (wanted, wanted * element_bytes(dtype).unwrap_or(0) as usize),
            Kind::Quantized(blocks) => (
                cols.min(wanted.next_multiple_of(GROUP)),
                blocks.format.integer_bytes(wanted),
            ),
        }
    }

    /// `rows` rows as a matrix, one behind the other; `bytes` is aligned for 32-bit numbers where it holds floats.
    pub(super) fn rows(self, bytes: &[u8], rows: usize, cols: usize) -> Matrix<'_> {
        match self {
            Kind::Float(dtype) => float_matrix(dtype, bytes, rows, cols),
            Kind::Quantized(blocks) => {
                quantized_matrix(blocks, Roundings::default(), bytes, rows, cols)
            }
        }
    }
}

/// Bytes of the first `units` of `all` rows or columns, which together have `bytes`; whole tiles.
pub(super) fn blocks_of(kind: Kind, bytes: usize, units: usize, all: usize) -> usize {
    let tile = match kind {
        Kind::Quantized(blocks) if blocks.format.is_tiled() => TILE_ROWS,
        _ => 1,
    };
    bytes / all.div_ceil(tile).max(1) * units.div_ceil(tile)
}

pub(super) fn float_matrix(dtype: Dtype, bytes: &[u8], rows: usize, cols: usize) -> Matrix<'_> {
    let n = rows * cols;
    match dtype {
        Dtype::F32 => Matrix::f32(bytemuck::cast_slice::<u8, f32>(&bytes[..n * 4]), rows, cols),
        Dtype::F16 => Matrix::f16(bytemuck::cast_slice::<u8, f16>(&bytes[..n * 2]), rows, cols),
        _ => Matrix::bf16(
            bytemuck::cast_slice::<u8, bf16>(&bytes[..n * 2]),
            rows,
            cols,
        ),
    }
}

/// `rows × cols` as stored.
pub(super) fn quantized_matrix(
    blocks: Blocks,
    roundings: Roundings,
    bytes: &[u8],
    rows: usize,
    cols: usize,
) -> Matrix<'_> {
    let length = blocks.format.matrix_bytes(rows, cols).unwrap_or(0);
    match Quantized::new(blocks.format, &bytes[..length], rows, cols) {
        Some(matrix) if blocks.columns => Matrix::quantized_columns(matrix),
        Some(matrix) => Matrix::quantized(matrix.with_roundings(roundings)),
        None => unreachable!("the header was checked against the format's size"),
    }
}

/// Bytes of a number; `None` where it is none that weights are made of.
pub(super) fn element_bytes(dtype: Dtype) -> Option<u64> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}
