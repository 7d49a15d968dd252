//! `y[t][r] = w_r · x_t` for all rows of two matrices: the loop inside matvec, small matmuls and attention scores.
//!
//! Both operands run along the depth, so nothing is packed: a block of weight rows meets a block of tokens, every weight is
//! loaded and widened once for the block's tokens, and each product has its own accumulator in a register.

use crate::pool::TileMut;
use crate::simd::{Bundle, Element, Kernel, Simd};

/// Rows of `depth` elements, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) stride: usize,
    pub(crate) depth: usize,
}

impl<'a, E> Rows<'a, E> {
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [E] {
        &self.data[row * self.stride..][..self.depth]
    }

    /// The rows from `row` on.
    pub(crate) fn from(self, row: usize) -> Rows<'a, E> {
        Rows {
            data: &self.data[row * self.stride..],
            ..self
        }
    }
}

/// Fills a tile `y [tokens, rows]` from `w [rows, depth]` and `x [tokens, depth]`.
pub(crate) struct DotTile<'a, 'y, 'm, W> {
    pub(crate) w: Rows<'a, W>,
    pub(crate) x: Rows<'a, f32>,
    pub(crate) y: &'y mut TileMut<'m, f32>,
}

impl<W: Element> Kernel for DotTile<'_, '_, '_, W> {
    type Output = ();

    fn scalar(self) {
        for t in 0..self.y.rows() {
            for (r, y) in self.y.row_mut(t).iter_mut().enumerate() {
                *y = scalar_dot(self.w.row(r), self.x.row(t));
            }
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(mut self, s: S) {
        let tokens = self.y.rows();
        let mut t = 0;
        while t < tokens {
            t += match tokens - t {
                4.. if S::REGISTERS >= 32 => self.tokens::<S, 4, 4, 1>(s, t),
                2.. => self.tokens::<S, 4, 2, 1>(s, t),
                // One row after the other: several streams at once get half of the memory bandwidth. Many accumulators,
                // or each addition would wait for the one before.
                _ => self.tokens::<S, 1, 1, 8>(s, t),
            };
        }
    }
}

impl<W: Element> DotTile<'_, '_, '_, W> {
    /// All rows, `R` at a time, for the `T` tokens from `t` on; returns `T`.
    #[inline(always)]
    fn tokens<S: Simd, const R: usize, const T: usize, const UNROLL: usize>(
        &mut self,
        s: S,
        t: usize,
    ) -> usize {
        let depth = self.w.depth;
        let mut xs = [self.x.row(t); T];
        for (i, x) in xs.iter_mut().enumerate() {
            *x = self.x.row(t + i);
        }
        let x = Bundle::new(xs, depth);
        let rows = self.y.cols();
        let whole = rows - rows % R;
        for r in (0..whole).step_by(R) {
            let mut ws = [self.w.row(r); R];
            for (i, w) in ws.iter_mut().enumerate() {
                *w = self.w.row(r + i);
            }
            let products = dots::<S, W, R, T, UNROLL>(s, Bundle::new(ws, depth), x, depth);
            for i in 0..T {
                let y = &mut self.y.row_mut(t + i)[r..r + R];
                for (y, product) in y.iter_mut().zip(&products) {
                    *y = product[i];
                }
            }
        }
        for r in whole..rows {
            let w = Bundle::new([self.w.row(r)], depth);
            let [products] = dots::<S, W, 1, T, UNROLL>(s, w, x, depth);
            for (i, product) in products.into_iter().enumerate() {
                self.y.row_mut(t + i)[r] = product;
            }
        }
        T
    }
}

/// The products of `R` weight rows with `T` tokens, `UNROLL` registers a step.
#[inline(always)]
fn dots<S: Simd, W: Element, const R: usize, const T: usize, const UNROLL: usize>(
    s: S,
    w: Bundle<'_, W, R>,
    x: Bundle<'_, f32, T>,
    depth: usize,
) -> [[f32; T]; R] {
    let mut sums = [[[s.splat(0.0); T]; R]; UNROLL];
    let mut at = 0;
    while depth - at >= UNROLL * S::LANES {
        for (u, sums) in sums.iter_mut().enumerate() {
            let x = x.load(s, at + u * S::LANES);
            let w = w.load(s, at + u * S::LANES);
            accumulate(s, sums, w, x);
        }
        at += UNROLL * S::LANES;
    }
    while depth - at >= S::LANES {
        accumulate(s, &mut sums[0], w.load(s, at), x.load(s, at));
        at += S::LANES;
    }
    if at < depth {
        accumulate(s, &mut sums[0], w.load_tail(s, at), x.load_tail(s, at));
    }
    let mut out = [[0.0; T]; R];
    for r in 0..R {
        for t in 0..T {
            let mut sum = sums[0][r][t];
            for more in &sums[1..] {
                sum = s.add(sum, more[r][t]);
            }
            out[r][t] = s.sum(sum);
        }
    }
    out
}

#[inline(always)]
fn accumulate<S: Simd, const R: usize, const T: usize>(
    s: S,
    sums: &mut [[S::V; T]; R],
    w: [S::V; R],
    x: [S::V; T],
) {
    for (sums, w) in sums.iter_mut().zip(w) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = s.mul_add(w, x, *sum);
        }
    }
}

/// The reference: products summed in order, in double precision.
pub(crate) fn scalar_dot<W: Element>(w: &[W], x: &[f32]) -> f32 {
    let sum: f64 = w
        .iter()
        .zip(x)
        .map(|(&w, &x)| f64::from(w.widen()) * f64::from(x))
        .sum();
    sum as f32
}
