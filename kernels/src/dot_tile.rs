//! `y[t][r] += w_r · x_t` for all rows of two matrices: the loop inside matvec, matmul and attention scores.
//!
//! Both operands run along the depth, so nothing is packed: a few weight rows meet a few tokens, every weight is loaded and
//! widened once for those tokens, and each product has its own accumulator in a register. Each product is the sum that
//! [`partial_sums`] defines, however many rows and tokens there are.

use std::ops::Range;

use crate::pool::TileMut;
use crate::rows::Rows;
use crate::simd::partial_sums::{self, BLOCK, MAX_REGISTERS, registers};
use crate::simd::{Bundle, Element, Kernel, Simd};

/// Adds to a tile `y [tokens, rows]` the products of `w [rows, depth]` and `x [tokens, depth]`.
///
/// What `y` holds must be 0, or the sum of whole blocks of columns before these.
pub(crate) struct DotTile<'a, 'y, 'm, W> {
    pub(crate) w: Rows<'a, W>,
    pub(crate) x: Rows<'a, f32>,
    pub(crate) y: &'y mut TileMut<'m, f32>,
}

/// Weight rows that meet all tokens before the next ones: with 512 columns of floats, most of a first-level cache.
const ROWS: usize = 12;

/// Whether all partial sums of a few rows and tokens are more than the registers hold: with NEON they are.
#[inline(always)]
const fn by_register<S: Simd>() -> bool {
    registers::<S>() == MAX_REGISTERS
}

impl<'a, E: Element> Rows<'a, E> {
    /// The `R` rows from `row` on.
    #[inline(always)]
    pub(crate) fn bundle<const R: usize>(&self, row: usize) -> Bundle<'a, E, R> {
        let mut rows = [self.row(row); R];
        for (i, to) in rows.iter_mut().enumerate() {
            *to = self.row(row + i);
        }
        Bundle::new(rows, self.depth)
    }
}

impl<W: Element> Kernel for DotTile<'_, '_, '_, W> {
    type Output = ();

    fn scalar(self) {
        for t in 0..self.y.rows() {
            for (r, y) in self.y.row_mut(t).iter_mut().enumerate() {
                *y += partial_sums::plain_dot(self.w.row(r), self.x.row(t));
            }
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(mut self, s: S) {
        let (tokens, rows) = (self.y.rows(), self.y.cols());
        for row in (0..rows).step_by(ROWS) {
            let rows = row..rows.min(row + ROWS);
            let mut t = 0;
            while t < tokens {
                t += match tokens - t {
                    4.. if by_register::<S>() => self.tokens::<S, 4, 1>(s, t, rows.clone()),
                    4.. if S::REGISTERS >= 32 => self.tokens::<S, 4, 4>(s, t, rows.clone()),
                    2.. if by_register::<S>() => self.tokens::<S, 2, 4>(s, t, rows.clone()),
                    // Rather two and two than three and one.
                    3 | 5.. => self.tokens::<S, 3, 2>(s, t, rows.clone()),
                    2.. => self.tokens::<S, 2, 3>(s, t, rows.clone()),
                    _ => self.token(s, t, rows.clone()),
                };
            }
        }
    }
}

impl<W: Element> DotTile<'_, '_, '_, W> {
    /// Token `t`, one row after the other: several streams at once get half of the memory bandwidth.
    #[inline(always)]
    fn token<S: Simd>(&mut self, s: S, t: usize, rows: Range<usize>) -> usize {
        let x = self.x.row(t);
        for r in rows {
            self.y.row_mut(t)[r] += partial_sums::dot(s, self.w.row(r), x);
        }
        1
    }

    /// `rows`, `R` at a time, for the `T` tokens from `t` on; returns `T`. Their sums fit the registers.
    #[inline(always)]
    fn tokens<S: Simd, const T: usize, const R: usize>(
        &mut self,
        s: S,
        t: usize,
        rows: Range<usize>,
    ) -> usize {
        let x = self.x.bundle(t);
        let mut r = rows.start;
        while rows.end - r >= R {
            self.products::<S, T, R>(s, x, t, r);
            r += R;
        }
        while r < rows.end {
            self.products::<S, T, 1>(s, x, t, r);
            r += 1;
        }
        T
    }

    /// The products of the `R` rows from `r` on with the `T` tokens from `t` on.
    #[inline(always)]
    fn products<S: Simd, const T: usize, const R: usize>(
        &mut self,
        s: S,
        x: Bundle<'_, f32, T>,
        t: usize,
        r: usize,
    ) {
        let (depth, w) = (self.w.depth, self.w.bundle::<R>(r));
        for first in (0..depth).step_by(BLOCK) {
            let columns = first..depth.min(first + BLOCK);
            // All partial sums of four products just fit the registers of NEON.
            let folded = if by_register::<S>() && T * R > 4 {
                w.products_by_register(s, x, columns)
            } else {
                w.products(s, x, columns)
            };
            add_sums(s, self.y, t, r, folded);
        }
    }
}

/// Adds to `y`, from token `t` and row `r` on, the sum of the lanes of each register.
#[inline(always)]
pub(crate) fn add_sums<S: Simd, const T: usize, const R: usize>(
    s: S,
    y: &mut TileMut<'_, f32>,
    t: usize,
    r: usize,
    folded: [[S::V; R]; T],
) {
    let mut sums = [[0.0; R]; T];
    let (fours, rest) = folded.as_flattened().as_chunks::<4>();
    let (four_sums, rest_sums) = sums.as_flattened_mut().as_chunks_mut::<4>();
    for (sums, four) in four_sums.iter_mut().zip(fours) {
        *sums = s.sums(*four);
    }
    for (sum, one) in rest_sums.iter_mut().zip(rest) {
        *sum = s.sum(*one);
    }
    for (i, sums) in sums.iter().enumerate() {
        let y = &mut y.row_mut(t + i)[r..r + R];
        for (y, sum) in y.iter_mut().zip(sums) {
            *y += sum;
        }
    }
}
