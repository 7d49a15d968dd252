//! Products of integers with one scale a row: trained weights, and activations rounded by a scale that was trained, too.
//!
//! ```text
//! x_q = clamp(round(x / s_in), −128, 127)             a division, ties to even
//! y   = r(Σ_k x_q[k] q_w[r, k] · (s_in · s_w[r]))     r rounds to multiples of s_out likewise
//! ```
//!
//! The sum is exact, so there is no order to keep; the few roundings after it are the same on every instruction set. Where a scale of
//! the activations is 0 nothing is rounded, and without `s_in` they stay floats: then weights become floats too, and their sum is
//! that of [`crate::matvec`]. So does any matrix with scales for parts of rows, made for picking rows.
//!
//! Each matrix has a scale for its inputs, so these are rounded for every matrix anew.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tiles;

use std::cell::Cell;

use self::activations::{Activations, with_activations};
pub(crate) use self::activations::{Four, One, put};
use self::tiles::{BATCH_TOKENS, FEW_TOKENS, Tiles};
pub(crate) use self::tiles::{Products, Sums, Unpacked};
use super::matvec::TASK_BYTES;
use crate::clip::{Bounds, Clip, with_clamped};
use crate::dot_tile::DotTile;
use crate::gelu::gelu_tanh_mul;
use crate::isa::Isa;
use crate::map::map;
use crate::pool::{Pool, TASKS_PER_THREAD, TileMut};
use crate::quant::{PANEL, Quantized, RoundTo, Scaled, TILE_ROWS, dequantize_row};
use crate::rows::Rows;
use crate::simd::dispatch;
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// Tiles of a task with several tokens at most.
const TASK_TILES: usize = 4;

/// Activations that all tiles read again and again, as in [`super::matmul`].
const BATCH_BYTES: usize = 320 << 10;

/// `Y = r(X Wᵀ)` with the roundings of `w`, of inputs and with outputs that are cut off: `x` `[tokens, cols]`, `y` `[tokens, rows]`.
///
/// # Panics
/// When a length does not fit, or `w` has scales for groups.
pub(crate) fn matmul(
    pool: &Pool,
    w: Quantized,
    clip: Clip,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
) {
    assert_eq!(y.len(), tokens * w.rows(), "one output a token and row");
    with_input(pool, w, clip.input, x, tokens, |x| {
        for_each_task(pool, w, tokens, y, &|token, row, y| {
            multiply(pool.isa(), w, x, token, row, y);
            clip.output.clamp_tile(pool.isa(), y);
        });
    });
}

/// [`matmul`] of one token with some blocks of [`TILE_ROWS`] rows, one block behind the other.
///
/// # Panics
/// As there.
pub(crate) fn matvec_blocks(pool: &Pool, w: Quantized, blocks: &[u32], x: &[f32], y: &mut [f32]) {
    with_input(pool, w, Bounds::NONE, x, 1, |x| {
        pool.for_each_tile_mut(y, y.len(), 1, TILE_ROWS, &|_, first, y| {
            let row = blocks[first / TILE_ROWS] as usize * TILE_ROWS;
            multiply(pool.isa(), w, x, 0, row, y);
        });
    });
}

