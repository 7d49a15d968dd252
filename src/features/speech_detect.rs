//! Which frames of 16 kHz sound are likely speech. Every door asks this one detector: microphones frame by frame, to cut a stream
//! into utterances, and what comes whole or over the network through [`SpeechCheck`](super::speech_check::SpeechCheck).

use earshot::Detector;

use super::speech_evidence::{Evidence, Measures};
use crate::media::SAMPLE_RATE_HZ;

pub use super::speech_evidence::FRAME_SAMPLES;

/// Speech may begin once so many of so many frames in a row are likely: a click is shorter, the shortest word is not.
const ONSET_FRAMES: u32 = 4;
const ONSET_WINDOW: usize = 6;

/// Frames that are no speech after which what comes next is something else: 700 ms.
const APART_FRAMES: u32 = 44;

/// Sum of the evidence of likely frames from which it is speech: two clear frames. Whatever is heard is held against speech up to so
/// much, so that whoever speaks while a telephone rings is heard after half a dozen frames.
const ENOUGH: f64 = 4.0;
const LEAST: f64 = -6.0;

/// Frames at most that an utterance gets of what was heard while the evidence was still not enough: 3 s. Whoever speaks faintly is
/// in doubt for a second.
const LONGEST_DOUBT: usize = 188;

/// Where the detector's memory is empty, steady noise looks like speech to it for up to 25 frames.
pub(super) const SETTLING_FRAMES: u32 = 30;

/// Wind, traffic and a table that is touched are louder than speech below this, in Hz, and speech has nothing to lose there.
const RUMBLE_HZ: f64 = 120.0;

/// Judges a stream, frame after frame.
pub struct SpeechDetector {
    detector: Box<Detector>,
    rumble: HighPass,
    level: Level,
    /// How far what goes on has stood out of the noise, dB.
    loudest_db: f64,
    evidence: Evidence,
    measures: Measures,
    threshold: f32,
    /// Frames until the detector, which starts with silence in its memory, can be believed.
    settling: u32,
    /// The last frames, the newest at the back: what each adds to the evidence where it is likely speech.
    recent: [Option<f64>; ONSET_WINDOW],
    sound: Option<Sound>,
}

/// What may be speech.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sound {
    /// Frames until it was known to be speech, or until now; the onset included.
    frames: usize,
    /// Frames that are likely speech, and those since the last of them.
    voiced: u32,
    silence: u32,
    evidence: f64,
    is_speech: bool,
}

/// What is known of the speech that is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaking {
    /// Frames from its onset until it was known to be speech.
    pub onset_frames: usize,
    /// Frames that are likely speech so far.
    pub voiced_frames: u32,
}

impl SpeechDetector {
    /// A detector at the start of a stream; `threshold` is the probability from which a frame is likely speech, 0 to 1.
    pub fn new(threshold: f32) -> SpeechDetector {
        SpeechDetector {
            detector: Detector::default_boxed(),
            rumble: HighPass::new(RUMBLE_HZ, f64::from(SAMPLE_RATE_HZ)),
            level: Level::default(),
            loudest_db: 0.0,
            evidence: Evidence::new(threshold),
            measures: Measures::default(),
            threshold,
            settling: SETTLING_FRAMES,
            recent: [None; ONSET_WINDOW],
            sound: None,
        }
    }

    /// The stream breaks off; what comes next is another.
    pub fn reset(&mut self) {
        self.detector.reset();
        self.rumble.reset();
        self.level = Level::default();
        self.evidence.reset();
        self.settling = SETTLING_FRAMES;
        self.forget();
    }

    /// Hears `before` as what was there before the stream begins, so that its first frame is judged as any other. How loud it is does
    /// not count: the stream begins with what is usual in it.
    fn settle(&mut self, before: &[f32]) {
        self.reset();
        for frame in before.chunks_exact(FRAME_SAMPLES) {
            self.is_likely(frame);
        }
        // Sound that goes backwards is alike to itself where it turns.
        self.evidence.reset();
        self.level = Level::default();
        self.settling = 0;
        self.forget();
    }

    /// Settles on the beginning of a sound itself, backwards: noise is then as noisy before it as it is after.
    pub(super) fn settle_on(&mut self, beginning: &[f32]) {
        const SETTLING_SAMPLES: usize = SETTLING_FRAMES as usize * FRAME_SAMPLES;
        let mut backwards: Vec<f32> = beginning.iter().rev().copied().collect();
        // To and fro, where there is less of it than it takes.
        while !backwards.is_empty() && backwards.len() < SETTLING_SAMPLES {
            backwards.extend_from_within(..);
        }
        let from = backwards.len().saturating_sub(SETTLING_SAMPLES);
        self.settle(&backwards[from..]);
    }

    /// Whether the next [`FRAME_SAMPLES`] are likely speech. What lies beyond them is not looked at, what is missing is silence.
    pub fn is_likely(&mut self, frame: &[f32]) -> bool {
        let mut heard = [0.0; FRAME_SAMPLES];
        for (heard, &x) in heard.iter_mut().zip(frame) {
            // The detector wants numbers within full scale; filters may overshoot it.
            *heard = self.rumble.pass(x).clamp(-1.0, 1.0);
        }
        let score = self.detector.predict_f32(&heard);
        let above_db = self.level.above_db(&heard);
        // What begins is as loud as it is; whatever follows is measured by its loudest moment, until it is over.
        if self.sound.is_none() && self.recent.iter().all(Option::is_none) {
            self.loudest_db = 0.0;
        }
        self.loudest_db = self.loudest_db.max(above_db);
        self.evidence.hear(&heard);
        self.settling = self.settling.saturating_sub(1);
        let likely = self.settling == 0 && above_db > Level::SPEECH_DB && score >= self.threshold;
        if likely {
            self.measures = self.evidence.look(score, self.loudest_db);
        }
        self.follow(likely.then(|| self.evidence.of(&self.measures)));
        likely
    }

