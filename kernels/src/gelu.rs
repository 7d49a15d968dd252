//! The Gaussian error linear unit in its tanh approximation.
//!
//! 337 instructions for 32 numbers on ARM, multiplied with 32 others.

use std::f64::consts::FRAC_2_SQRT_PI;

use crate::Isa;
use crate::map::{Binary, Unary, map, zip};
use crate::simd::{Simd, math};

/// `x = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`; NaN for minus infinity, as that formula says.
///
/// Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016, section 2; PyTorch `gelu(approximate="tanh")`.
pub fn gelu_tanh(isa: Isa, x: &mut [f32]) {
    map(isa, x, Gelu);
}

/// `gate = gelu_tanh(gate) * up`: the middle of a gated feed-forward network.
///
/// # Panics
/// When the lengths differ.
pub fn gelu_tanh_mul(isa: Isa, gate: &mut [f32], up: &[f32]) {
    zip(isa, gate, up, GeluMul);
}

/// sqrt(2/pi), from 2/sqrt(pi).
const SQRT_2_OVER_PI: f64 = FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044715;

#[derive(Clone, Copy)]
struct Gelu;

impl Unary for Gelu {
    /// With `(1 + tanh u) / 2 = 1 / (1 + e^-2u)`, which does not cancel for negative u.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let linear = s.splat((-2.0 * SQRT_2_OVER_PI) as f32);
        let cubic = s.splat((-2.0 * SQRT_2_OVER_PI * CUBIC) as f32);
        let minus_2u = s.mul(x, s.mul_add(cubic, s.mul(x, x), linear));
        s.div(x, s.add(s.splat(1.0), math::exp(s, minus_2u)))
    }
}

#[derive(Clone, Copy)]
struct GeluMul;

impl Binary for GeluMul {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, gate: S::V, up: S::V) -> S::V {
        s.mul(Gelu.of(s, gate), up)
    }
}
