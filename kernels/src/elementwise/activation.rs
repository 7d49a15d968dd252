//! Sigmoid, SiLU, tanh and the soft cap.
//!
//! 297 instructions for 32 numbers on ARM, the soft cap 313.

use crate::Isa;
use crate::map::{Unary, map};
use crate::simd::{Simd, math};

/// `x = 1 / (1 + e^-x)`
pub fn sigmoid(isa: Isa, x: &mut [f32]) {
    map(isa, x, Sigmoid);
}

/// `x = x / (1 + e^-x)`, also called swish; NaN for minus infinity.
pub fn silu(isa: Isa, x: &mut [f32]) {
    map(isa, x, Silu);
}

/// `x = tanh x`
pub fn tanh(isa: Isa, x: &mut [f32]) {
    map(isa, x, Tanh);
}

/// `x = cap tanh(x / cap)`: nearly `x` where it is small, never beyond `cap`.
pub fn soft_cap(isa: Isa, x: &mut [f32], cap: f32) {
    map(isa, x, SoftCap(cap));
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Unary for Sigmoid {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::sigmoid(s, x)
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Unary for Silu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let e = math::exp(s, s.sub(s.splat(0.0), x));
        s.div(x, s.add(s.splat(1.0), e))
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Unary for Tanh {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::tanh(s, x)
    }
}

#[derive(Clone, Copy)]
struct SoftCap(f32);

impl Unary for SoftCap {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let cap = s.splat(self.0);
        s.mul(cap, math::tanh(s, s.div(x, cap)))
    }
}
