//! Root mean square layer normalisation of one row.
//!
//! 96 instructions for 32 numbers on ARM.

use crate::Isa;
use crate::elementwise::dot;
use crate::map::{Binary, zip};
use crate::simd::Simd;

/// `out = x / sqrt(mean(x^2) + eps) * weight`, without the factor when there is no weight.
///
/// `x`, `weight` and `out` have one length. Squares are summed in single precision, so `x` must stay below about 1e18.
///
/// Source: Zhang and Sennrich, *Root Mean Square Layer Normalization*, 2019, equation 4; `Gemma3nRMSNorm`.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm(isa: Isa, x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "as many outputs as inputs");
    out.copy_from_slice(x);
    rms_norm_in_place(isa, out, weight, eps);
}

/// [`rms_norm`] with `x` as its own output.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    if x.is_empty() {
        return;
    }
    let mean_square = dot(isa, x, x) / x.len() as f32;
    let factor = 1.0 / (mean_square + eps).sqrt();
    match weight {
        Some(weight) => zip(isa, x, weight, Normalize(factor)),
        None => crate::elementwise::scale(isa, x, factor),
    }
}

#[derive(Clone, Copy)]
struct Normalize(f32);

impl Binary for Normalize {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V, weight: S::V) -> S::V {
        s.mul(s.mul(x, s.splat(self.0)), weight)
    }
}
