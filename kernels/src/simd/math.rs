//! Exponential and friends on registers, to about two units in the last place.
//!
//! `e^x = 2^n e^r` with `n` the integer nearest to `x / ln 2`, so that `|r| <= ln 2 / 2`, where a polynomial does.
//! Its coefficients are those of Cephes (S. L. Moshier, `expf.c`): `e^r = 1 + r + r^2 p(r)`, off by less than 1e-7.

use super::Simd;

/// ln 2 in two parts: the first has few enough bits that its product with `n` is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Where `e^x` has rounded to 0, and where to infinity: beyond, nothing changes.
const LOWEST: f32 = -104.0;
const HIGHEST: f32 = 89.0;

/// `n` and `e^r - 1`.
#[inline(always)]
fn reduced<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN_2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN_2_LOW), r);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_65,
        0.5,
    ] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    (n, s.mul_add(s.mul(r, r), p, r))
}

/// `e^x`; 0 and infinity where it is too small or too large, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The constant first: `max` and `min` then hand a NaN on.
    let x = s.min(s.splat(HIGHEST), s.max(s.splat(LOWEST), x));
    let (n, e) = reduced(s, x);
    s.scale_by_power_of_two(s.add(e, s.splat(1.0)), n)
}

/// `tanh x = (e^2x - 1) / (e^2x + 1)`, from `e^2x - 1` so that nothing cancels near 0.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // From here on it is 1 in single precision.
    let x = s.min(s.splat(10.0), s.max(s.splat(-10.0), x));
    let (n, e) = reduced(s, s.add(x, x));
    let power = s.scale_by_power_of_two(s.splat(1.0), n);
    let less_one = s.mul_add(power, e, s.sub(power, s.splat(1.0)));
    s.div(less_one, s.add(less_one, s.splat(2.0)))
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}
