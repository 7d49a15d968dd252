//! Arithmetic element by element, and sums over all elements.

mod activation;
mod reduce;

pub use activation::{sigmoid, silu, soft_cap, tanh};
pub use reduce::{dot, mean_and_deviation, sum};

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
    fn scalar(self, x: f32, y: f32) -> f32 {
        x + y
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.add(x, y)
    }
}

#[derive(Clone, Copy)]
struct Mul;

impl Binary for Mul {
    fn scalar(self, x: f32, y: f32) -> f32 {
        x * y
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul(x, y)
    }
}

#[derive(Clone, Copy)]
struct ScaleAdd(f32);

impl Binary for ScaleAdd {
    fn scalar(self, x: f32, y: f32) -> f32 {
        self.0.mul_add(y, x)
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul_add(s.splat(self.0), y, x)
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl Unary for Scale {
    fn scalar(self, x: f32) -> f32 {
        x * self.0
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, s.splat(self.0))
    }
}

#[derive(Clone, Copy)]
struct Excess(f32);

impl Unary for Excess {
    fn scalar(self, x: f32) -> f32 {
        let excess = x - self.0;
        if excess < 0.0 { 0.0 } else { excess }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.max(s.splat(0.0), s.sub(x, s.splat(self.0)))
    }
}
