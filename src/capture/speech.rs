//! Where speech begins and ends in a stream of 16 kHz samples. No device and no clock: time is counted in samples.

use std::collections::VecDeque;

use earshot::Detector;

use crate::config::SpeechDetection;
use crate::features::log_mel::SAMPLE_RATE_HZ;

/// Samples that the detector looks at together: 16 ms.
const FRAME_SAMPLES: usize = 256;

/// What is found.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeechEvent {
    /// An utterance begins; its samples follow.
    Started,
    /// Samples of the utterance, those from before its onset first.
    Samples(Vec<f32>),
    /// The utterance is over.
    Ended {
        /// It reached the longest length; what follows is a new one.
        truncated: bool,
    },
    /// It was too short to be speech.
    Cancelled,
    /// Push-to-talk waited in vain.
    ListenTimedOut,
}

/// What makes an utterance count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Every one does.
    Open,
    /// The one after [`Segmenter::listen`] does.
    PushToTalk,
}

/// Cuts a stream into utterances.
pub struct Segmenter {
    detector: Box<Detector>,
    rumble: HighPass,
    level: Level,
    threshold: f32,
    /// Frames until the detector, which starts with silence in its memory, can be believed.
    settling: u32,
    min_speech: u64,
    hangover: u64,
    lead: usize,
    max_speech: u64,
    listen_timeout: u64,
    gate: Gate,
    /// Push-to-talk: within how many samples an utterance has to begin; `None` where nobody asked.
    window: Option<u64>,
    /// Less than a frame.
    pending: Vec<f32>,
    /// What was heard last outside an utterance, the newest at the back; bounded by the longest lead, 10 s.
    ring: VecDeque<f32>,
    /// Of the last frames, the newest in the lowest bit: whether each was likely speech.
    recent: u32,
    utterance: Option<Utterance>,
}

/// All in samples.
#[derive(Default)]
struct Utterance {
    /// Given so far, the lead included.
    given: u64,
    /// In frames that were speech.
    voiced: u64,
    /// Since the last such frame.
    silence: u64,
}

/// Speech is likely once so many of so many frames in a row are: a click is shorter, the shortest word is not.
const ONSET_FRAMES: u32 = 4;
const ONSET_WINDOW: u32 = 6;

/// Where the detector's memory is empty, steady noise looks like speech to it for up to 25 frames.
const SETTLING_FRAMES: u32 = 30;

/// Half a step of 16 bits. What stays below it in front of an utterance is digital silence, and is left out: a microphone gives some
/// noise always, a noise gate and a file that begins later may give none. The log-mel features of nothing lie at a floor that no
/// recording has, and what a model makes of that is chance: of the demo model's 24 held-out clips it understands 23 with 300 ms of
/// faint noise in front, and 17 with 300 ms of nothing.
const DIGITAL_SILENCE: f32 = 1.0 / 65_536.0;

/// Wind, traffic and a table that is touched are louder than speech below this, in Hz, and speech has nothing to lose there.
const RUMBLE_HZ: f64 = 120.0;

impl Segmenter {
    /// A segmenter at the start of a stream.
    pub fn new(config: &SpeechDetection, gate: Gate) -> Segmenter {
        let samples = |ms: u32| u64::from(ms) * u64::from(SAMPLE_RATE_HZ) / 1000;
        Segmenter {
            detector: Detector::default_boxed(),
            rumble: HighPass::new(RUMBLE_HZ, f64::from(SAMPLE_RATE_HZ)),
            level: Level::default(),
            threshold: config.threshold,
            settling: SETTLING_FRAMES,
            min_speech: samples(config.min_speech_ms),
            hangover: samples(config.hangover_ms),
            lead: samples(config.lead_ms) as usize,
            max_speech: samples(config.max_speech_ms),
            listen_timeout: samples(config.listen_timeout_ms),
            gate,
            window: None,
            pending: Vec::with_capacity(FRAME_SAMPLES),
            ring: VecDeque::new(),
            recent: 0,
            utterance: None,
        }
    }

    /// Takes samples and tells what they bring.
    pub fn push(&mut self, mut samples: &[f32], tell: &mut dyn FnMut(SpeechEvent)) {
        while !samples.is_empty() {
            let room = FRAME_SAMPLES - self.pending.len();
            let (now, rest) = samples.split_at(room.min(samples.len()));
            self.pending.extend_from_slice(now);
            samples = rest;
            if self.pending.len() == FRAME_SAMPLES {
                let frame = std::mem::take(&mut self.pending);
                self.frame(&frame, tell);
                self.pending = frame;
                self.pending.clear();
            }
        }
    }

    /// Push-to-talk: the next utterance counts, also one that is being spoken now. Where each counts anyway, what is added is that it
    /// is told when none comes in time.
    pub fn listen(&mut self) {
        self.window = Some(self.listen_timeout);
    }