thread_local! {
    /// The second product of a task, and rows as floats; kept for the next.
    static UP: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static FLOATS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `Y = gelu(r(X Gᵀ)) r(X Uᵀ)`: what [`matmul`] of each and [`gelu_tanh_mul`] give, in one run of the pool.
///
/// # Panics
/// When shapes do not agree, or a matrix has scales for groups.
pub(crate) fn gelu_gated(
    pool: &Pool,
    gate: Quantized,
    up: Quantized,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
) {
    assert_eq!(
        (gate.rows(), gate.cols()),
        (up.rows(), up.cols()),
        "gate and up"
    );
    assert_eq!(y.len(), tokens * gate.rows(), "one output a token and row");
    let isa = pool.isa();
    with_input(pool, gate, Bounds::NONE, x, tokens, |gate_x| {
        with_input(pool, up, Bounds::NONE, x, tokens, |up_x| {
            for_each_task(pool, gate, tokens, y, &|token, row, y| {
                let cols = y.cols();
                with_room(&UP, y.rows() * cols, |product| {
                    multiply(isa, gate, gate_x, token, row, y);
                    multiply(isa, up, up_x, token, row, &mut TileMut::new(product, cols));
                    for (token, product) in product.chunks_exact(cols).enumerate() {
                        gelu_tanh_mul(isa, y.row_mut(token), product);
                    }
                });
            });
        });
    });
}

/// What a matrix is multiplied with.
#[derive(Clone, Copy)]
enum Input<'a> {
    Rounded(&'a Activations),
    /// `[tokens, cols]`
    Floats(&'a [f32]),
}

/// Hands `x`, cut off to `bounds`, to `f` as `w` wants it.
fn with_input(
    pool: &Pool,
    w: Quantized,
    bounds: Bounds,
    x: &[f32],
    tokens: usize,
    f: impl FnOnce(Input),
) {
    assert_eq!(
        x.len(),
        tokens * w.cols(),
        "{tokens} tokens of {} activations",
        w.cols()
    );
    assert!(
        w.format().scaled() != Scaled::Group,
        "scales for groups in {:?}",
        w.format()
    );
    with_clamped(pool.isa(), bounds, x, |x| match w.roundings().input {
        0.0 => f(Input::Floats(x)),
        scale => with_activations(pool, x, tokens, w.cols(), scale, |x| f(Input::Rounded(x))),
    });
}

/// Calls `f(token, row, tile)` for tiles of `y` `[tokens, rows]`, each a task: whole tiles of rows, with few tokens in stretches, and
/// batches of whole panels of tokens whose activations stay in a second-level cache.
fn for_each_task(
    pool: &Pool,
    w: Quantized,
    tokens: usize,
    y: &mut [f32],
    f: &(dyn Fn(usize, usize, &mut TileMut<'_, f32>) + Sync),
) {
    if y.is_empty() {
        return;
    }
    if tokens <= FEW_TOKENS {
        let (integers, scales) = w.unit_lengths();
        let tile_bytes = (integers + scales) * TILE_ROWS / w.format().unit_rows();
        let least = (TASK_BYTES / tile_bytes.max(1)).max(1);
        return pool.for_each_stretch_mut(y, w.rows(), TILE_ROWS, least, &|row, y| f(0, row, y));
    }
    let tiles = w.rows().div_ceil(TILE_ROWS);
    let even = tiles / (pool.threads() * TASKS_PER_THREAD);
    let rows = TILE_ROWS * even.clamp(1, TASK_TILES);
    let most = (BATCH_BYTES / w.cols().max(1)).clamp(PANEL, BATCH_TOKENS);
    let batch = tokens
        .div_ceil(tokens.div_ceil(most))
        .next_multiple_of(PANEL);
    for (i, y) in y.chunks_mut(batch * w.rows()).enumerate() {
        pool.for_each_tile_mut(y, w.rows(), batch, rows, &|_, row, y| {
            f(i * batch, row, y);
        });
    }
}

/// The outputs of the tokens from `token` on, the first of a panel, and of the rows from `row` on, the first of a tile; rounded.
fn multiply(isa: Isa, w: Quantized, x: Input, token: usize, row: usize, y: &mut TileMut<'_, f32>) {
    match x {
        Input::Rounded(x) => {
            let first = row / TILE_ROWS;
            dispatch_integer(
                x.isa(),
                Tiles {
                    w,
                    x,
                    token,
                    first,
                    y,
                },
            );
        }
        Input::Floats(x) => multiply_floats(isa, w, &x[token * w.cols()..], row, y),
    }
    let output = w.roundings().output;
    if output != 0.0 {
        (0..y.rows()).for_each(|t| map(isa, y.row_mut(t), RoundTo(output)));
    }
}

/// With weights as floats.
fn multiply_floats(isa: Isa, w: Quantized, x: &[f32], row: usize, y: &mut TileMut<'_, f32>) {
    let depth = w.cols();
    with_room(&FLOATS, y.cols() * depth, |weights| {
        for (i, weights) in weights.chunks_exact_mut(depth.max(1)).enumerate() {
            dequantize_row(w, row + i, weights);
        }
        (0..y.rows()).for_each(|t| y.row_mut(t).fill(0.0));
        let rows = |data| Rows {
            data,
            stride: depth,
            depth,
        };
        let (w, x) = (rows(&*weights), rows(x));
        dispatch(isa, DotTile { w, x, y });
    });
}

fn with_room(
    room: &'static std::thread::LocalKey<Cell<Vec<f32>>>,
    len: usize,
    f: impl FnOnce(&mut [f32]),
) {
    let mut taken = room.take();
    if taken.len() < len {
        taken.resize(len, 0.0);
    }
    f(&mut taken[..len]);
    room.set(taken);
}

impl IntegerKernel for Tiles<'_, '_, '_> {
    fn scalar(self) {
        scalar::tiles(self);
    }

    each_with!(neon, dotprod, i8mm, avx2, avx512vnni);
}
