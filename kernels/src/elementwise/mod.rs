//! Arithmetic element by element, and sums over all elements.
//!
//! 65 instructions for 32 numbers on ARM where two slices are added, 57 where one is scaled.

mod activation;
mod reduce;

pub use activation::{sigmoid, silu, soft_cap, tanh};
pub use reduce::{dot, mean_and_deviation, mean_and_variance, sum};

use crate::Isa;
use crate::map::{Binary, Unary, map, zip};
use crate::simd::Simd;

/// `x = x + y`
///
/// # Panics
/// When the lengths differ.
pub fn add(isa: Isa, x: &mut [f32], y: &[f32]) {
    zip(isa, x, y, Add);
}

/// `x = x * y`
///
/// # Panics
/// When the lengths differ.
pub fn mul(isa: Isa, x: &mut [f32], y: &[f32]) {
    zip(isa, x, y, Mul);
}

/// `x = x + a y`, rounded once.
///
/// # Panics
/// When the lengths differ.
pub fn scale_add(isa: Isa, x: &mut [f32], a: f32, y: &[f32]) {
    zip(isa, x, y, ScaleAdd(a));
}

/// `x = a x`
pub fn scale(isa: Isa, x: &mut [f32], a: f32) {
    map(isa, x, Scale(a));
}

/// `x = max(x - threshold, 0)`; NaN stays NaN.
pub fn excess(isa: Isa, x: &mut [f32], threshold: f32) {
    map(isa, x, Excess(threshold));
}

#[derive(Clone, Copy)]
struct Add;

impl Binary for Add {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.add(x, y)
    }
}

#[derive(Clone, Copy)]
struct Mul;

impl Binary for Mul {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul(x, y)
    }
}

#[derive(Clone, Copy)]
struct ScaleAdd(f32);

impl Binary for ScaleAdd {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul_add(s.splat(self.0), y, x)
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl Unary for Scale {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, s.splat(self.0))
    }
}

#[derive(Clone, Copy)]
struct Excess(f32);

impl Unary for Excess {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let excess = s.max(s.splat(0.0), s.sub(x, s.splat(self.0)));
        // Which of two zeros `max` gives depends on the instruction set.
        s.add(s.splat(0.0), excess)
    }
}
