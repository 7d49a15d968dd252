//! Log-mel frames, as the model was trained to hear them.
//!
//! A frame is some samples of 16 kHz audio ([`LogMelSpec`]). It is pre-emphasised, windowed, zero-padded, Fourier transformed,
//! and its magnitudes are gathered into triangular mel bands, of which the natural logarithm is taken. The arithmetic is f64: a loud
//! frame's rounding in f32 would show in its quiet bands, and a hundred transforms a second cost nothing next to the encoder.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::media::{LogMelSpec, MelFloor, SAMPLE_RATE_HZ};

/// Log-mel frames of one clip, from samples that come in any split.
///
/// With `x` the samples of frame `i`, `x[n] = samples[hop i + n - lead]` where `lead` zeros stand in front of the clip, `p` the
/// pre-emphasis, and `w` the periodic Hann window:
///
/// ```text
/// y[0] = (1 - p) x[0];  y[n] = x[n] - p x[n-1]             n = 1..window - 1
/// X[k] = | FFT(w y)[k] |                                   k = 0..fft / 2
/// frame[m] = ln max(sum_k triangle[m][k] X[k], floor)      m = 0..bands - 1
/// ```
///
/// or `ln (sum_k … + floor)`, as the [`MelFloor`] says. `N` samples, with `lead` zeros in front and padded with zeros to `P` in all,
/// give `(P - window - 1) / hop + 1` frames, and none if `P <= window`.
///
/// Source: `Gemma3nAudioFeatureExtractor`, `Gemma4AudioFeatureExtractor`.
#[derive(Clone)]
pub struct LogMel {
    spec: LogMelSpec,
    window: Vec<f64>,
    triangles: Triangles,
    fft: Arc<dyn RealToComplex<f64>>,
    time: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    magnitudes: Vec<f64>,
    fft_scratch: Vec<Complex<f64>>,
    /// Samples from the start of the next frame on.
    pending: Vec<f32>,
    /// Of the clip; the zeros in front of it are not counted.
    total_samples: usize,
}

impl LogMel {
    /// A clip of which nothing has been heard yet.
    pub fn new(spec: LogMelSpec) -> LogMel {
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(spec.fft_samples);
        let turn = |n: usize| 2.0 * PI * n as f64 / spec.window_samples as f64;
        LogMel {
            spec,
            window: (0..spec.window_samples)
                .map(|n| 0.5 * (1.0 - turn(n).cos()))
                .collect(),
            triangles: Triangles::new(
                spec.bands,
                spec.fft_samples,
                spec.min_frequency_hz,
                spec.max_frequency_hz,
            ),
            time: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            magnitudes: Vec::new(),
            fft_scratch: fft.make_scratch_vec(),
            fft,
            pending: vec![0.0; spec.lead_samples],
            total_samples: 0,
        }
    }

    /// Hears `samples` and appends the frames that they complete, `[frames, feature_size]`, to `frames`.
    pub fn push(&mut self, samples: &[f32], frames: &mut Vec<f32>) {
        self.total_samples += samples.len();
        self.pending.extend_from_slice(samples);
        let mut start = 0;
        while self.pending.len() - start >= self.spec.frame_samples() {
            self.append_frame(start, frames);
            start += self.spec.hop_samples;
        }
        self.pending.drain(..start);
    }

    /// Ends the clip and appends the frames that the zero padding completes.
    pub fn finish(mut self, frames: &mut Vec<f32>) {
        let padded = self
            .total_samples
            .next_multiple_of(self.spec.pad_multiple_samples);
        self.push(&vec![0.0; padded - self.total_samples], frames);
    }

    fn append_frame(&mut self, start: usize, frames: &mut Vec<f32>) {
        let samples = &self.pending[start..start + self.spec.window_samples];
        // The first sample has no predecessor in its frame and is scaled as if it were its own.
        let mut previous = f64::from(samples[0]);
        for ((out, &sample), window) in self.time.iter_mut().zip(samples).zip(&self.window) {
            let sample = f64::from(sample);
            *out = (sample - self.spec.pre_emphasis * previous) * window;
            previous = sample;
        }
        self.time[self.spec.window_samples..].fill(0.0);
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
        let floored = |energy: f64| match self.spec.floor {
            MelFloor::Least(floor) => energy.max(floor),
            MelFloor::Added(floor) => energy + floor,
        };
        frames.extend(energies.map(|energy| floored(energy).ln() as f32));
    }
}

/// The mel filter bank, stored without its zeros.
#[derive(Clone)]
pub(super) struct Triangles {
    bands: Vec<Band>,
}

