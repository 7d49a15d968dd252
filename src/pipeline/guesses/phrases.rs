//! Names and values that commands are configured with: whoever begins one is likely to end it.

use super::follow::{follow, strength};
use super::{Source, Stand};

/// Tokens of a phrase's beginning that are compared at most.
const LONGEST: usize = 8;

/// Phrases as tokens.
pub(super) struct Phrases(Vec<Vec<u32>>);

impl Phrases {
    /// Those of more than one token: of others nothing is left to guess.
    pub(super) fn new(mut phrases: Vec<Vec<u32>>) -> Phrases {
        phrases.retain(|phrase| phrase.len() > 1);
        phrases.sort_unstable();
        phrases.dedup();
        Phrases(phrases)
    }

    fn guess(&self, written: &[u32], most: usize, ids: &mut Vec<u32>) -> usize {
        // The longest beginning that the text ends in; several phrases may have it.
        for begun in (1..=written.len().min(LONGEST)).rev() {
            let end = &written[written.len() - begun..];
            let rests: Vec<(&[u32], f64)> = self
                .0
                .iter()
                .filter_map(|phrase| phrase.strip_prefix(end))
                .map(|rest| (rest, 1.0))
                .collect();
            let share = follow(&rests, most, ids);
            if !ids.is_empty() {
                return strength(share);
            }
        }
        0
    }
}

impl Source for Phrases {
    fn name(&self) -> &'static str {
        "phrases"
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        Phrases::guess(self, stand.written, most, ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_that_was_begun_is_ended() {
        let phrases = Phrases::new(vec![vec![1, 2, 3], vec![1, 2, 4, 5], vec![9], vec![2, 7]]);
        let guess = |written: &[u32]| {
            let mut ids = Vec::new();
            let strength = phrases.guess(written, 8, &mut ids);
            (ids, strength)
        };
        assert_eq!(guess(&[8, 1]), (vec![2, 3], 3));
        assert_eq!(guess(&[8, 1, 2]), (vec![3], 1));
        assert_eq!(guess(&[2]), (vec![7], 3));
        assert_eq!(guess(&[9]), (vec![], 0));
    }
}
