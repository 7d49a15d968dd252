//! What guesses cost where none is right: an answer by chance, which repeats nothing, decoded with and without them.

use std::ops::ControlFlow;

use serde::Serialize;

use super::{Bench, median};
use crate::cli::failure::Failure;
use crate::model::sampler::Sampling;
use crate::pipeline::{Engine, Guessing, Request};

/// Medians of the repetitions, which were taken in turn. Each answer is another: what was said before is no help.
#[derive(Serialize)]
pub(super) struct ByChance {
    pub(super) plain_tok_s: f64,
    /// Guessing where it seems to pay, as usual.
    pub(super) guessing_tok_s: f64,
    /// How much slower guessing is, percent: the median of the pairs.
    pub(super) slower_percent: f64,
    /// Tokens that were guessed in vain, for a hundred tokens of an answer.
    pub(super) wasted_percent: f64,
}

impl Bench {
    /// At temperature 1, with every token of the vocabulary in play.
    pub(super) fn by_chance(
        &self,
        engine: &mut Engine,
        request: &Request,
    ) -> Result<ByChance, Failure> {
        let mut request = request.clone();
        request.generation.sampling = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        };
        let mut rates = Vec::new();
        let mut tokens = 0;
        for run in 0..=self.runs {
            let mut pair = [0.0; 2];
            for (rate, how) in pair.iter_mut().zip([Guessing::Never, Guessing::WherePays]) {
                engine.shortcuts_mut().guessing = how;
                request.generation.seed += 1;
                let answer = engine.answer(&request, &mut |_| ControlFlow::Continue(()))?;
                *rate = answer.timing.tokens_per_second();
                if how == Guessing::WherePays {
                    tokens += answer.timing.tokens;
                }
            }
            // The first one reads the weights from flash, and learns what passes cost.
            if run > 0 {
                rates.push(pair);
            }
        }
        let counts = engine.guess_counts();
        let wrong = counts.iter().map(|counts| counts.guessed - counts.accepted);
        let wrong: u64 = wrong.sum();
        Ok(ByChance {
            plain_tok_s: median(rates.iter().map(|pair| pair[0])),
            guessing_tok_s: median(rates.iter().map(|pair| pair[1])),
            slower_percent: median(rates.iter().map(|pair| (pair[0] / pair[1] - 1.0) * 100.0)),
            wasted_percent: wrong as f64 * 100.0 / tokens.max(1) as f64,
        })
    }
}
