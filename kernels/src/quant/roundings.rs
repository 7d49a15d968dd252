//! Static 8-bit rounding of what goes into a product and of what comes out, as it was trained.

use crate::map::Unary;
use crate::simd::Simd;

/// What a linear layer rounds: `y = r(W r(x, input), output)`, with `r(x, s) = clamp(round(x / s), −128, 127) s`, ties to even.
///
/// A scale of 0 leaves the numbers as they are. They belong to trained weights: a model that was trained with them
/// answers worse without.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roundings {
    /// Scale of the inputs.
    pub input: f32,
    /// Scale of the outputs.
    pub output: f32,
}

/// Rounds to multiples of a scale, at most −128 and 127 of them; NaN stays NaN.
#[derive(Clone, Copy)]
pub(crate) struct RoundTo(pub(crate) f32);

impl Unary for RoundTo {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let scale = s.splat(self.0);
        let steps = s.round(s.div(x, scale));
        let within = s.min(s.splat(127.0), s.max(s.splat(-128.0), steps));
        s.mul(within, scale)
    }
}