    /// What was measured of the last frame that was likely speech.
    pub fn measures(&self) -> Measures {
        self.measures
    }

    /// The speech that is going on. A frame that is likely speech is not enough, nor are several: what they are together decides.
    pub fn speaking(&self) -> Option<Speaking> {
        let sound = self.sound.filter(|sound| sound.is_speech)?;
        Some(Speaking {
            onset_frames: sound.frames,
            voiced_frames: sound.voiced,
        })
    }

    /// Frames that belong to what is going on, should it prove to be speech.
    pub fn doubtful_frames(&self) -> usize {
        self.sound.map_or(ONSET_WINDOW, |sound| sound.frames)
    }

    /// What was said is over, or does not count: what comes next is judged by itself.
    pub fn forget(&mut self) {
        self.recent = [None; ONSET_WINDOW];
        self.sound = None;
    }

    /// Takes the next frame: its evidence where it is likely speech.
    fn follow(&mut self, likely: Option<f64>) {
        self.recent.rotate_left(1);
        self.recent[ONSET_WINDOW - 1] = likely;
        match &mut self.sound {
            Some(sound) => match likely {
                Some(evidence) => {
                    sound.voiced += 1;
                    sound.silence = 0;
                    sound.evidence = (sound.evidence + evidence).max(LEAST);
                }
                None => sound.silence += 1,
            },
            None => {
                let voiced = self.recent.iter().flatten().count() as u32;
                if voiced >= ONSET_FRAMES {
                    let evidence: f64 = self.recent.iter().flatten().sum();
                    self.sound = Some(Sound {
                        frames: ONSET_WINDOW - 1,
                        voiced,
                        silence: 0,
                        evidence: evidence.max(0.0),
                        is_speech: false,
                    });
                }
            }
        }
        let Some(sound) = &mut self.sound else {
            return;
        };
        if !sound.is_speech {
            sound.frames = (sound.frames + 1).min(LONGEST_DOUBT);
            sound.is_speech = sound.evidence >= ENOUGH;
        }
        if sound.silence >= APART_FRAMES {
            self.forget();
        }
    }
}

/// How much louder than the lasting noise it is.
///
/// Steady noise whose spectrum falls like that of speech (a loud fan, wind, water) is speech to the detector from some level
/// on, whatever its threshold: of brown noise at -15 dB full scale it takes nine frames in ten. What does not stand out from
/// what was there before is no speech.
#[derive(Default)]
struct Level {
    /// Mean square, smoothed over some frames; of the noise, it follows the quietest moments.
    smoothed: Option<f32>,
    floor: f32,
}

impl Level {
    /// Share of a frame in the smoothed energy.
    const SMOOTHING: f32 = 0.25;
    /// Share by which the floor falls towards a quieter moment.
    const FALL: f32 = 0.1;
    /// How the floor rises in one frame otherwise: 3 dB a second. A fan that is switched on is forgotten in some seconds; the
    /// gaps between words bring the floor back while somebody speaks.
    const RISE: f32 = 1.011_1;
    /// Energy over the floor that speech has.
    const SPEECH_DB: f64 = 5.0;
    /// Lowest floor, -70 dB full scale: no room is quieter, and the ratio stays a number in digital silence.
    const SILENCE: f32 = 1e-7;

    /// By how much the next frame, smoothed, is louder.
    fn above_db(&mut self, frame: &[f32]) -> f64 {
        let energy = frame.iter().map(|x| x * x).sum::<f32>() / frame.len() as f32;
        let Some(smoothed) = &mut self.smoothed else {
            self.smoothed = Some(energy);
            self.floor = energy.max(Level::SILENCE);
            return 0.0;
        };
        *smoothed += Level::SMOOTHING * (energy - *smoothed);
        if *smoothed < self.floor {
            self.floor += Level::FALL * (*smoothed - self.floor);
        } else {
            self.floor *= Level::RISE;
        }
        self.floor = self.floor.max(Level::SILENCE);
        10.0 * f64::from(smoothed.max(f32::MIN_POSITIVE) / self.floor).log10()
    }
}

/// A Butterworth high-pass of second order, in the transposed direct form II.
struct HighPass {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
}

impl HighPass {
    /// Source: R. Bristow-Johnson, "Audio EQ Cookbook", high-pass with Q = 1 / sqrt(2).
    fn new(cutoff_hz: f64, rate_hz: f64) -> HighPass {
        let w = std::f64::consts::TAU * cutoff_hz / rate_hz;
        let alpha = w.sin() / std::f64::consts::SQRT_2;
        let a0 = 1.0 + alpha;
        let b = (1.0 + w.cos()) / 2.0 / a0;
        HighPass {
            b: [b, -2.0 * b, b],
            a: [-2.0 * w.cos() / a0, (1.0 - alpha) / a0],
            state: [0.0; 2],
        }
    }

    fn pass(&mut self, x: f32) -> f32 {
        let x = f64::from(x);
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y as f32
    }

    fn reset(&mut self) {
        self.state = [0.0; 2];
    }
}
