//! The products of [`DotTile`] for many tokens: both operands are widened and copied first, so that a register of partial
//! sums reads them in one stream, and as many of them as fit stay in registers at a time.

use crate::clip::Bounds;
use crate::dot_tile::{DotTile, add_sums};
use crate::map::Unary;
use crate::pool::TileMut;
use crate::rows::Rows;
use crate::simd::partial_sums::{self, BLOCK, MAX_REGISTERS, WAYS, registers};
use crate::simd::{Bundle, Element, Kernel, Simd};

/// Weight rows that meet all tokens before the next ones: with [`BLOCK`] columns, half of a first-level cache.
const ROWS: usize = 8;

/// Adds to a tile `y [tokens, rows]`, which must be 0, the products of `w [rows, depth]` and `x [tokens, depth]`.
///
/// `packed_w` and `packed_x` have room for [`BLOCK`] floats a row and a token.
pub(crate) struct PackedTile<'a, 'y, 'm, W> {
    pub(crate) w: Rows<'a, W>,
    pub(crate) x: Rows<'a, f32>,
    /// What `x` is cut off to.
    pub(crate) bounds: Bounds,
    pub(crate) packed_w: &'a mut [f32],
    pub(crate) packed_x: &'a mut [f32],
    pub(crate) y: &'y mut TileMut<'m, f32>,
}

impl<W: Element> Kernel for PackedTile<'_, '_, '_, W> {
    type Output = ();

    fn scalar(self) {
        let PackedTile { w, x, y, .. } = self;
        debug_assert!(self.bounds.is_none(), "the reference packs nothing");
        DotTile { w, x, y }.scalar();
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let (tokens, rows) = (self.y.rows(), self.y.cols());
        for first in (0..self.w.depth).step_by(BLOCK) {
            let depth = BLOCK.min(self.w.depth - first);
            let len = depth.next_multiple_of(WAYS);
            for (r, to) in self.packed_w.chunks_exact_mut(len).take(rows).enumerate() {
                pack(s, &self.w.row(r)[first..first + depth], to);
            }
            for (t, to) in self.packed_x.chunks_exact_mut(len).take(tokens).enumerate() {
                pack(s, &self.x.row(t)[first..first + depth], to);
                if !self.bounds.is_none() {
                    clamp(s, self.bounds, to);
                }
            }
            let packed = |data| Rows {
                data,
                stride: len,
                depth: len,
            };
            multiply(s, packed(&*self.packed_w), packed(&*self.packed_x), self.y);
        }
    }
}

/// Adds to a tile `y [tokens, rows]` the products of a block of columns of `w` and `x`, both as [`pack`] writes them.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(
    s: S,
    w: Rows<'_, f32>,
    x: Rows<'_, f32>,
    y: &mut TileMut<'_, f32>,
) {
    let (tokens, rows) = (y.rows(), y.cols());
    for row in (0..rows).step_by(ROWS) {
        let end = rows.min(row + ROWS);
        let mut t = 0;
        while t < tokens {
            t += match tokens - t {
                4.. if S::REGISTERS >= 32 => few::<S, 4>(s, w, x, t, row..end, y),
                3.. => few::<S, 3>(s, w, x, t, row..end, y),
                _ => few::<S, 1>(s, w, x, t, row..end, y),
            };
        }
    }
}

/// Copies a row, of at most [`BLOCK`] elements: first the columns of the first register of partial sums, then those of the second, …; the last step is
/// continued with zeros.
#[inline(always)]
pub(crate) fn pack<S: Simd, E: Element>(s: S, from: &[E], to: &mut [f32]) {
    let steps = to.len() / WAYS;
    let (whole, rest) = from.as_chunks::<WAYS>();
    let last = partial_sums::last_step(rest, 0.0);
    for (i, to) in to.chunks_exact_mut(steps * S::LANES).enumerate() {
        let mut to = to.chunks_exact_mut(S::LANES);
        for (from, to) in whole.iter().zip(&mut to) {
            s.store(E::load(s, &from[i * S::LANES..]), to);
        }
        if let Some(to) = to.next() {
            s.store(s.load(&last[i * S::LANES..]), to);
        }
    }
}

/// Cuts off a packed row; the weights with which zeros at its end are multiplied are zeros, too.
#[inline(always)]
fn clamp<S: Simd>(s: S, bounds: Bounds, x: &mut [f32]) {
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(bounds.of(s, s.load(x)), x);
    }
}

/// The rows of a range, four at a time, for the `T` tokens from `t` on; returns `T`.
#[inline(always)]
fn few<S: Simd, const T: usize>(
    s: S,
    w: Rows<'_, f32>,
    x: Rows<'_, f32>,
    t: usize,
    rows: std::ops::Range<usize>,
    y: &mut TileMut<'_, f32>,
) -> usize {
    let x = x.bundle(t);
    let mut r = rows.start;
    while rows.end - r >= 4 {
        add_sums(s, y, t, r, products::<S, T, 4>(s, w.bundle(r), x));
        r += 4;
    }
    while r < rows.end {
        add_sums(s, y, t, r, products::<S, T, 1>(s, w.bundle(r), x));
        r += 1;
    }
    T
}

/// The sums of products of a block, but for the lanes of a register.
#[inline(always)]
fn products<S: Simd, const T: usize, const R: usize>(
    s: S,
    w: Bundle<'_, f32, R>,
    x: Bundle<'_, f32, T>,
) -> [[S::V; R]; T] {
    let len = w.len() / registers::<S>();
    let mut partial = [[[s.splat(0.0); R]; T]; MAX_REGISTERS];
    for (i, partial) in partial[..registers::<S>()].iter_mut().enumerate() {
        *partial = w.register_products(s, x, i * len..(i + 1) * len, S::LANES);
    }
    partial_sums::fold_all(s, partial)
}
