//! How much sound is encoded together while it is spoken, by what this machine was seen to take.
//!
//! Each batch reads all the weights of the encoder, and those of the text model for what it gives: large ones cost less. What has not filled
//! one when the speaker stops is waited for: small ones are answered sooner. With weights that are integers, what comes of a clip is the
//! same for any, bit by bit. Sums of floats are not, so an encoder of floats has batches that do not depend on time.

use std::collections::VecDeque;
use std::time::Duration;

/// What one frame of an audio encoder stands for.
pub(super) const FRAME_MS: usize = 40;

/// Frames that are chosen among are multiples of this, the piece in which speech comes to the engine.
const STEP: usize = 4;

/// Frames before anything was measured.
const UNMEASURED: usize = 12;

/// Two seconds: beyond, reading the weights is no more what a batch takes.
const MOST: usize = 48;

/// Frames of a clip that is there as a whole: as many as are encoded between two occasions to do something more urgent.
const WHOLE: usize = 25;

/// Hearing may take this share of the time in which something is said; the rest is for what else has to be done.
const REAL_TIME: f64 = 0.9;

/// Batches that are remembered.
const REMEMBERED: usize = 32;

/// How sound is gathered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gathering {
    /// So many frames of 40 ms at a time.
    Frames(usize),
    /// As many as are encoded within so many milliseconds on this machine, and more where it would not keep up with who speaks.
    Within(f64),
}

impl Default for Gathering {
    /// Within a tenth of a second.
    fn default() -> Gathering {
        Gathering::Within(100.0)
    }
}

/// What batches took, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Batches {
    gathering: Gathering,
    encoding: Measured,
    reading: Measured,
}

impl Batches {
    /// `in_integers`: the weights of the encoder are.
    pub(super) fn new(gathering: Gathering, in_integers: bool) -> Batches {
        let gathering = match gathering {
            Gathering::Within(_) if !in_integers => Gathering::Frames(UNMEASURED),
            gathering => gathering,
        };
        Batches {
            gathering,
            ..Batches::default()
        }
    }

    /// So many frames were encoded together,
    pub(super) fn encoded(&mut self, frames: usize, took: Duration) {
        self.encoding.note(frames, took);
    }

    /// and what they gave went into the text model.
    pub(super) fn read(&mut self, frames: usize, took: Duration) {
        self.reading.note(frames, took);
    }

    /// Frames that are gathered of a clip, of one that is being spoken or of one that is there as a `whole`.
    pub(super) fn frames(&self, whole: bool) -> usize {
        match self.gathering {
            Gathering::Frames(frames) => frames,
            Gathering::Within(_) if whole => WHOLE,
            Gathering::Within(budget_ms) => self.within(budget_ms),
        }
    }

    fn within(&self, budget_ms: f64) -> usize {
        if self.encoding.is_empty() {
            return UNMEASURED;
        }
        let frames = || (1..=MOST / STEP).map(|steps| steps * STEP);
        // What is left when the speaker stops is read with the text behind it, in the same pass: only its encoding comes on top.
        let fits = |&frames: &usize| self.encoding.of(frames) <= budget_ms;
        let keeps_up = |&frames: &usize| {
            let takes_ms = self.encoding.of(frames) + self.reading.of(frames);
            takes_ms <= REAL_TIME * (frames * FRAME_MS) as f64
        };
        let within = frames().rev().find(fits).unwrap_or(STEP);
        let enough = frames().filter(|&frames| frames >= within).find(keeps_up);
        enough.unwrap_or(MOST)
    }
}

/// Milliseconds that the last batches took, by their frames: a line, of which the middle of what they say counts, so that one that was
/// disturbed does not.
#[derive(Debug, Default)]
struct Measured {
    last: VecDeque<(f64, f64)>,
}

