//! Log-mel frames, as the model was trained to hear them.
//!
//! A frame is 513 samples of 16 kHz audio, taken every 160. It is pre-emphasised, windowed, zero-padded to twice its
//! length, Fourier transformed, and its magnitudes are gathered into triangular mel bands, of which the natural
//! logarithm is taken. The arithmetic is f64: a loud frame's rounding in f32 would show in its quiet bands, and a
//! hundred transforms a second cost nothing next to the encoder.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::media::SAMPLE_RATE_HZ;

/// Samples from the start of one frame to the start of the next.
pub const HOP_SAMPLES: usize = 160;
/// Samples that must exist for a frame to exist; the last of them only decides that.
pub const FRAME_SAMPLES: usize = WINDOW_SAMPLES + 1;

const WINDOW_SAMPLES: usize = 512;
pub(super) const FFT_SAMPLES: usize = 1024;
/// The end of a clip is padded with zeros to a multiple of this.
const PAD_MULTIPLE_SAMPLES: usize = 128;
const PRE_EMPHASIS: f64 = 0.97;
const MIN_FREQUENCY_HZ: f64 = 125.0;
const MAX_FREQUENCY_HZ: f64 = 7600.0;
const MEL_FLOOR: f64 = 1e-5;

/// Log-mel frames of one clip, from samples that come in any split.
///
/// With `x` the samples of frame `i`, `x[n] = samples[160 i + n]`, and `w` the periodic Hann window:
///
/// ```text
/// y[0] = 0.03 x[0];  y[n] = x[n] - 0.97 x[n-1]           n = 1..511
/// X[k] = | FFT_1024(w y)[k] |                            k = 0..512
/// frame[m] = ln max(sum_k triangle[m][k] X[k], 1e-5)     m = 0..feature_size
/// ```
///
/// `N` samples, padded with zeros to `P`, a multiple of 128, give `(P - 513) / 160 + 1` frames, and none if `P < 513`.
///
/// Source: `Gemma3nAudioFeatureExtractor`.
pub struct LogMel {
    window: Vec<f64>,
    triangles: Triangles,
    fft: Arc<dyn RealToComplex<f64>>,
    time: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    magnitudes: Vec<f64>,
    fft_scratch: Vec<Complex<f64>>,
    /// Samples from the start of the next frame on.
    pending: Vec<f32>,
    total_samples: usize,
}

impl LogMel {
    /// A clip of which nothing has been heard yet, in frames of `feature_size` mel bands (`input_feat_size`).
    pub fn new(feature_size: usize) -> LogMel {
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(FFT_SAMPLES);
        LogMel {
            window: (0..WINDOW_SAMPLES)
                .map(|n| 0.5 * (1.0 - (2.0 * PI * n as f64 / WINDOW_SAMPLES as f64).cos()))
                .collect(),
            triangles: Triangles::new(feature_size),
            time: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            magnitudes: Vec::new(),
            fft_scratch: fft.make_scratch_vec(),
            fft,
            pending: Vec::new(),
            total_samples: 0,
        }
    }

    /// Mel bands in a frame.
    pub fn feature_size(&self) -> usize {
        self.triangles.bands.len()
    }

    /// Hears `samples` and appends the frames that they complete, `[frames, feature_size]`, to `frames`.
    pub fn push(&mut self, samples: &[f32], frames: &mut Vec<f32>) {
        self.total_samples += samples.len();
        self.pending.extend_from_slice(samples);
        let mut start = 0;
        while self.pending.len() - start >= FRAME_SAMPLES {
            self.append_frame(start, frames);
            start += HOP_SAMPLES;
        }
        self.pending.drain(..start);
    }

    /// Ends the clip and appends the frames that the zero padding completes.
    pub fn finish(mut self, frames: &mut Vec<f32>) {
        let padding =
            self.total_samples.next_multiple_of(PAD_MULTIPLE_SAMPLES) - self.total_samples;
        self.push(&[0.0; PAD_MULTIPLE_SAMPLES][..padding], frames);
    }

