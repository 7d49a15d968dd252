//! Rotary position embedding, in the form that rotates the two halves of a head.
//!
//! Angles come from `libm` and not from the system's library: sines and cosines are then the same everywhere.
//!
//! 74 instructions for 32 numbers on ARM.

use crate::Isa;
use crate::simd::{Kernel, Plain, Simd, dispatch};

/// `theta^(-2j / head_dim)` for `j < head_dim / 2`: the angle by which each pair turns from one position to the next.
pub fn inverse_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|j| libm::pow(theta, -2.0 * j as f64 / head_dim as f64))
        .collect()
}

/// `cos_j = cos(position f_j)`, `sin_j = sin(position f_j)`, in double precision before rounding.
///
/// # Panics
/// When the three slices do not have one length.
pub fn cos_sin(position: usize, inverse_frequencies: &[f64], cos: &mut [f32], sin: &mut [f32]) {
    assert!(
        cos.len() == inverse_frequencies.len() && sin.len() == cos.len(),
        "one cosine and sine for each frequency"
    );
    for ((f, cos), sin) in inverse_frequencies.iter().zip(cos).zip(sin) {
        let (s, c) = libm::sincos(position as f64 * f);
        (*cos, *sin) = (c as f32, s as f32);
    }
}

/// Turns each head of `x`: `x'_j = x_j cos_j - x_{j+h} sin_j`, `x'_{j+h} = x_{j+h} cos_j + x_j sin_j`, `h = head_dim / 2`.
///
/// `cos` and `sin` have `h` elements, those of one position; `x` is any number of heads of `2 h` elements.
///
/// Source: Su et al., *RoFormer*, 2021, equation 34, with the pairing of `rotate_half` in transformers.
///
/// # Panics
/// When `x` is not a whole number of heads or `sin` is not as long as `cos`.
pub fn rope(isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len(), "as many sines as cosines");
    if x.is_empty() {
        return;
    }
    let head_dim = 2 * cos.len();
    assert!(
        head_dim > 0 && x.len().is_multiple_of(head_dim),
        "{} elements are no whole number of heads of {head_dim}",
        x.len()
    );
    dispatch(isa, Rotate { x, cos, sin });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    fn scalar(self) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(2 * half) {
            for j in 0..half {
                (head[j], head[j + half]) =
                    turn(Plain, head[j], head[j + half], self.cos[j], self.sin[j]);
            }
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            let mut a = a.chunks_exact_mut(S::LANES);
            let mut b = b.chunks_exact_mut(S::LANES);
            let mut cos = self.cos.chunks_exact(S::LANES);
            let mut sin = self.sin.chunks_exact(S::LANES);
            for (((a, b), cos), sin) in (&mut a).zip(&mut b).zip(&mut cos).zip(&mut sin) {
                let (x, y) = turn(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
                s.store(x, a);
                s.store(y, b);
            }
            let (a, b) = (a.into_remainder(), b.into_remainder());
            if !a.is_empty() {
                let cos = s.load_tail(cos.remainder(), 0.0);
                let sin = s.load_tail(sin.remainder(), 0.0);
                let (x, y) = turn(s, s.load_tail(a, 0.0), s.load_tail(b, 0.0), cos, sin);
                s.store_tail(x, a);
                s.store_tail(y, b);
            }
        }
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    let minus_sin = s.sub(s.splat(0.0), sin);
    (
        s.mul_add(a, cos, s.mul(b, minus_sin)),
        s.mul_add(b, cos, s.mul(a, sin)),
    )
}
