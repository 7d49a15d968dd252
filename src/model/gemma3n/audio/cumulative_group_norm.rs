//! A norm that knows only the past.

use crate::model::weights::{Mapped, WeightsError};

/// The cumulative group norm and ReLU behind a sub-sampling convolution.
///
/// With `x_t` the `n` values of frame `t`:
///
/// ```text
/// S_t = S_{t-1} + sum(x_t);             mu_t = S_t / (n t)
/// Q_t = Q_{t-1} + sum((x_t - mu_t)^2);  y_t = (x_t - mu_t) / sqrt(Q_t / (n t) + eps) * weight[channel]
/// ```
///
/// Each frame deviates from its own running mean, so `Q_t / (n t)` is not quite the variance; the model was trained so. The sums
/// grow with the clip and are f64.
///
/// Source: `Gemma3nAudioCumulativeGroupNorm`.
#[derive(Debug)]
pub(super) struct CumulativeGroupNorm {
    /// `[channels]`
    weight: Vec<f32>,
    eps: f64,
}

/// The sums over a clip so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl CumulativeGroupNorm {
    pub(super) fn load(
        weights: &Mapped,
        channels: usize,
        eps: f32,
        name: &str,
    ) -> Result<CumulativeGroupNorm, WeightsError> {
        Ok(CumulativeGroupNorm {
            weight: weights.vector(name, channels)?,
            eps: f64::from(eps),
        })
    }

    /// Norms the next frame of a clip, `[freq][channel]`, and cuts off what is negative.
    pub(super) fn forward(&self, sums: &mut Sums, frame: &mut [f32]) {
        sums.count += frame.len() as f64;
        sums.sum += frame.iter().map(|&x| f64::from(x)).sum::<f64>();
        let mean = sums.sum / sums.count;
        sums.squares += frame
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>();
        let scale = 1.0 / (sums.squares / sums.count + self.eps).sqrt();
        for values in frame.chunks_exact_mut(self.weight.len()) {
            for (x, &weight) in values.iter_mut().zip(&self.weight) {
                let normed = (f64::from(*x) - mean) * scale * f64::from(weight);
                *x = normed.max(0.0) as f32;
            }
        }
    }
}