    fn append_frame(&mut self, start: usize, frames: &mut Vec<f32>) {
        let samples = &self.pending[start..start + WINDOW_SAMPLES];
        // The first sample has no predecessor in its frame and is scaled as if it were its own.
        let mut previous = f64::from(samples[0]);
        for ((out, &sample), window) in self.time.iter_mut().zip(samples).zip(&self.window) {
            let sample = f64::from(sample);
            *out = (sample - PRE_EMPHASIS * previous) * window;
            previous = sample;
        }
        self.time[WINDOW_SAMPLES..].fill(0.0);
        // The transform fails only on wrong buffer lengths, and these buffers are its own.
        if self
            .fft
            .process_with_scratch(&mut self.time, &mut self.spectrum, &mut self.fft_scratch)
            .is_err()
        {
            unreachable!("the transform refused its own buffers");
        }
        self.magnitudes.clear();
        self.magnitudes
            .extend(self.spectrum.iter().map(|x| x.norm()));
        let energies = self.triangles.energies(&self.magnitudes);
        frames.extend(energies.map(|x| x.max(MEL_FLOOR).ln() as f32));
    }
}

/// The mel filter bank, stored without its zeros.
pub(super) struct Triangles {
    bands: Vec<Band>,
}

struct Band {
    bins: Range<usize>,
    weights: Vec<f64>,
}

impl Triangles {
    /// Triangles between equally spaced points of the HTK mel scale, `mel = 2595 log10(1 + f / 700)`, peak 1.
    pub(super) fn new(feature_size: usize) -> Triangles {
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let (low, high) = (mel(MIN_FREQUENCY_HZ), mel(MAX_FREQUENCY_HZ));
        let edge_hz = |i: usize| {
            let mel = low + (high - low) * i as f64 / (feature_size + 1) as f64;
            700.0 * (10f64.powf(mel / 2595.0) - 1.0)
        };
        let bin_hz = f64::from(SAMPLE_RATE_HZ) / FFT_SAMPLES as f64;
        let bands = (0..feature_size)
            .map(|m| {
                let (left, centre, right) = (edge_hz(m), edge_hz(m + 1), edge_hz(m + 2));
                let bins = (left / bin_hz).ceil() as usize..(right / bin_hz).floor() as usize + 1;
                let weights = bins
                    .clone()
                    .map(|k| {
                        let hz = k as f64 * bin_hz;
                        ((hz - left) / (centre - left))
                            .min((right - hz) / (right - centre))
                            .max(0.0)
                    })
                    .collect();
                Band { bins, weights }
            })
            .collect();
        Triangles { bands }
    }

    /// What each band has of the magnitudes of a transform of [`FFT_SAMPLES`].
    pub(super) fn energies(&self, magnitudes: &[f64]) -> impl Iterator<Item = f64> {
        self.bands.iter().map(|band| band.energy(magnitudes))
    }
}

impl Band {
    fn energy(&self, magnitudes: &[f64]) -> f64 {
        let bins = &magnitudes[self.bins.clone()];
        bins.iter().zip(&self.weights).map(|(x, w)| x * w).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames_of(samples: usize) -> usize {
        let mut frames = Vec::new();
        let mut mel = LogMel::new(128);
        mel.push(&vec![0.0; samples], &mut frames);
        mel.finish(&mut frames);
        frames.len() / 128
    }

    /// The counts are those that the reference's feature extractor gave.
    #[test]
    fn frame_counts_are_the_references() {
        for (samples, frames) in [
            (480_000, 2997),
            (196_800, 1228),
            (51_200, 317),
            (8000, 48),
            (513, 1),
            (512, 0),
            (0, 0),
        ] {
            assert_eq!(frames_of(samples), frames, "{samples} samples");
        }
    }

    /// Digital silence is the floor's logarithm, -11.512925, in every band.
    #[test]
    fn silence_is_the_floor() {
        let mut frames = Vec::new();
        let mut mel = LogMel::new(128);
        mel.push(&[0.0; 1000], &mut frames);
        mel.finish(&mut frames);
        assert!(!frames.is_empty());
        assert!(frames.iter().all(|&x| (x + 11.512925).abs() < 1e-6));
    }
}
