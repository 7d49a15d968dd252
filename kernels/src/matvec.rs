//! A matrix times a vector: every linear layer of a decode step, as fast as memory delivers the weights.
//!
//! 32 instructions for 32 weights of 16 bit on ARM.

use crate::clip::{Bounds, Clip, with_clamped};
use crate::dot_tile::DotTile;
use crate::pool::TileMut;
use crate::quantized::{self, row_scaled, with_activations};
use crate::rows::Rows;
use crate::simd::{Element, dispatch};
use crate::{Isa, Matrix, MatrixData, Pool, quant};

/// Weights that one task reads at least, in bytes: below that, handing it out costs more than it saves.
const MIN_TASK_BYTES: usize = 32 * 1024;

/// `y = W x`: `w` is `[rows, cols]`, `x` has `cols` and `y` has `rows` elements.
///
/// Sums are kept in 32-bit floats, and their order is the same on every instruction set and for every number of threads.
/// With quantised weights `x` is quantised too ([`quantized`]), or rounded as the weights' [`quant::Roundings`] say; who multiplies several matrices with one `x` does that once, in
/// [`Inputs`](crate::Inputs), and calls [`matmul_of`](crate::matmul::matmul_of).
///
/// # Panics
/// When a length does not fit.
pub fn matvec(pool: &Pool, w: Matrix<'_>, x: &[f32], y: &mut [f32]) {
    clipped_matvec(pool, w, Clip::NONE, x, y);
}

/// [`matvec`] of inputs, and with outputs, that are cut off.
pub(crate) fn clipped_matvec(pool: &Pool, w: Matrix<'_>, clip: Clip, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), w.cols, "x of a matrix with {} columns", w.cols);
    assert_eq!(y.len(), w.rows, "y of a matrix with {} rows", w.rows);
    pool.count_weights(w.bytes());
    if let MatrixData::Quantized(data) = w.data {
        if !data.format().has_group_scales() {
            return row_scaled::matmul(pool, data, clip, x, 1, y);
        }
        return with_activations(pool, x, 1, w.cols, clip.input, |x| {
            quantized::matvec::matvec_within(pool, data, x, clip.output, y);
        });
    }
    let within = clip.output;
    with_clamped(pool.isa(), clip.input, x, |x| match w.data {
        MatrixData::F32(data) => by_rows(pool, w, data, x, within, y),
        MatrixData::Bf16(data) => by_rows(pool, w, data, x, within, y),
        MatrixData::F16(data) => by_rows(pool, w, data, x, within, y),
        MatrixData::Quantized(_) => unreachable!("done above"),
        MatrixData::QuantizedColumns(data) => {
            y.fill(0.0);
            quantized::accumulate_all_rows(pool, data, x, y);
            within.clamp(pool.isa(), y);
        }
    });
}

/// Rows that [`matvec_blocks`] computes together: those of a tile.
pub const BLOCK_ROWS: usize = quant::TILE_ROWS;

/// The outputs of [`matvec`] for some blocks of [`BLOCK_ROWS`] rows, equal bit by bit: a head of which few tokens are wanted.
///
/// `y` has the rows of block `blocks[0]` (rows `BLOCK_ROWS * blocks[0]` and on), then those of `blocks[1]` and so on; the last block
/// of a matrix may be shorter.
///
/// # Panics
/// When a length does not fit, the blocks do not ascend, there is no such block, or `w` is quantised column by column.
pub fn matvec_blocks(pool: &Pool, w: Matrix<'_>, blocks: &[u32], x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), w.cols, "x of a matrix with {} columns", w.cols);
    assert!(
        blocks.is_sorted_by(|a, b| a < b),
        "blocks that do not ascend"
    );
    let rows_of = |&block: &u32| {
        let first = block as usize * BLOCK_ROWS;
        assert!(first < w.rows, "a block beyond row {}", w.rows);
        BLOCK_ROWS.min(w.rows - first)
    };
    let rows: usize = blocks.iter().map(rows_of).sum();
    assert_eq!(y.len(), rows, "one result for each row of a block");
    pool.count_weights(w.bytes() / w.rows.max(1) * rows);
    match w.data {
        MatrixData::F32(data) => by_blocks(pool, w, data, blocks, x, y),
        MatrixData::Bf16(data) => by_blocks(pool, w, data, blocks, x, y),
        MatrixData::F16(data) => by_blocks(pool, w, data, blocks, x, y),
        MatrixData::Quantized(data) if data.format().has_group_scales() => {
            with_activations(pool, x, 1, w.cols, Bounds::NONE, |x| {
                quantized::matvec::matvec_blocks(pool, data, blocks, x, y);
            });
        }
        MatrixData::Quantized(data) => row_scaled::matvec_blocks(pool, data, blocks, x, y),
        MatrixData::QuantizedColumns(_) => panic!("rows of a matrix quantised column by column"),
    }
}

fn by_blocks<W: Element>(
    pool: &Pool,
    w: Matrix<'_>,
    data: &[W],
    blocks: &[u32],
    x: &[f32],
    y: &mut [f32],
) {
    let w = w.float_rows(data);
    pool.for_each_tile_mut(y, y.len(), 1, BLOCK_ROWS, &|_, first, y| {
        let row = blocks[first / BLOCK_ROWS] as usize * BLOCK_ROWS;
        multiply(pool.isa(), w.from(row), x, y);
    });
}

fn by_rows<W: Element>(
    pool: &Pool,
    w: Matrix<'_>,
    data: &[W],
    x: &[f32],
    bounds: Bounds,
    y: &mut [f32],
) {
    let rows = rows_per_task(pool, w.rows, w.cols * size_of::<W>());
    let (outputs, w) = (w.rows, w.float_rows(data));
    pool.for_each_tile_mut(y, outputs, 1, rows, &|_, first, y| {
        multiply(pool.isa(), w.from(first), x, y);
        bounds.clamp_tile(pool.isa(), y);
    });
}

/// The outputs `y` of the first rows of `w`.
fn multiply<W: Element>(isa: Isa, w: Rows<'_, W>, x: &[f32], y: &mut TileMut<'_, f32>) {
    y.row_mut(0).fill(0.0);
    let x = Rows {
        data: x,
        stride: w.depth,
        depth: w.depth,
    };
    dispatch(isa, DotTile { w, x, y });
}

/// Rows to hand out at a time, of `row_bytes` each: several tasks a thread, none of them tiny, in whole blocks of rows.
fn rows_per_task(pool: &Pool, rows: usize, row_bytes: usize) -> usize {
    let even = rows.div_ceil(pool.threads() * crate::pool::TASKS_PER_THREAD);
    let least = MIN_TASK_BYTES.div_ceil(row_bytes.max(1));
    even.max(least).next_multiple_of(4)
}
