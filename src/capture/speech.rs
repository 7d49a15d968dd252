//! Where speech begins and ends in a stream of 16 kHz samples. No device and no clock: time is counted in samples.

use std::collections::VecDeque;

use super::options::SpeechDetection;
use crate::features::speech_detect::{FRAME_SAMPLES, SpeechDetector};
use crate::media::SAMPLE_RATE_HZ;

/// What is found.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeechEvent {
    /// An utterance begins; its samples follow.
    Started,
    /// Samples of the utterance, those from before its onset first.
    Samples(Vec<f32>),
    /// Nothing has been said for a moment: where no samples follow, what there is was all.
    Paused,
    /// The utterance is over.
    Ended {
        /// It reached the longest length; what follows is a new one.
        truncated: bool,
    },
    /// It was too short to be speech.
    Cancelled,
    /// Push-to-talk, or a wake word, waited in vain.
    ListenTimedOut,
    /// Nobody went on after an answer.
    FollowTimedOut,
}

/// What makes an utterance count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Every one does.
    Open,
    /// The one after [`Segmenter::listen`] does.
    PushToTalk,
    /// What is said after [`Segmenter::wake`] does, too.
    WakeWord {
        /// The wake word is part of the utterance.
        with_word: bool,
    },
}

/// The longest wake words are spoken in so much time, the moment included that it takes to be sure of them.
const WAKE_WORD_MS: u32 = 2_000;

/// The end of a wake word may still be heard so long after it was known.
const WAKE_WORD_END_MS: u32 = 200;

/// Cuts a stream into utterances.
pub struct Segmenter {
    detector: SpeechDetector,
    min_speech: u64,
    hangover: u64,
    /// Silence that belongs to an utterance; more of it only where somebody goes on.
    tail: u64,
    lead: usize,
    max_speech: u64,
    listen_timeout: u64,
    wake_lead: usize,
    wake_end: u64,
    gate: Gate,
    /// Push-to-talk: within how many samples an utterance has to begin; `None` where nobody asked.
    window: Option<u64>,
    /// The window is one for whoever goes on after an answer.
    follows: bool,
    /// Less than a frame.
    pending: Vec<f32>,
    /// What was heard last outside an utterance, and within one where a wake word may be said; the newest at the back; bounded by the
    /// longest lead, 10 s, and what is in doubt, 3 s.
    ring: VecDeque<f32>,
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
    /// It began with a wake word.
    woken: bool,
    /// Until then what is heard is still the wake word.
    waking: u64,
    /// Until then it is waited for what follows the wake word.
    waits: u64,
    /// Heard in a silence that is longer than the tail, and given where somebody goes on; bounded by the longest hangover, 10 s.
    withheld: Vec<f32>,
}

/// Half a step of 16 bits. What stays below it in front of an utterance is digital silence, and is left out: a microphone gives some
/// noise always, a noise gate and a file that begins later may give none. The log-mel features of nothing lie at a floor that no
/// recording has, and what a model makes of that is chance: of the demo model's 24 held-out clips it understands 23 with 300 ms of
/// faint noise in front, and 17 with 300 ms of nothing.
const DIGITAL_SILENCE: f32 = 1.0 / 65_536.0;

