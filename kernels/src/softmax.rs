//! Softmax of one row.

use crate::Isa;
use crate::simd::{Kernel, Simd, dispatch, math};

/// `x_i = e^(x_i - m) / sum_j e^(x_j - m)` with `m` the largest element.
///
/// Minus infinity (a masked element) becomes exactly 0. A NaN, plus infinity, or nothing but minus infinity makes the whole
/// row NaN.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    if x.is_empty() {
        return;
    }
    let sum = dispatch(isa, Exponentials { x });
    crate::elementwise::scale(isa, x, 1.0 / sum);
}

/// `x = e^(x - max x)`; returns the sum.
struct Exponentials<'a> {
    x: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        let max = self.x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for x in self.x {
            let e = f64::from(*x - max).exp();
            sum += e;
            *x = e as f32;
        }
        sum as f32
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) -> f32 {
        let mut max = s.splat(f32::NEG_INFINITY);
        let chunks = self.x.chunks_exact(S::LANES);
        let rest = chunks.remainder();
        for x in chunks {
            max = s.max(max, s.load(x));
        }
        max = s.max(max, s.load_tail(rest, f32::NEG_INFINITY));
        let max = s.splat(s.max_lane(max));
        let mut sum = s.splat(0.0);
        let mut chunks = self.x.chunks_exact_mut(S::LANES);
        for x in &mut chunks {
            let e = math::exp(s, s.sub(s.load(x), max));
            sum = s.add(sum, e);
            s.store(e, x);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let e = math::exp(s, s.sub(s.load_tail(rest, f32::NEG_INFINITY), max));
            sum = s.add(sum, e);
            s.store_tail(e, rest);
        }
        s.sum(sum)
    }
}
