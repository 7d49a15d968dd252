//! How much a frame speaks for speech, beyond what the detector says of it: a telephone, a piano or a vacuum cleaner that starts is
//! speech to the detector, and a look at its spectrum over a tenth of a second tells that it is none.
//!
//! Counted by `tests/speech/tones.rs`, which makes the sounds: utterances that twelve sounds of a home begin in a minute each (a
//! telephone, a doorbell, a piano, a vacuum cleaner, …), the same 14 dB quieter, and thirteen more; and of 20 clips in 12 noises, 40
//! to 0 dB below them, how many are found. A way is so many likely frames of so many in a row that have what it asks for.
//!
//! | way | twelve | quieter | more | speech found |
//! | --- | --- | --- | --- | --- |
//! | none, as it was: 4 of 6 | 54 | 33 | 176 | 234 of 240 |
//! | the detector's score is 0.8: 6 of 16 | 32 | 32 | 121 | 222 |
//! | bands change by 2.8 dB in 80 ms: 10 of 16 | 15 | 16 | 48 | 203 |
//! | lines are alike to 0.9 at most after 96 ms: 10 of 16 | 13 | 16 | 48 | 199 |
//! | the 16 strongest bins hold 0.8 at most: 10 of 16 | 4 | 17 | 114 | 205 |
//! | all of these: 8 of 16 | 0 | 0 | 0 | 205 |
//! | their weighted sum, which is what stands here | 0 | 0 | 42 | 230; the 4 lost are among the 40 at 0 dB |
//!
//! The 42 are a trumpet (16 of 16), a guitar (14 of 16), the hum of a transformer (9 of 10), a chord and a dial tone (3 of 32): they
//! have the harmonics of a voice, and what would tell them apart loses speech in noise.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::log_mel::{FFT_SAMPLES, Triangles};
use super::speech_detect::FRAME_SAMPLES;

/// Bands that the change of the spectrum is looked for in.
const BANDS: usize = 24;
/// Frames back to the spectrum that the bands are compared with, and to the one that the lines are.
const BANDS_LAG: usize = 5;
const LINES_LAG: usize = 6;
/// Bins (15.6 Hz each) whose lines are compared: 94 to 4000 Hz, where voices have most of their harmonics.
const LINES: Range<usize> = 6..256;
/// Bins that the energy is looked for in: 156 to 6250 Hz, and how many of them hold that of four sinusoids.
const ENERGY: Range<usize> = 10..400;
const STRONGEST: usize = 16;
/// Speech is raised by that much towards high frequencies before its energy is looked at, as everywhere.
const PRE_EMPHASIS: f64 = 0.97;
/// Magnitude that no band falls below; a sinusoid at full scale has 256.
const FLOOR: f64 = 1e-3;

/// The weights, by logistic regression on frames of speech of 12 conditions against frames of tones and noises: of the detector's
/// log-odds, the change of the bands (dB), the likeness of the lines and the share of the strongest bins.
const LOG_ODDS: f64 = 2.0;
const CHANGE: f64 = 0.75;
const LIKENESS: f64 = -8.0;
const STRONGEST_SHARE: f64 = -9.5;
const BIAS: f64 = 5.9;
/// No frame alone decides.
const MOST: f64 = 2.0;

/// What was measured of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Probability of speech, as the detector says.
    pub score: f32,
    /// How much the bands have changed in 80 ms, however loud it is: dB. Noise changes by 2, whatever its color; speech by 3 and
    /// more.
    pub change: f64,
    /// How alike the lines are to those 96 ms before, 0 to 1. A note stays where it is; the pitch of a voice never does.
    pub likeness: f64,
    /// Share of the 16 strongest bins in the energy, 0 to 1: a whistle, a bell and a telephone have little but their tones.
    pub strongest_share: f64,
}

/// Looks at a stream frame by frame.
pub(super) struct Evidence {
    /// The detector's log-odds at the threshold that somebody chose.
    threshold: f64,
    window: Vec<f64>,
    /// Gain of the pre-emphasis in each bin, as energy.
    emphasis: Vec<f64>,
    triangles: Triangles,
    fft: Arc<dyn RealToComplex<f64>>,
    time: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    /// The last [`FFT_SAMPLES`].
    samples: VecDeque<f32>,
    /// The newest at the back: bands in dB, and square roots of the lines' magnitudes.
    bands: VecDeque<Vec<f64>>,
    lines: VecDeque<Vec<f64>>,
    strongest: Vec<f64>,
}

