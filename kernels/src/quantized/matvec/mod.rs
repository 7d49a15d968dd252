//! `y = W x` with a quantised matrix and one token: the decode step.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::clip::Bounds;
use crate::pool::Pool;
use crate::quant::{
    ActivationGroup, BlockFormat, Bytes, Q8Activations, Quantized, Scales, TILE_ROWS, TOGETHER,
    with_block_format,
};
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// The activations of one group.
type X = ActivationGroup<1>;

/// Bytes of weights that a task reads at least: long enough a stream for the prefetcher, and cheap to hand out.
pub(super) const TASK_BYTES: usize = 64 << 10;

/// Multiplies all rows with one token: `y[r] = Σ_k w[r, k] x[k]`.
///
/// Order and roundings as [`crate::quantized`] says, or [`matvec_rows`](super::matvec_rows::matvec_rows) for rows stored one by one.
///
/// # Panics
/// When shapes do not agree, or `x` is not one token quantised for the pool's instruction set.
pub fn matvec(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    matvec_within(pool, w, x, Bounds::NONE, y);
}

/// [`matvec`], and what it gives cut off to `bounds` by the task that computed it.
///
/// # Panics
/// As there.
pub fn matvec_within(pool: &Pool, w: Quantized, x: &Q8Activations, bounds: Bounds, y: &mut [f32]) {
    if !w.format().is_tiled() {
        super::matvec_rows::matvec_all_rows(pool, w, x, y);
        return bounds.clamp(x.isa, y);
    }
    assert_eq!(
        (x.isa, x.tokens, x.cols),
        (pool.isa(), 1, w.cols()),
        "instruction set, tokens and columns of x"
    );
    assert_eq!(y.len(), w.rows(), "one output a row");
    pool.for_each_stretch_mut(y, w.rows(), TILE_ROWS, task_tiles(w), &|row, y| {
        multiply_tiles(w, x, row, y.row_mut(0));
        bounds.clamp_tile(x.isa, y);
    });
}

/// Tiles to hand out at a time, at least.
pub(super) fn task_tiles(w: Quantized) -> usize {
    let (integers, scales) = w.unit_lengths();
    (TASK_BYTES / (integers + scales).max(1)).max(1)
}

/// The outputs of the rows from `row` on, the first of a tile.
pub(super) fn multiply_tiles(w: Quantized, x: &Q8Activations, row: usize, y: &mut [f32]) {
    let (isa, first, x) = (x.isa, row / TILE_ROWS, &x.single);
    dispatch_integer(isa, Tiles { w, x, first, y });
}

/// The outputs of [`matvec`] for some units of [`TILE_ROWS`] rows, one unit behind the other.
pub(crate) fn matvec_blocks(
    pool: &Pool,
    w: Quantized,
    blocks: &[u32],
    x: &Q8Activations,
    y: &mut [f32],
) {
    let tile_rows = TILE_ROWS as u32;
    if !w.format().is_tiled() {
        let rows = blocks
            .iter()
            .flat_map(|block| block * tile_rows..(block + 1) * tile_rows);
        let rows: Vec<u32> = rows.take(y.len()).collect();
        return super::matvec_rows::matvec_rows(pool, w, &rows, x, y);
    }
    assert_eq!(
        (x.isa, x.tokens, x.cols),
        (pool.isa(), 1, w.cols()),
        "instruction set, tokens and columns of x"
    );
    pool.for_each_chunk_mut(y, TILE_ROWS, &|chunk, y| {
        multiply_tiles(w, x, blocks[chunk] as usize * TILE_ROWS, y);
    });
}

/// The outputs `y`, the first of which is that of the first row of tile `first`.
struct Tiles<'a> {
    w: Quantized<'a>,
    x: &'a [X],
    first: usize,
    y: &'a mut [f32],
}

impl IntegerKernel for Tiles<'_> {
    fn scalar(self) {
        scalar::tiles(self);
    }

    each_with!(neon, dotprod, avx2, avx512vnni);
}

/// What an instruction set does with a tile; the methods must be `#[inline(always)]`.
trait TileSums: Copy {
    /// The sums of the 16 rows, in registers.
    type Sums;
    /// Nothing yet.
    fn zero(self) -> Self::Sums;
    /// Adds the products of a group.
    fn add<F: BlockFormat>(self, sums: &mut Self::Sums, w: &F::Tile, sw: &Scales, x: &X);
    /// Adds the products of a pair of groups.
    #[inline(always)]
    fn add_pair<F: BlockFormat>(self, sums: &mut Self::Sums, pair: &F::Pair, x: &[X; TOGETHER]) {
        let (scales, integers) = F::split(pair);
        self.add::<F>(sums, &integers[0], &scales[0], &x[0]);
        self.add::<F>(sums, &integers[1], &scales[1], &x[1]);
    }
    /// The sums of the 16 rows.
    fn rows(self, sums: Self::Sums) -> [f32; TILE_ROWS];
}

impl Tiles<'_> {
    #[inline(always)]
    fn each(self, s: impl TileSums) {
        with_block_format!(self.w.format(), F => self.each_of::<F>(s));
    }

    /// Multiplies tile after tile.
    #[inline(always)]
    fn each_of<F: BlockFormat>(self, s: impl TileSums) {
        let (x, last_x) = self.x.as_chunks::<TOGETHER>();
        for (tile, y) in (self.first..).zip(self.y.chunks_mut(TILE_ROWS)) {
            let pairs = F::Pair::cut(self.w.pairs(tile));
            let mut sums = s.zero();
            for (pair, x) in pairs.iter().zip(x) {
                s.add_pair::<F>(&mut sums, pair, x);
            }
            if let ([x], Some(pair)) = (last_x, pairs.last()) {
                let (scales, integers) = F::split(pair);
                s.add::<F>(&mut sums, &integers[0], &scales[0], x);
            }
            y.copy_from_slice(&s.rows(sums)[..y.len()]);
        }
    }
}
