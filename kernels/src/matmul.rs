//! A matrix times a few or many vectors: linear layers of a prompt, and of the audio and vision towers.
//!
//! 21 instructions for 32 weights of 16 bit and a token on ARM, with 16 tokens.

use std::cell::RefCell;

use crate::clip::{Bounds, Clip, with_clamped};
use crate::dot_tile::DotTile;
use crate::gelu::gelu_tanh_mul;
use crate::isa::Level;
use crate::matvec::clipped_matvec;
use crate::packed_tile::PackedTile;
use crate::pool::TileMut;
use crate::quantized::{self, row_scaled, with_activations};
use crate::rows::Rows;
use crate::simd::partial_sums::BLOCK;
use crate::simd::{Element, dispatch, gemm};
use crate::widen::Widen;
use crate::{Inputs, Isa, Matrix, MatrixData, Pool};

/// Weight rows of a task at most.
const TILE_ROWS: usize = 128;

/// Tokens of a task: more would not make widening and packing a block of weights any cheaper.
const TILE_TOKENS: usize = 128;

/// From how many tokens on it pays to copy both operands.
const PACKED_TOKENS: usize = 16;

/// `Y = X W^T`: `w` is `[rows, cols]`, `x` is `[tokens, cols]`, `y` is `[tokens, rows]`.
///
/// Each element is what [`matvec`] gives for its token, on every instruction set, for every number of tokens and threads.
/// With quantised weights `x` is quantised too ([`quantized`]).
///
/// # Panics
/// When a length does not fit.
pub fn matmul(pool: &Pool, w: Matrix<'_>, x: &[f32], tokens: usize, y: &mut [f32]) {
    multiply(pool, w, Clip::NONE, x, tokens, y, false);
}

/// [`matmul`] with sums in whatever order is fastest: many tokens go to the `gemm` crate, which picks its instructions itself,
/// unless the pool's are plain Rust. Equal to [`matmul`] to rounding only.
///
/// # Panics
/// When a length does not fit.
pub fn matmul_in_any_order(pool: &Pool, w: Matrix<'_>, x: &[f32], tokens: usize, y: &mut [f32]) {
    multiply(pool, w, Clip::NONE, x, tokens, y, true);
}

/// A clipped linear layer: [`matmul_in_any_order`] of inputs that are cut off, and with outputs that are.
///
/// Inputs are cut off while they are quantised, or copied for floats; outputs by the task that computed them.
///
/// # Panics
/// When a length does not fit.
pub fn clipped_matmul(
    pool: &Pool,
    w: Matrix<'_>,
    clip: Clip,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
) {
    multiply(pool, w, clip, x, tokens, y, true);
}

/// [`matmul`] with inputs that several matrices share: a quantised one finds them quantised. The same bits.
///
/// # Panics
/// When a length does not fit.
pub fn matmul_of(pool: &Pool, w: Matrix<'_>, x: &Inputs, y: &mut [f32]) {
    let tokens = x.tokens();
    match (w.data, x.quantized()) {
        (MatrixData::Quantized(data), Some(x))
            if tokens == 1 && w.cols > 0 && data.format().has_group_scales() =>
        {
            pool.count_weights(w.bytes());
            quantized::matvec::matvec(pool, data, x, y);
        }
        (MatrixData::Quantized(data), Some(x))
            if tokens > 1
                && w.cols > 0
                && data.format().is_tiled()
                && data.format().has_group_scales() =>
        {
            pool.count_weights(w.bytes());
            quantized::matmul::matmul(pool, data, x, y);
        }
        _ => matmul(pool, w, x.rows(), tokens, y),
    }
}

/// `Y = gelu(X G^T) (X U^T)`: the first half of a gated feed-forward network, `gate` (G) and `up` (U) `[rows, cols]`, `x`
/// `[tokens, cols]`, `y` `[tokens, rows]`. Each element is what [`matmul`] and [`gelu_tanh_mul`] give.
///
/// `room` is as long as `y`; what is in it afterwards is of no use.
///
/// # Panics
/// When a length does not fit.
pub fn gelu_gated(
    pool: &Pool,
    gate: Matrix<'_>,
    up: Matrix<'_>,
    x: &Inputs,
    y: &mut [f32],
    room: &mut [f32],
) {
    if let (MatrixData::Quantized(g), MatrixData::Quantized(u)) = (gate.data, up.data)
        && g.format().is_tiled()
        && u.format().is_tiled()
    {
        let by_groups = [g, u].map(|w| w.format().has_group_scales());
        match (by_groups, x.quantized()) {
            ([true, true], Some(x)) => {
                pool.count_weights(gate.bytes() + up.bytes());
                return quantized::gelu_gated(pool, g, u, x, y);
            }
            ([false, false], _) => {
                pool.count_weights(gate.bytes() + up.bytes());
                return row_scaled::gelu_gated(pool, g, u, x.rows(), x.tokens(), y);
            }
            _ => {}
        }
    }
    matmul_of(pool, gate, x, y);
    matmul_of(pool, up, x, room);
    pool.for_each_row_mut(y, gate.rows, &|token, y| {
        gelu_tanh_mul(pool.isa(), y, &room[token * gate.rows..][..gate.rows]);
    });
}

