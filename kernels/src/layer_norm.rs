//! Layer normalisation over the channels of a point, and the ReLU behind it.
//!
//! The numbers of many points lie one behind the other, `[points, channels]`.

use crate::Isa;
use crate::elementwise::mean_and_variance;
use crate::map::{Binary, zip};
use crate::simd::Simd;

/// `x = max(0, (x - mean) / sqrt(variance + eps) * weight)` for each point's channels, of which there are as many as weights; the
/// variance is that of a whole population.
///
/// Source: Ba, Kiros and Hinton, *Layer Normalization*, 2016; `Gemma4AudioSubSampleConvProjectionLayer`.
///
/// # Panics
/// When `x` is no whole number of points.
pub fn layer_norm_relu(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    if x.is_empty() {
        return;
    }
    assert!(
        !weight.is_empty() && x.len().is_multiple_of(weight.len()),
        "{} numbers in points of {} channels",
        x.len(),
        weight.len()
    );
    for x in x.chunks_exact_mut(weight.len()) {
        let (mean, variance) = mean_and_variance(isa, x);
        let factor = 1.0 / (variance + eps).sqrt();
        zip(isa, x, weight, NormalizeRelu { mean, factor });
    }
}

#[derive(Clone, Copy)]
struct NormalizeRelu {
    mean: f32,
    factor: f32,
}

impl Binary for NormalizeRelu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V, weight: S::V) -> S::V {
        let centered = s.sub(x, s.splat(self.mean));
        let normed = s.mul(s.mul(centered, s.splat(self.factor)), weight);
        // Which of two zeros `max` gives depends on the instruction set.
        s.add(s.splat(0.0), s.max(s.splat(0.0), normed))
    }
}
