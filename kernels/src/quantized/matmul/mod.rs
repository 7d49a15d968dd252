//! `Y = X Wᵀ` with a tiled quantised matrix and several tokens: prefill, and the towers. A few tokens go another way (`few`).
//!
//! A task is a few tiles of 16 rows, a block of `BLOCK` groups and a batch of tokens. It unpacks the block of a tile into the order
//! that the CPU's instructions want, small enough for a first-level cache of 64 KiB, and takes the batch through it, four tokens at a
//! time; so unpacking costs next to nothing beyond a dozen tokens. Sums wait in `y` from one block to the next, which leaves each sum's
//! order as [`crate::quantized`] says. The activations are read once a tile, so all rows meet a block of one batch before the next, and
//! that stays in a second-level cache of 512 KiB, `BATCH_BYTES`: in a simulated one (cachegrind, AVX2, below 64 KiB of the first level)
//! 1024 pixels from 640 to 2560 channels miss 0.24 million lines to read where all pixels at once miss 2.1 million, back again 0.37 and 2.2.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod dotprod;
mod few;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::ops::Range;

use self::few::{FEW_PANELS, FewTokens, Part, TokenSums};
pub(super) use self::few::{are_few, multiply_tiles as multiply_few};
use crate::Isa;
use crate::clip::Bounds;
use crate::map::Unary;
use crate::pool::{Pool, TASKS_PER_THREAD, TileMut};
use crate::quant::{
    ActivationGroup, BlockFormat, Bytes, GROUP, PANEL, Q8Activations, Quantized, Scales, TILE_ROWS,
    TOGETHER, with_block_format,
};
use crate::simd::Plain;
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// Groups that are unpacked at a time: 32 KiB of integers, one row of a real model's hidden size.
const BLOCK: usize = 64;

/// Activations that all tiles read again and again: with what belongs to a group, 128 tokens of a block are 320 KiB. The sums and
/// the tile take their part of the rest of the 512 KiB that a Cortex-A76 has for each core.
const BATCH_BYTES: usize = 320 << 10;

/// Tiles of a task at most.
const TASK_TILES: usize = 4;

/// Parts that a tile is taken in at most.
const MAX_PARTS: usize = 2;

/// One group of the activations of four tokens.
type X = ActivationGroup<PANEL>;
/// One group of a tile as it is stored.
struct Stored<'a, F: BlockFormat> {
    integers: &'a F::Tile,
    scales: &'a Scales,
}
/// Sums of one panel: `[token][row]`.
type Sums = [[f32; TILE_ROWS]; PANEL];

/// Multiplies all rows of a tiled matrix with several tokens: `y[t, r] = Σ_k w[r, k] x[t, k]`.
///
/// Order and roundings as [`crate::quantized`] says: the same bits as [`matvec`](super::matvec::matvec) for each token.
///
/// # Panics
/// When shapes do not agree, `w` is not tiled, or `x` is not at least two tokens quantised for the pool's instruction set.
pub fn matmul(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    matmul_within(pool, w, x, Bounds::NONE, y);
}

/// [`matmul`], and what it gives cut off to `bounds` where it is computed.
///
/// # Panics
/// As there.
pub fn matmul_within(pool: &Pool, w: Quantized, x: &Q8Activations, bounds: Bounds, y: &mut [f32]) {
    assert!(w.format().is_tiled(), "a matmul needs a tiled matrix");
    assert!(x.tokens > 1, "one token goes to matvec");
    assert_eq!(
        (x.isa, x.cols),
        (pool.isa().for_tokens(x.tokens), w.cols()),
        "instruction set and columns of x"
    );
    assert_eq!(y.len(), x.tokens * w.rows(), "one output a token and row");
    if w.groups() == 0 || w.rows() == 0 {
        y.fill(0.0);
        return bounds.clamp(x.isa, y);
    }
    if are_few(x.tokens) {
        return few::matmul(pool, w, x, bounds, y);
    }
    let (rows, tokens) = (task_rows(pool, w), batch_tokens(w, x.tokens));
    let panels = x.panels.chunks(tokens / PANEL * w.groups());
    for (y, panels) in y.chunks_mut(tokens * w.rows()).zip(panels) {
        let batch = y.len() / w.rows();
        for block in blocks(w) {
            let is_last = block + 1 == blocks(w).end;
            let bounds = if is_last { bounds } else { Bounds::NONE };
            pool.for_each_tile_mut(y, w.rows(), batch, rows, &|_, row, y| {
                multiply_tiles(x.isa, w, panels, block, bounds, row, y);
            });
        }
    }
}

