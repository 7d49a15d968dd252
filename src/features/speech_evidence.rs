//! How much a frame speaks for speech, beyond what the detector says of it: a telephone, a piano or a vacuum cleaner that starts is
//! speech to the detector, and a look at its spectrum over a tenth of a second tells that it is none.
//!
//! Counted by `tests/capture/speech/tones.rs`, which makes the sounds: utterances that twelve sounds of a home begin in a minute each (a
//! telephone, a doorbell, a piano, a vacuum cleaner, …), the same 14 dB quieter, and thirteen more; and of 20 clips in 12 noises, 40
//! to 0 dB below them, how many are found. A way is so many likely frames of so many in a row that have what it asks for.
//!
//! | way | twelve | quieter | more | speech found |
//! | --- | --- | --- | --- | --- |
//! | none, as it was: 4 of 6 | 54 | 33 | 176 | 236 of 240 |
//! | the detector's score is 0.8: 6 of 16 | 32 | 32 | 121 | 222 |
//! | bands change by 2.8 dB in 80 ms: 10 of 16 | 15 | 16 | 48 | 200 |
//! | no note, lines alike to 0.96 at most in 192 ms: 10 of 16 | 4 | 1 | 58 | 208 |
//! | the 16 strongest bins hold 0.8 at most: 10 of 16 | 4 | 17 | 114 | 207 |
//! | all of these: 8 of 16 | 0 | 0 | 0 | 205 |
//! | their weighted sum, believed more the fainter it is, which stands here | 0 | 0 | 1 | 236: none lost |
//!
//! The weights were found on half of the clips in noise of other seeds, on clips of other synthetic voices, on the twelve and on half of
//! the other sounds; the table counts all of them. What is 23 dB quieter than the twelve is hardly told from speech: a faint piano is
//! believed, as faint speech has to be.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::log_mel::Triangles;

/// Samples that are judged together: 16 ms.
pub const FRAME_SAMPLES: usize = 256;

/// Bands that the change of the spectrum is looked for in.
const BANDS: usize = 24;
/// Frames back to the spectrum that the bands are compared with, and to the one that the lines are.
const BANDS_LAG: usize = 5;
const LINES_LAG: usize = 6;
/// Frames in which the lines are looked at together: as many as the step from one note to the next shows in.
const STEADY_FRAMES: usize = 12;
/// Samples of a transform.
const FFT_SAMPLES: usize = 1024;
/// Where the lowest band begins and the highest ends.
const MIN_HZ: f64 = 125.0;
const MAX_HZ: f64 = 7600.0;
/// Frames that a look at one frame needs, and samples that they reach back.
const LOOK_FRAMES: usize = STEADY_FRAMES + LINES_LAG;
const REACH: usize = FFT_SAMPLES + (LOOK_FRAMES - 1) * FRAME_SAMPLES;
/// Bins (15.6 Hz each) whose lines are compared: 94 to 4000 Hz, where voices have most of their harmonics.
const LINES: Range<usize> = 6..256;
/// Bins that the energy is looked for in: 156 to 6250 Hz, and how many of them hold that of four sinusoids.
const ENERGY: Range<usize> = 10..400;
const STRONGEST: usize = 16;
/// Speech is raised by that much towards high frequencies before its energy is looked at, as everywhere.
const PRE_EMPHASIS: f64 = 0.97;
/// Magnitude that no band falls below; a sinusoid at full scale has 256.
const FLOOR: f64 = 1e-3;

/// What a frame says for speech beside a clear one's 2: by the detector's log-odds, by the change of the bands (dB, beyond 1 and up to
/// 3), against it by the likeness of the lines beyond 0.9 and by the share of the strongest bins beyond 0.4. Found by trying, see above.
const BIAS: f64 = -0.97;
const LOG_ODDS: f64 = 1.25;
const CHANGE: f64 = 1.8;
const LIKENESS: f64 = 100.0;
const STRONGEST_SHARE: f64 = 6.0;
/// What is little louder than the noise is hidden by it, tones and speech alike, and is believed to be what the detector takes it for:
/// so much more for each dB below these. A telephone, a bell and an instrument stand out; speech need not.
const HIDDEN: f64 = 0.3;
const HIDDEN_DB: f64 = 18.0;
/// No frame alone decides, and one that speaks against speech counts for less.
const MOST: f64 = 2.0;
const LEAST: f64 = -1.5;

