//! Sums over a slice. Each lane of four registers keeps its own single-precision sum.

use crate::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// `sum_i a_i b_i`
///
/// # Panics
/// When the lengths differ.
pub fn dot(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "two slices of one length");
    dispatch(isa, Dot { a, b })
}

/// `sum_i x_i`
pub fn sum(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, SquaresAround { x, center: None })
}

/// The mean `m = sum x / n` and the population standard deviation `sqrt(sum (x - m)^2 / n)`; zeros for an empty slice.
pub fn mean_and_deviation(isa: Isa, x: &[f32]) -> (f32, f32) {
    if x.is_empty() {
        return (0.0, 0.0);
    }
    let n = x.len() as f32;
    let mean = sum(isa, x) / n;
    let squares = dispatch(
        isa,
        SquaresAround {
            x,
            center: Some(mean),
        },
    );
    (mean, (squares / n).sqrt())
}

/// Registers that are summed up side by side, so that one addition need not wait for the one before.
const WAYS: usize = 4;

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        crate::dot_tile::scalar_dot(self.a, self.b)
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); WAYS];
        let mut a = self.a.chunks_exact(WAYS * S::LANES);
        let mut b = self.b.chunks_exact(WAYS * S::LANES);
        for (a, b) in (&mut a).zip(&mut b) {
            for (way, sum) in sums.iter_mut().enumerate() {
                let at = way * S::LANES;
                *sum = s.mul_add(s.load(&a[at..]), s.load(&b[at..]), *sum);
            }
        }
        for (a, b) in a
            .remainder()
            .chunks(S::LANES)
            .zip(b.remainder().chunks(S::LANES))
        {
            sums[0] = s.mul_add(s.load_tail(a, 0.0), s.load_tail(b, 0.0), sums[0]);
        }
        total(s, sums)
    }
}

/// The plain sum, or the sum of squared distances from a center.
struct SquaresAround<'a> {
    x: &'a [f32],
    center: Option<f32>,
}

impl Kernel for SquaresAround<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        let x = self.x.iter().map(|&x| f64::from(x));
        let sum: f64 = match self.center {
            None => x.sum(),
            Some(center) => x.map(|x| (x - f64::from(center)).powi(2)).sum(),
        };
        sum as f32
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); WAYS];
        let mut chunks = self.x.chunks_exact(WAYS * S::LANES);
        // What fills up the last register must add nothing.
        let fill = self.center.unwrap_or(0.0);
        for x in &mut chunks {
            for (way, sum) in sums.iter_mut().enumerate() {
                *sum = self.step(s, *sum, s.load(&x[way * S::LANES..]));
            }
        }
        for x in chunks.remainder().chunks(S::LANES) {
            sums[0] = self.step(s, sums[0], s.load_tail(x, fill));
        }
        total(s, sums)
    }
}

impl SquaresAround<'_> {
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, sum: S::V, x: S::V) -> S::V {
        match self.center {
            None => s.add(sum, x),
            Some(center) => {
                let distance = s.sub(x, s.splat(center));
                s.mul_add(distance, distance, sum)
            }
        }
    }
}

#[inline(always)]
fn total<S: Simd>(s: S, sums: [S::V; WAYS]) -> f32 {
    let [a, b, c, d] = sums;
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}