fn multiply(
    pool: &Pool,
    w: Matrix<'_>,
    clip: Clip,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
    any_order: bool,
) {
    assert_eq!(
        x.len(),
        tokens * w.cols,
        "x: {tokens} tokens of {} columns",
        w.cols
    );
    assert_eq!(
        y.len(),
        tokens * w.rows,
        "y: {tokens} tokens of {} rows",
        w.rows
    );
    if tokens == 1 {
        return clipped_matvec(pool, w, clip, x, y);
    }
    if tokens == 0 || w.cols == 0 {
        y.fill(0.0);
        return clip.output.clamp(pool.isa(), y);
    }
    let by_token = match w.data {
        MatrixData::Quantized(data) => {
            data.format().has_group_scales() && !data.format().is_tiled()
        }
        MatrixData::QuantizedColumns(_) => true,
        _ => false,
    };
    if by_token {
        // These forms are made for picking single rows or columns.
        for (x, y) in x.chunks_exact(w.cols).zip(y.chunks_exact_mut(w.rows)) {
            clipped_matvec(pool, w, clip, x, y);
        }
        return;
    }
    pool.count_weights(w.bytes());
    match w.data {
        MatrixData::F32(data) => by_tiles(pool, w, data, clip, x, tokens, y, any_order),
        MatrixData::Bf16(data) => by_tiles(pool, w, data, clip, x, tokens, y, any_order),
        MatrixData::F16(data) => by_tiles(pool, w, data, clip, x, tokens, y, any_order),
        MatrixData::Quantized(data) if data.format().has_group_scales() => {
            with_activations(pool, x, tokens, w.cols, clip.input, |x| {
                quantized::matmul::matmul_within(pool, data, x, clip.output, y);
            });
        }
        MatrixData::Quantized(data) => row_scaled::matmul(pool, data, clip, x, tokens, y),
        MatrixData::QuantizedColumns(_) => unreachable!("done token by token"),
    }
}

fn by_tiles<W: Element>(
    pool: &Pool,
    w: Matrix<'_>,
    data: &[W],
    clip: Clip,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
    any_order: bool,
) {
    let x = Rows {
        data: x,
        stride: w.cols,
        depth: w.cols,
    };
    let isa = pool.isa();
    let packed = isa.level() != Level::Scalar && tokens >= PACKED_TOKENS;
    let any_order = any_order && tokens >= gemm_tokens(isa);
    let even = w.rows.div_ceil(pool.threads() * 2);
    let tile_rows = even.min(TILE_ROWS).next_multiple_of(8);
    pool.for_each_tile_mut(y, w.rows, TILE_TOKENS, tile_rows, &|token, row, y| {
        let (w, x) = (w.float_rows(data).from(row), x.from(token));
        (0..y.rows()).for_each(|t| y.row_mut(t).fill(0.0));
        if packed {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(
                    (TILE_ROWS + TILE_TOKENS) * BLOCK + CACHE_LINE / size_of::<f32>(),
                    0.0,
                );
                // Half of the loads of eight floats would touch two cache lines.
                let skip = scratch.as_ptr().align_offset(CACHE_LINE);
                let scratch = &mut scratch[skip..];
                if any_order {
                    return widened(isa, w, clip.input, x, y, scratch);
                }
                let (packed_w, packed_x) = scratch.split_at_mut(TILE_ROWS * BLOCK);
                let tile = PackedTile {
                    w,
                    x,
                    bounds: clip.input,
                    packed_w,
                    packed_x,
                    y,
                };
                dispatch(isa, tile);
            });
        } else {
            // The rows of a tile lie together.
            let data = &x.data[..y.rows() * x.stride];
            with_clamped(isa, clip.input, data, |data| {
                let x = Rows { data, ..x };
                dispatch(isa, DotTile { w, x, y });
            });
        }
        clip.output.clamp_tile(isa, y);
    });
}

/// From how many tokens on it pays to pack both operands for the `gemm` crate.
///
/// Packing costs as much as the products with 30 tokens of AVX2 or with 130 of AVX-512 (`benches/kernels.rs`, one Zen 5 core).
/// NEON has as many registers as AVX-512.
fn gemm_tokens(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => usize::MAX,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 32,
        _ => 160,
    }
}

/// Bytes that memory is read in.
const CACHE_LINE: usize = 64;

thread_local! {
    /// Operands widened and copied for one block of columns, kept for the next.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One tile with the `gemm` crate, block of columns by block of columns: widen, multiply, add up.
fn widened<W: Element>(
    isa: Isa,
    w: Rows<'_, W>,
    bounds: Bounds,
    x: Rows<'_, f32>,
    y: &mut TileMut<'_, f32>,
    scratch: &mut [f32],
) {
    let (tokens, rows) = (y.rows(), y.cols());
    let (widened_w, clamped_x) = scratch.split_at_mut(TILE_ROWS * BLOCK);
    for first in (0..w.depth).step_by(BLOCK) {
        let depth = BLOCK.min(w.depth - first);
        for (r, to) in widened_w.chunks_exact_mut(depth).take(rows).enumerate() {
            let from = &w.row(r)[first..first + depth];
            dispatch(isa, Widen { from, to });
        }
        let copied = |data| Rows {
            data,
            stride: depth,
            depth,
        };
        let in_place = Rows {
            data: &x.data[first..],
            stride: x.stride,
            depth,
        };
        let x = if bounds.is_none() {
            in_place
        } else {
            for (t, to) in clamped_x.chunks_exact_mut(depth).take(tokens).enumerate() {
                to.copy_from_slice(in_place.row(t));
                bounds.clamp(isa, to);
            }
            copied(&*clamped_x)
        };
        gemm::multiply_transposed(y, copied(&*widened_w), x);
    }
}