/// What was measured of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Probability of speech, as the detector says.
    pub score: f32,
    /// How much louder than the lasting noise what goes on has been at most, dB.
    pub above_db: f64,
    /// How much the bands have changed in 80 ms, however loud it is: dB. Noise changes by 2, whatever its color; speech by 3 and
    /// more.
    pub change: f64,
    /// How alike the lines were to those 96 ms before, 0 to 1, where in the last 192 ms they were most. A note stays where it is, and
    /// that another follows makes it no voice; the pitch of a voice never stays.
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
    magnitudes: Vec<f64>,
    scratch: Vec<Complex<f64>>,
    /// What was heard last, as far back as one look reaches, and how many frames of it were not looked at yet.
    samples: VecDeque<f32>,
    unseen: usize,
    /// The newest at the back: bands in dB, and square roots of the lines' magnitudes.
    bands: VecDeque<Vec<f64>>,
    lines: VecDeque<Vec<f64>>,
    /// How alike the lines of the last frames were to those before.
    alike: [f64; STEADY_FRAMES],
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
            triangles: Triangles::new(BANDS, FFT_SAMPLES, MIN_HZ, MAX_HZ),
            time: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            magnitudes: Vec::new(),
            scratch: fft.make_scratch_vec(),
            fft,
            samples: vec![0.0; REACH].into(),
            unseen: 0,
            bands: VecDeque::new(),
            lines: VecDeque::new(),
            alike: [0.0; STEADY_FRAMES],
            strongest: Vec::new(),
        }
    }

    /// The stream breaks off.
    pub(super) fn reset(&mut self) {
        self.samples.clear();
        self.samples.resize(REACH, 0.0);
        self.unseen = 0;
        self.look_afresh();
    }

    /// Hears the next frame.
    pub(super) fn hear(&mut self, frame: &[f32; FRAME_SAMPLES]) {
        self.samples.drain(..FRAME_SAMPLES);
        self.samples.extend(frame);
        self.unseen += 1;
    }

    /// Looks at the frame that was heard last, of which the detector says `score`. Most frames of a day are no speech to the detector,
    /// and nobody looks at them unless they are just before one that is.
    pub(super) fn look(&mut self, score: f32, above_db: f64) -> Measures {
        if self.unseen > LOOK_FRAMES {
            self.look_afresh();
        }
        let mut measures = Measures {
            score,
            above_db,
            ..Measures::default()
        };
        for frame in (0..self.unseen.min(LOOK_FRAMES)).rev() {
            self.transform(REACH - frame * FRAME_SAMPLES);
            measures.change = self.change();
            measures.likeness = self.likeness();
        }
        measures.strongest_share = self.strongest_share();
        self.unseen = 0;
        measures
    }

    /// Forgets what was seen.
    fn look_afresh(&mut self) {
        self.bands.clear();
        self.lines.clear();
        self.alike = [0.0; STEADY_FRAMES];
    }

    /// Transforms the samples before `end`.
    fn transform(&mut self, end: usize) {
        let samples = self.samples.range(end - FFT_SAMPLES..end);
        for ((out, &x), window) in self.time.iter_mut().zip(samples).zip(&self.window) {
            *out = f64::from(x) * window;
        }
        // The transform fails only on wrong buffer lengths, and these buffers are its own.
        let transformed =
            self.fft
                .process_with_scratch(&mut self.time, &mut self.spectrum, &mut self.scratch);
        if transformed.is_err() {
            unreachable!("the transform refused its own buffers");
        }
        self.magnitudes.clear();
        self.magnitudes
            .extend(self.spectrum.iter().map(|x| x.norm()));
    }

    /// How much a frame speaks for speech, [`LEAST`] to [`MOST`].
    pub(super) fn of(&self, measures: &Measures) -> f64 {
        let evidence = BIAS
            + LOG_ODDS * (log_odds(measures.score) - self.threshold)
            + CHANGE * (measures.change - 1.0).clamp(0.0, 2.0)
            - LIKENESS * (measures.likeness - 0.9).max(0.0)
            - STRONGEST_SHARE * (measures.strongest_share - 0.4).max(0.0)
            + HIDDEN * (HIDDEN_DB - measures.above_db).max(0.0);
        evidence.clamp(LEAST, MOST)
    }

    fn change(&mut self) -> f64 {
        let energies = self.triangles.energies(&self.magnitudes);
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
        let lines = self.magnitudes[LINES].iter().map(|x| x.sqrt());
        let before = remember(&mut self.lines, lines.collect(), LINES_LAG);
        let alike = match (self.lines.back(), before) {
            (Some(now), Some(before)) => {
                let product =
                    |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let size = (product(now, now) * product(&before, &before)).sqrt();
                product(now, &before) / size.max(f64::MIN_POSITIVE)
            }
            _ => 0.0,
        };
        self.alike.rotate_left(1);
        self.alike[STEADY_FRAMES - 1] = alike;
        self.alike.iter().copied().fold(0.0, f64::max)
    }

    fn strongest_share(&mut self) -> f64 {
        self.strongest.clear();
        let energies = self.magnitudes[ENERGY].iter().zip(&self.emphasis);
        self.strongest.extend(energies.map(|(x, e)| x * x * e));
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