/// The blocks of a matrix, each of which adds to the sums of those before it.
pub(super) fn blocks(w: Quantized) -> Range<usize> {
    0..w.groups().div_ceil(BLOCK)
}

/// Tokens of a batch, in whole panels: batches of a like size, as few as stay in the cache.
fn batch_tokens(w: Quantized, tokens: usize) -> usize {
    let panel_bytes = w.groups().min(BLOCK) * size_of::<X>();
    let most = (BATCH_BYTES / panel_bytes).max(1);
    let panels = tokens.div_ceil(PANEL);
    PANEL * panels.div_ceil(panels.div_ceil(most))
}

/// Rows to hand out at a time, in whole tiles.
pub(super) fn task_rows(pool: &Pool, w: Quantized) -> usize {
    let tiles = w.rows().div_ceil(TILE_ROWS);
    TILE_ROWS * (tiles / (pool.threads() * TASKS_PER_THREAD)).clamp(1, TASK_TILES)
}

/// A block of the rows from `row` on, the first of a tile, for the tokens of the panels `x`: the first gives sums, others add to them.
/// What comes out is cut off to `bounds`, as it should be for the last one only.
pub(super) fn multiply_tiles(
    isa: Isa,
    w: Quantized,
    x: &[X],
    block: usize,
    bounds: Bounds,
    row: usize,
    y: &mut TileMut<'_, f32>,
) {
    let tiles = Tiles {
        w,
        first: row / TILE_ROWS,
        block,
        bounds,
        x,
        y,
    };
    dispatch_integer(isa, tiles);
}

/// A block of the rows from tile `first` on, for the tokens of the panels `x`.
struct Tiles<'a, 'y> {
    w: Quantized<'a>,
    first: usize,
    block: usize,
    bounds: Bounds,
    x: &'a [X],
    y: &'a mut TileMut<'y, f32>,
}

impl IntegerKernel for Tiles<'_, '_> {
    fn scalar(self) {
        scalar::tiles(self);
    }

    each_with!(neon, dotprod, i8mm, avx2, avx512vnni);
}

/// What an instruction set does with a block; the methods must be `#[inline(always)]`.
trait Products: Copy {
    /// What it unpacks to.
    type Group: Unpacked;
    /// Unpacks a part of a group.
    fn unpack<F: BlockFormat>(self, from: Stored<F>, part: usize, to: &mut Self::Group);
    /// Adds the products of unpacked groups of a part with the same groups of one panel to the panel's sums.
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], part: usize, sums: &mut Sums);
}

/// One group of a part of a tile's rows: integers in an order and with an offset that the instructions ask for, and scales in f32.
trait Unpacked: Copy {
    /// An empty one.
    const EMPTY: Self;
    /// How many of them a tile's group is.
    const PARTS: usize;
}

/// A group of a tile.
#[derive(Clone, Copy)]
#[repr(C)]
struct WholeGroup {
    /// `[k / 4][row][k % 4]`
    integers: [u8; TILE_ROWS * GROUP],
    scales: [f32; TILE_ROWS],
}

impl Unpacked for WholeGroup {
    const EMPTY: Self = WholeGroup {
        integers: [0; _],
        scales: [0.0; _],
    };
    const PARTS: usize = 1;
}