    /// Whether push-to-talk waits for an utterance, or takes one.
    pub fn is_listening(&self) -> bool {
        self.window.is_some()
    }

    /// The stream breaks off: ends the utterance that is going on.
    pub fn interrupt(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        if let Some(utterance) = self.utterance.take() {
            self.close(&utterance, true, tell);
        }
        self.restart(tell);
    }

    /// The stream breaks off and what was heard of it is to be forgotten.
    pub fn forget(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        if self.utterance.take().is_some() {
            tell(SpeechEvent::Cancelled);
        }
        self.restart(tell);
    }

    fn restart(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        if self.window.take().is_some() {
            tell(SpeechEvent::ListenTimedOut);
        }
        self.detector.reset();
        self.rumble.reset();
        self.level = Level::default();
        self.settling = SETTLING_FRAMES;
        self.pending.clear();
        self.ring.clear();
        self.recent = 0;
    }

    fn frame(&mut self, frame: &[f32], tell: &mut dyn FnMut(SpeechEvent)) {
        let mut heard = [0.0; FRAME_SAMPLES];
        for (heard, &x) in heard.iter_mut().zip(frame) {
            // The detector wants numbers within full scale; filters may overshoot it.
            *heard = self.rumble.pass(x).clamp(-1.0, 1.0);
        }
        let score = self.detector.predict_f32(&heard);
        self.settling = self.settling.saturating_sub(1);
        let stands_out = self.level.stands_out(&heard);
        let likely = self.settling == 0 && stands_out && score >= self.threshold;
        self.recent = self.recent << 1 | u32::from(likely);
        match &mut self.utterance {
            Some(utterance) => {
                utterance.given += FRAME_SAMPLES as u64;
                if likely {
                    utterance.voiced += FRAME_SAMPLES as u64;
                    utterance.silence = 0;
                } else {
                    utterance.silence += FRAME_SAMPLES as u64;
                }
                let truncated = utterance.given >= self.max_speech;
                let over = truncated || utterance.silence >= self.hangover;
                tell(SpeechEvent::Samples(frame.to_vec()));
                if over && let Some(utterance) = self.utterance.take() {
                    self.close(&utterance, truncated, tell);
                    self.recent = 0;
                }
            }
            None => {
                self.ring.extend(frame);
                let kept = self.lead + ONSET_WINDOW as usize * FRAME_SAMPLES;
                self.ring.drain(..self.ring.len().saturating_sub(kept));
                let window = self.recent & ((1 << ONSET_WINDOW) - 1);
                let counts = self.gate == Gate::Open || self.window.is_some();
                if window.count_ones() >= ONSET_FRAMES && counts {
                    let silent = |x: &f32| x.abs() < DIGITAL_SILENCE;
                    let samples: Vec<f32> = self.ring.drain(..).skip_while(silent).collect();
                    self.utterance = Some(Utterance {
                        given: samples.len() as u64,
                        voiced: u64::from(window.count_ones()) * FRAME_SAMPLES as u64,
                        silence: 0,
                    });
                    tell(SpeechEvent::Started);
                    tell(SpeechEvent::Samples(samples));
                } else if let Some(left) = &mut self.window {
                    *left = left.saturating_sub(FRAME_SAMPLES as u64);
                    if *left == 0 {
                        self.window = None;
                        tell(SpeechEvent::ListenTimedOut);
                    }
                }
            }
        }
    }

    fn close(&mut self, utterance: &Utterance, truncated: bool, tell: &mut dyn FnMut(SpeechEvent)) {
        if utterance.voiced < self.min_speech {
            tell(SpeechEvent::Cancelled);
        } else {
            tell(SpeechEvent::Ended { truncated });
            self.window = None;
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
    /// Energy over the floor that speech has: 5 dB.
    const RATIO: f32 = 3.16;
    /// Lowest floor, -70 dB full scale: no room is quieter, and the ratio stays a number in digital silence.
    const SILENCE: f32 = 1e-7;

    fn stands_out(&mut self, frame: &[f32]) -> bool {
        let energy = frame.iter().map(|x| x * x).sum::<f32>() / frame.len() as f32;
        let Some(smoothed) = &mut self.smoothed else {
            self.smoothed = Some(energy);
            self.floor = energy.max(Level::SILENCE);
            return false;
        };
        *smoothed += Level::SMOOTHING * (energy - *smoothed);
        if *smoothed < self.floor {
            self.floor += Level::FALL * (*smoothed - self.floor);
        } else {
            self.floor *= Level::RISE;
        }
        self.floor = self.floor.max(Level::SILENCE);
        *smoothed > Level::RATIO * self.floor
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