impl Segmenter {
    /// A segmenter at the start of a stream.
    pub fn new(config: &SpeechDetection, gate: Gate) -> Segmenter {
        let samples = |ms: u32| u64::from(ms) * u64::from(SAMPLE_RATE_HZ) / 1000;
        Segmenter {
            detector: SpeechDetector::new(config.threshold),
            min_speech: samples(config.min_speech_ms),
            hangover: samples(config.hangover_ms),
            tail: samples(config.early_answer_ms().unwrap_or(config.hangover_ms)),
            lead: samples(config.lead_ms) as usize,
            max_speech: samples(config.max_speech_ms),
            listen_timeout: samples(config.listen_timeout_ms),
            wake_lead: match gate {
                Gate::WakeWord { with_word: true } => samples(WAKE_WORD_MS) as usize,
                _ => samples(config.lead_ms) as usize,
            },
            wake_end: samples(WAKE_WORD_END_MS),
            gate,
            window: None,
            follows: false,
            pending: Vec::with_capacity(FRAME_SAMPLES),
            ring: VecDeque::new(),
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
        self.follows = false;
    }

    /// The next utterance counts if it begins within so many seconds.
    pub fn follow(&mut self, seconds: u32) {
        if self.window.is_none() {
            self.window = Some(u64::from(seconds) * u64::from(SAMPLE_RATE_HZ));
            self.follows = true;
        }
    }

    /// A wake word was just said: the utterance begins with it, or right behind it, and goes on through the silence before what follows.
    pub fn wake(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        self.window = None;
        let early = self.ring.len().saturating_sub(self.wake_lead);
        self.begin(
            early,
            Utterance {
                woken: true,
                waking: self.wake_end,
                waits: self.listen_timeout,
                ..Utterance::default()
            },
            tell,
        );
    }

    /// Whether an utterance is being taken down.
    pub fn is_speaking(&self) -> bool {
        self.utterance.is_some()
    }

    /// Whether that began with a wake word.
    pub fn is_woken(&self) -> bool {
        self.utterance.as_ref().is_some_and(|it| it.woken)
    }

    /// Whether push-to-talk waits for an utterance, or takes one.
    pub fn is_listening(&self) -> bool {
        self.window.is_some() && !self.follows
    }

    /// What is told where the window closes and nobody spoke.
    fn in_vain(&self) -> SpeechEvent {
        match self.follows {
            true => SpeechEvent::FollowTimedOut,
            false => SpeechEvent::ListenTimedOut,
        }
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
        self.give_up(tell);
        self.restart(tell);
    }

    /// What follows does not belong to what was heard: half of what somebody said does not count; whoever waits for an utterance goes
    /// on waiting.
    pub fn cut(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        self.give_up(tell);
        self.begin_anew();
    }

    /// The utterance that is going on does not count.
    pub fn give_up(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        if self.utterance.take().is_some() {
            tell(SpeechEvent::Cancelled);
        }
    }

    fn restart(&mut self, tell: &mut dyn FnMut(SpeechEvent)) {
        if self.window.take().is_some() {
            tell(self.in_vain());
        }
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.detector.reset();
        self.pending.clear();
        self.ring.clear();
    }

    fn frame(&mut self, frame: &[f32], tell: &mut dyn FnMut(SpeechEvent)) {
        let likely = self.detector.is_likely(frame);
        if self.utterance.is_none() || matches!(self.gate, Gate::WakeWord { .. }) {
            let kept = self.lead + self.detector.doubtful_frames() * FRAME_SAMPLES;
            let kept = kept.max(self.wake_lead);
            self.ring.extend(frame);
            self.ring.drain(..self.ring.len().saturating_sub(kept));
        }
        match &mut self.utterance {
            Some(utterance) => {
                utterance.given += FRAME_SAMPLES as u64;
                utterance.withheld.extend(frame);
                let was_tail = utterance.silence < self.tail;
                let waking = utterance.waking > 0;
                utterance.waking = utterance.waking.saturating_sub(FRAME_SAMPLES as u64);
                let speaks = likely && !waking;
                if speaks {
                    utterance.voiced += FRAME_SAMPLES as u64;
                    utterance.silence = 0;
                } else {
                    utterance.silence += FRAME_SAMPLES as u64;
                }
                let truncated = utterance.given >= self.max_speech;
                let spoken = utterance.voiced >= self.min_speech;
                if spoken {
                    utterance.waits = 0;
                }
                utterance.waits = utterance.waits.saturating_sub(FRAME_SAMPLES as u64);
                let waited = utterance.waits == 0;
                let over = truncated || waited && utterance.silence >= self.hangover;
                // Behind a wake word somebody is still to begin: that silence lies within the utterance.
                if was_tail || speaks || !waited {
                    tell(SpeechEvent::Samples(std::mem::take(
                        &mut utterance.withheld,
                    )));
                }
                let pauses = was_tail && utterance.silence >= self.tail;
                if pauses && !over && spoken {
                    tell(SpeechEvent::Paused);
                }
                if over && let Some(utterance) = self.utterance.take() {
                    self.close(&utterance, truncated, tell);
                    self.detector.forget();
                }
            }
            None => {
                let counts = self.gate == Gate::Open || self.window.is_some();
                if let Some(speaking) = self.detector.speaking().filter(|_| counts && likely) {
                    let lead = self.lead + self.detector.doubtful_frames() * FRAME_SAMPLES;
                    let early = self.ring.len().saturating_sub(lead);
                    let utterance = Utterance {
                        voiced: u64::from(speaking.voiced_frames) * FRAME_SAMPLES as u64,
                        ..Utterance::default()
                    };
                    self.begin(early, utterance, tell);
                } else if let Some(left) = &mut self.window {
                    *left = left.saturating_sub(FRAME_SAMPLES as u64);
                    if *left == 0 {
                        self.window = None;
                        tell(self.in_vain());
                    }
                }
            }
        }
    }

    /// An utterance begins with what was heard last but for the `early` samples before that.
    fn begin(&mut self, early: usize, utterance: Utterance, tell: &mut dyn FnMut(SpeechEvent)) {
        let silent = |x: &f32| x.abs() < DIGITAL_SILENCE;
        let samples: Vec<f32> = self.ring.drain(..).skip(early).skip_while(silent).collect();
        self.utterance = Some(Utterance {
            given: samples.len() as u64,
            ..utterance
        });
        tell(SpeechEvent::Started);
        tell(SpeechEvent::Samples(samples));
    }

    fn close(&mut self, utterance: &Utterance, truncated: bool, tell: &mut dyn FnMut(SpeechEvent)) {
        self.ring.clear();
        if utterance.voiced < self.min_speech {
            if utterance.woken {
                tell(SpeechEvent::ListenTimedOut);
            }
            tell(SpeechEvent::Cancelled);
        } else {
            tell(SpeechEvent::Ended { truncated });
            self.window = None;
        }
    }
}
