//! Softmax of one row.
//!
//! 350 instructions for 32 numbers on ARM.

use crate::Isa;
use crate::simd::partial_sums::{self, BLOCK, MAX_REGISTERS, Partial, WAYS, registers};
use crate::simd::{Kernel, Plain, Simd, dispatch, math};

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
        for x in &mut *self.x {
            *x = math::exp(Plain, *x - max);
        }
        partial_sums::plain(self.x.len(), |sum, k| sum + self.x[k])
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
        let mut sum = 0.0;
        for x in self.x.chunks_mut(BLOCK) {
            let mut partial = [s.splat(0.0); MAX_REGISTERS];
            let (steps, rest) = x.as_chunks_mut::<WAYS>();
            for x in steps {
                step(s, max, &mut partial, x);
            }
            if !rest.is_empty() {
                let mut last = partial_sums::last_step(rest, f32::NEG_INFINITY);
                step(s, max, &mut partial, &mut last);
                rest.copy_from_slice(&last[..rest.len()]);
            }
            sum += partial_sums::total(s, partial);
        }
        sum
    }
}

#[inline(always)]
fn step<S: Simd>(s: S, max: S::V, partial: &mut Partial<S>, x: &mut [f32; WAYS]) {
    for (i, sum) in partial[..registers::<S>()].iter_mut().enumerate() {
        let x = &mut x[i * S::LANES..];
        let e = math::exp(s, s.sub(s.load(x), max));
        *sum = s.add(*sum, e);
        s.store(e, x);
    }
}
