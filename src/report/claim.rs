//! Which of several boards was woken best.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `BASE/woken`, which all boards of a broker have in common: a wake word was heard. Not retained.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Claim {
    /// The board.
    pub node: String,
    /// The microphone.
    pub microphone: String,
    /// The wake word, as its model's file has it.
    pub phrase: String,
    /// How sure the model is, 0 to 1.
    pub score: f64,
    /// How loud the word was (RMS of a second), dB full scale.
    pub dbfs: f64,
    /// When the word was heard, RFC 3339; absent where the board's clock is not known to be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl Claim {
    /// Whether it is for this one to answer, of two microphones that heard the same word: the louder, which is the nearer one, else the
    /// surer, else the one whose name comes first. Levels count in whole decibels and scores in tenths: both were sure enough to wake.
    pub fn beats(&self, other: &Claim) -> bool {
        self.phrase == other.phrase && self.rank() > other.rank()
    }

    /// Whether both are of the same microphone.
    pub fn is_of(&self, other: &Claim) -> bool {
        (&self.node, &self.microphone) == (&other.node, &other.microphone)
    }

    fn rank(&self) -> (i64, i64, Reverse<(&str, &str)>) {
        let tenths = (self.score.clamp(0.0, 1.0) * 10.0).round() as i64;
        let decibels = self.dbfs.clamp(-200.0, 0.0).round() as i64;
        (decibels, tenths, Reverse((&self.node, &self.microphone)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: &str, score: f64, dbfs: f64) -> Claim {
        Claim {
            node: node.to_owned(),
            microphone: "hall".to_owned(),
            phrase: "Okay Nabu".to_owned(),
            score,
            dbfs,
            time: None,
        }
    }

    #[test]
    fn of_any_claims_exactly_one_is_beaten_by_none() {
        let scores = [0.0, 0.91, 0.949, 0.96, 1.0, 5.0, f64::NAN];
        let levels = [-1e300, -30.4, -30.0, -12.0, 3.0];
        let all: Vec<Claim> = ["a", "b"]
            .iter()
            .flat_map(|node| {
                let of_level = move |score| levels.map(|dbfs| claim(node, score, dbfs));
                scores.into_iter().flat_map(of_level)
            })
            .collect();
        for x in &all {
            for y in &all {
                assert!(!(x.beats(y) && y.beats(x)), "{x:?} {y:?}");
                for z in &all {
                    assert!(!x.beats(y) || !y.beats(z) || x.beats(z));
                }
            }
        }
        // The same of one board is one claim, and is never its own rival.
        let best = |claims: &[Claim]| {
            let unbeaten = |x: &&Claim| !claims.iter().any(|y| y.beats(x));
            claims.iter().filter(unbeaten).cloned().collect::<Vec<_>>()
        };
        let three = [
            claim("a", 0.95, -31.0),
            claim("b", 0.97, -20.0),
            claim("c", 0.98, -20.2),
        ];
        assert_eq!(best(&three), [claim("b", 0.97, -20.0)]);
        // The nearer one answers, though the other is a hair surer.
        let near = claim("b", 0.949, -20.0);
        assert_eq!(best(&[claim("a", 0.951, -40.0), near.clone()]), [near]);
    }

    #[test]
    fn another_word_is_no_rival() {
        let other = Claim {
            phrase: "Alexa".to_owned(),
            ..claim("b", 1.0, 0.0)
        };
        assert!(!other.beats(&claim("a", 0.1, -50.0)));
    }
}
