//! How often the guesses of a source were right, by how sure it was and how far ahead it guessed.

use super::{MAX_GUESSES, STRENGTHS};

/// Guesses that are remembered: older ones count less and less.
const REMEMBERED: f64 = 64.0;

/// What is taken for granted before anything was measured, and how many guesses that is worth.
const PRIOR: f64 = 0.5;
const PRIOR_WEIGHT: f64 = 1.0;

/// What is left of the record of a source each time that it is not asked because it does not pay.
const FADING: f64 = 1.0 - 1.0 / 256.0;

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    right: f64,
    all: f64,
}

/// Measured on every guess, whether it was in a pass or not: looking costs nothing.
#[derive(Debug, Default)]
pub(super) struct Acceptance([[Share; MAX_GUESSES]; STRENGTHS]);

impl Acceptance {
    /// The share of guesses that are right where those before them were; `depth` 0 is the first.
    pub(super) fn of(&self, strength: usize, depth: usize) -> f64 {
        let share = self.0[strength][depth.min(MAX_GUESSES - 1)];
        (share.right + PRIOR * PRIOR_WEIGHT) / (share.all + PRIOR_WEIGHT)
    }

    /// What was not looked at counts less and less: it may be otherwise by now, and is tried again.
    pub(super) fn fade(&mut self, strength: usize) {
        for share in &mut self.0[strength] {
            share.right *= FADING;
            share.all *= FADING;
        }
    }

    pub(super) fn note(&mut self, strength: usize, depth: usize, is_right: bool) {
        let share = &mut self.0[strength][depth.min(MAX_GUESSES - 1)];
        if share.all >= REMEMBERED {
            let keep = (REMEMBERED - 1.0) / REMEMBERED;
            share.right *= keep;
            share.all *= keep;
        }
        share.right += f64::from(u8::from(is_right));
        share.all += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_right_lately_counts() {
        let mut acceptance = Acceptance::default();
        assert_eq!(acceptance.of(0, 0), PRIOR);
        (0..1000).for_each(|_| acceptance.note(0, 0, false));
        assert!(acceptance.of(0, 0) < 0.02);
        (0..200).for_each(|_| acceptance.note(0, 0, true));
        assert!(acceptance.of(0, 0) > 0.9);
        assert_eq!((acceptance.of(1, 0), acceptance.of(0, 1)), (PRIOR, PRIOR));
    }

    #[test]
    fn what_was_wrong_is_tried_again_after_a_thousand_tokens() {
        let mut acceptance = Acceptance::default();
        (0..1000).for_each(|_| acceptance.note(3, 0, false));
        (0..100).for_each(|_| acceptance.fade(3));
        assert!(acceptance.of(3, 0) < 0.02);
        (0..1000).for_each(|_| acceptance.fade(3));
        assert!(acceptance.of(3, 0) > 0.2);
    }
}