/// Half a tile's group, for instructions that take 8 rows.
#[derive(Clone, Copy)]
#[repr(C)]
struct HalfGroup<const SCALES: usize> {
    /// `[k / 4][row][k % 4]` unless the instruction set says otherwise.
    integers: [u8; TILE_ROWS / 2 * GROUP],
    scales: [f32; SCALES],
}

impl<const SCALES: usize> Unpacked for HalfGroup<SCALES> {
    const EMPTY: Self = HalfGroup {
        integers: [0; _],
        scales: [0.0; _],
    };
    const PARTS: usize = MAX_PARTS;
}

impl Tiles<'_, '_> {
    /// The groups of the block.
    fn groups(&self) -> Range<usize> {
        let first = self.block * BLOCK;
        first..self.w.groups().min(first + BLOCK)
    }

    #[inline(always)]
    fn each(self, s: impl Products) {
        with_block_format!(self.w.format(), F => self.each_of::<F, _>(s));
    }

    /// Takes all panels through the block of tile after tile.
    #[inline(always)]
    fn each_of<F: BlockFormat, P: Products>(self, s: P) {
        let groups = self.groups();
        let is_bounded = !self.bounds.is_none();
        let mut unpacked = Block([[P::Group::EMPTY; BLOCK]; MAX_PARTS]);
        for (tile, row) in (0..self.y.cols()).step_by(TILE_ROWS).enumerate() {
            let rows = row..self.y.cols().min(row + TILE_ROWS);
            let pairs = F::Pair::cut(self.w.pairs(self.first + tile));
            let pairs = &pairs[groups.start / TOGETHER..groups.end.div_ceil(TOGETHER)];
            for (part, unpacked) in unpacked.0[..P::Group::PARTS].iter_mut().enumerate() {
                let (unpacked, _) = unpacked.as_chunks_mut::<TOGETHER>();
                for (pair, to) in pairs.iter().zip(unpacked) {
                    let (scales, integers) = F::split(pair);
                    for ((integers, scales), to) in integers.iter().zip(scales).zip(to) {
                        s.unpack::<F>(Stored { integers, scales }, part, to);
                    }
                }
            }
            for (panel, x) in self.x.chunks_exact(self.w.groups()).enumerate() {
                let x = &x[groups.clone()];
                let first = panel * PANEL;
                let tokens = PANEL.min(self.y.rows() - first);
                let mut sums = [[0.0; TILE_ROWS]; PANEL];
                if self.block > 0 {
                    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
                        let y = &self.y.row_mut(first + token)[rows.clone()];
                        copy(y, &mut sums[..rows.len()]);
                    }
                }
                for (part, w) in unpacked.0[..P::Group::PARTS].iter().enumerate() {
                    s.multiply::<F>(&w[..groups.len()], x, part, &mut sums);
                }
                if is_bounded {
                    for sum in sums.as_flattened_mut() {
                        *sum = self.bounds.of(Plain, *sum);
                    }
                }
                for (token, sums) in sums[..tokens].iter().enumerate() {
                    let y = &mut self.y.row_mut(first + token)[rows.clone()];
                    copy(&sums[..rows.len()], y);
                }
            }
        }
    }
}

/// Copies a row of a tile, which is nearly always whole: then a few registers instead of a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    match (from.as_array::<TILE_ROWS>(), to.as_mut_array::<TILE_ROWS>()) {
        (Some(from), Some(to)) => *to = *from,
        _ => copy_part(from, to),
    }
}

/// Not inlined: the compiler would make one copy of any length of it and of the other.
#[cold]
#[inline(never)]
fn copy_part(from: &[f32], to: &mut [f32]) {
    to.copy_from_slice(from);
}

/// The unpacked groups of a block, for aligned loads.
#[repr(align(64))]
struct Block<G>([[G; BLOCK]; MAX_PARTS]);