impl Evidence {
    pub(super) fn new(threshold: f32) -> Evidence {
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(FFT_SAMPLES);
        let turn = |n: usize| 2.0 * PI * n as f64 / FFT_SAMPLES as f64;
        Evidence {
            threshold: log_odds(threshold),
            window: (0..FFT_SAMPLES)
                .map(|n| 0.5 * (1.0 - turn(n).cos()))
                .collect(),
            emphasis: ENERGY
                .map(|k| 1.0 + PRE_EMPHASIS * (PRE_EMPHASIS - 2.0 * turn(k).cos()))
                .collect(),
            triangles: Triangles::new(BANDS),
            time: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            samples: vec![0.0; FFT_SAMPLES].into(),
            bands: VecDeque::new(),
            lines: VecDeque::new(),
            strongest: Vec::new(),
        }
    }

    /// The stream breaks off.
    pub(super) fn reset(&mut self) {
        self.samples.clear();
        self.samples.resize(FFT_SAMPLES, 0.0);
        self.bands.clear();
        self.lines.clear();
    }

    /// Looks at the next frame, of which the detector says `score`.
    pub(super) fn look(&mut self, frame: &[f32; FRAME_SAMPLES], score: f32) -> Measures {
        self.samples.drain(..FRAME_SAMPLES);
        self.samples.extend(frame);
        for ((out, &x), window) in self.time.iter_mut().zip(&self.samples).zip(&self.window) {
            *out = f64::from(x) * window;
        }
        // The transform fails only on wrong buffer lengths, and these buffers are its own.
        let transformed =
            self.fft
                .process_with_scratch(&mut self.time, &mut self.spectrum, &mut self.scratch);
        if transformed.is_err() {
            unreachable!("the transform refused its own buffers");
        }
        Measures {
            score,
            change: self.change(),
            likeness: self.likeness(),
            strongest_share: self.strongest_share(),
        }
    }

    /// How much a frame speaks for speech: about its log-odds, -2 to 2.
    pub(super) fn of(&self, measures: &Measures) -> f64 {
        let evidence = LOG_ODDS * (log_odds(measures.score) - self.threshold)
            + CHANGE * measures.change.clamp(1.0, 5.0)
            + LIKENESS * measures.likeness.clamp(0.7, 1.0)
            + STRONGEST_SHARE * measures.strongest_share.clamp(0.4, 1.0)
            + BIAS;
        evidence.clamp(-MOST, MOST)
    }

    fn change(&mut self) -> f64 {
        let energies = self.triangles.energies(&self.spectrum);
        let bands: Vec<f64> = energies.map(|x| 20.0 * (x + FLOOR).log10()).collect();
        let before = remember(&mut self.bands, bands, BANDS_LAG);
        let (Some(now), Some(before)) = (self.bands.back(), before) else {
            return 0.0;
        };
        let mean = |x: &mut dyn Iterator<Item = f64>| x.sum::<f64>() / BANDS as f64;
        let apart = || now.iter().zip(&before).map(|(now, before)| now - before);
        let louder = mean(&mut apart());
        mean(&mut apart().map(|x| (x - louder).powi(2))).sqrt()
    }

    fn likeness(&mut self) -> f64 {
        let lines = self.spectrum[LINES].iter().map(|x| x.norm().sqrt());
        let before = remember(&mut self.lines, lines.collect(), LINES_LAG);
        let (Some(now), Some(before)) = (self.lines.back(), before) else {
            return 0.0;
        };
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let size = (product(now, now) * product(&before, &before)).sqrt();
        product(now, &before) / size.max(f64::MIN_POSITIVE)
    }

    fn strongest_share(&mut self) -> f64 {
        self.strongest.clear();
        let energies = self.spectrum[ENERGY].iter().zip(&self.emphasis);
        self.strongest
            .extend(energies.map(|(x, e)| x.norm_sqr() * e));
        let whole: f64 = self.strongest.iter().sum();
        let (strongest, ..) = self
            .strongest
            .select_nth_unstable_by(STRONGEST, |a, b| b.total_cmp(a));
        strongest.iter().sum::<f64>() / whole.max(f64::MIN_POSITIVE)
    }
}

/// Adds the newest and gives what lies `lag` frames before it, where there is such a frame.
fn remember(past: &mut VecDeque<Vec<f64>>, newest: Vec<f64>, lag: usize) -> Option<Vec<f64>> {
    past.push_back(newest);
    (past.len() > lag).then(|| past.pop_front()).flatten()
}

fn log_odds(probability: f32) -> f64 {
    let p = f64::from(probability).clamp(0.02, 0.98);
    (p / (1.0 - p)).ln()
}