impl Measured {
    fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn note(&mut self, frames: usize, took: Duration) {
        if frames == 0 {
            return;
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last
            .push_back((frames as f64, took.as_secs_f64() * 1e3));
    }

    /// What so many frames take. Where all batches had as many, each frame is taken to cost as much as any: too much for more of them.
    fn of(&self, frames: usize) -> f64 {
        let pairs = (self.last.iter().enumerate())
            .flat_map(|(i, a)| self.last.iter().skip(i + 1).map(move |b| (a, b)));
        let slopes = pairs
            .filter(|(a, b)| a.0 != b.0)
            .map(|(a, b)| (b.1 - a.1) / (b.0 - a.0));
        let slope = middle(slopes)
            .or_else(|| middle(self.last.iter().map(|(frames, ms)| ms / frames)))
            .unwrap_or_default()
            .max(0.0);
        let rest = middle(self.last.iter().map(|(frames, ms)| ms - slope * frames));
        rest.unwrap_or_default().max(0.0) + slope * frames as f64
    }
}

fn middle(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds that the encoder and the text model take to be read, and milliseconds of a frame, of boards as docs/boards.md projects them.
    struct Board {
        encoder: f64,
        frame: f64,
        text: f64,
    }

    const PI_5_GEMMA_3N: Board = Board {
        encoder: 66.0,
        frame: 6.0,
        text: 124.0,
    };
    const PI_4_GEMMA_3N: Board = Board {
        encoder: 130.0,
        frame: 25.0,
        text: 244.0,
    };
    const PI_5_GEMMA_4: Board = Board {
        encoder: 14.0,
        frame: 2.5,
        text: 72.0,
    };

    impl Board {
        fn encoding(&self, frames: usize) -> Duration {
            let computing = self.frame * frames as f64;
            Duration::from_secs_f64(self.encoder.max(computing) / 1e3)
        }

        /// A clip of 3 s and a bit: batches of what is chosen, and the rest.
        fn hears(&self, batches: &mut Batches, rest: usize) {
            let frames = batches.frames(false);
            for _ in 0..75 / frames {
                batches.encoded(frames, self.encoding(frames));
                batches.read(frames, Duration::from_secs_f64(self.text / 1e3));
            }
            batches.encoded(rest, self.encoding(rest));
        }

        fn settles(&self, budget_ms: f64) -> usize {
            let mut batches = Batches::new(Gathering::Within(budget_ms), true);
            assert_eq!(batches.frames(false), UNMEASURED);
            for rest in [1, 3, 5, 9, 2, 7, 11, 6, 10, 4, 8, 12] {
                self.hears(&mut batches, rest);
            }
            batches.frames(false)
        }
    }

    #[test]
    fn as_many_frames_are_encoded_together_as_the_budget_allows() {
        assert_eq!(PI_5_GEMMA_3N.settles(100.0), 16);
        assert_eq!(PI_5_GEMMA_3N.settles(200.0), 32);
        assert_eq!(PI_5_GEMMA_4.settles(100.0), 40);
        assert_eq!(PI_5_GEMMA_4.settles(1000.0), MOST);
    }

    #[test]
    fn a_board_that_would_not_keep_up_gathers_more() {
        let frames = PI_4_GEMMA_3N.settles(100.0);
        let takes = PI_4_GEMMA_3N.encoding(frames).as_secs_f64() * 1e3 + PI_4_GEMMA_3N.text;
        assert!(takes <= 40.0 * frames as f64, "{frames}");
        assert!(frames <= 28, "{frames}");
        let hopeless = Board {
            frame: 90.0,
            ..PI_4_GEMMA_3N
        };
        assert_eq!(hopeless.settles(100.0), MOST);
    }

    #[test]
    fn a_batch_that_was_disturbed_changes_nothing() {
        let mut batches = Batches::new(Gathering::default(), true);
        for rest in [1, 3, 5, 9, 2, 7] {
            PI_5_GEMMA_3N.hears(&mut batches, rest);
        }
        let before = batches.frames(false);
        batches.encoded(before, Duration::from_secs(3));
        batches.read(before, Duration::from_secs(3));
        assert_eq!(batches.frames(false), before);
    }

    #[test]
    fn what_floats_give_does_not_depend_on_time() {
        let mut batches = Batches::new(Gathering::default(), false);
        PI_4_GEMMA_3N.hears(&mut batches, 3);
        let frames = [false, true].map(|whole| batches.frames(whole));
        assert_eq!(frames, [UNMEASURED; 2]);
        assert_eq!(Batches::new(Gathering::Frames(7), false).frames(false), 7);
    }

    #[test]
    fn what_is_configured_stays() {
        let mut batches = Batches::new(Gathering::Frames(7), true);
        PI_4_GEMMA_3N.hears(&mut batches, 3);
        assert_eq!((batches.frames(false), batches.frames(true)), (7, 7));
        assert_eq!(Batches::default().frames(true), WHOLE);
    }
}