#[derive(Clone)]
struct Band {
    bins: Range<usize>,
    weights: Vec<f64>,
}

impl Triangles {
    /// Triangles between equally spaced points of the HTK mel scale, `mel = 2595 log10(1 + f / 700)`, peak 1.
    pub(super) fn new(bands: usize, fft_samples: usize, min_hz: f64, max_hz: f64) -> Triangles {
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let (low, high) = (mel(min_hz), mel(max_hz));
        let edge_hz = |i: usize| {
            let mel = low + (high - low) * i as f64 / (bands + 1) as f64;
            700.0 * (10f64.powf(mel / 2595.0) - 1.0)
        };
        let bin_hz = f64::from(SAMPLE_RATE_HZ) / fft_samples as f64;
        let bands = (0..bands)
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

    /// What each band has of the magnitudes of a transform.
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

    /// As Gemma 3n was trained.
    const GEMMA_3N: LogMelSpec = LogMelSpec {
        bands: 128,
        window_samples: 512,
        hop_samples: 160,
        lead_samples: 0,
        fft_samples: 1024,
        pad_multiple_samples: 128,
        pre_emphasis: 0.97,
        min_frequency_hz: 125.0,
        max_frequency_hz: 7600.0,
        floor: MelFloor::Least(1e-5),
    };

    /// As Gemma 4 was.
    const GEMMA_4: LogMelSpec = LogMelSpec {
        bands: 128,
        window_samples: 320,
        hop_samples: 160,
        lead_samples: 160,
        fft_samples: 512,
        pad_multiple_samples: 1,
        pre_emphasis: 0.0,
        min_frequency_hz: 0.0,
        max_frequency_hz: 8000.0,
        floor: MelFloor::Added(1e-3),
    };

    fn frames_of(spec: LogMelSpec, samples: &[f32]) -> Vec<f32> {
        let mut frames = Vec::new();
        let mut mel = LogMel::new(spec);
        mel.push(samples, &mut frames);
        mel.finish(&mut frames);
        frames
    }

    /// The counts are those that the reference's feature extractors gave; of Gemma 4's, those of the frames that are valid.
    #[test]
    fn frame_counts_are_the_references() {
        let gemma_3n = [
            (480_000, 2997),
            (196_800, 1228),
            (51_200, 317),
            (8000, 48),
            (513, 1),
            (512, 0),
            (0, 0),
        ];
        let gemma_4 = [
            (480_000, 2999),
            (196_800, 1229),
            (51_200, 319),
            (8000, 49),
            (1000, 6),
            (641, 4),
            (640, 3),
            (321, 2),
            (161, 1),
            (160, 0),
            (0, 0),
        ];
        for (spec, counts) in [(GEMMA_3N, &gemma_3n[..]), (GEMMA_4, &gemma_4[..])] {
            for &(samples, frames) in counts {
                let got = frames_of(spec, &vec![0.0; samples]).len() / spec.bands;
                assert_eq!(got, frames, "{samples} samples");
                assert_eq!(frames > 0, samples >= spec.least_samples());
            }
        }
    }

    /// Digital silence is the floor's logarithm, -11.512925 and -6.9077554, in every band.
    #[test]
    fn silence_is_the_floor() {
        for (spec, floor) in [(GEMMA_3N, -11.512925), (GEMMA_4, -6.907_755_4)] {
            let frames = frames_of(spec, &[0.0; 1000]);
            assert!(!frames.is_empty());
            assert!(frames.iter().all(|&x| (x - floor).abs() < 1e-6));
        }
    }

    /// No split of the samples changes a bit; the first band of Gemma 4's, which holds no bin, is silent in any sound.
    #[test]
    fn samples_come_in_any_split() {
        let sound: Vec<f32> = (0..5000u32)
            .map(|n| ((n * n % 613) as f32 / 306.0 - 1.0) * 0.5)
            .collect();
        for spec in [GEMMA_3N, GEMMA_4] {
            let whole = frames_of(spec, &sound);
            for size in [1, 37, 160, 161, 1999] {
                let (mut mel, mut frames) = (LogMel::new(spec), Vec::new());
                for piece in sound.chunks(size) {
                    mel.push(piece, &mut frames);
                }
                mel.finish(&mut frames);
                assert_eq!(frames, whole, "{size} samples at a time");
            }
            if spec == GEMMA_4 {
                let mut first = whole.iter().step_by(spec.bands);
                assert!(first.all(|&x| (x + 6.907_755_4).abs() < 1e-6));
            }
        }
    }
}
