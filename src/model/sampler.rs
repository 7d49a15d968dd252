//! From logits to the next token.
//!
//! In the order of the reference implementation: repetition penalty, temperature, top-k, top-p, min-p, then a draw. The
//! `top_k` best are found first, in one pass over the logits and with a heap of `top_k` entries (dividing by a
//! temperature keeps the order), so that everything else handles a few dozen numbers.
//!
//! The same logits and seed give the same token on every platform: probabilities are computed in f64 with `libm`, which is
//! plain arithmetic, and the generator is written here.
//!
//! Source: `LogitsProcessorList` of the reference implementation.

use std::hash::{BuildHasher, RandomState};

use super::best::{Best, Candidate, finite};
use super::cue::Cue;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 means greedy: always the most probable token.
    pub temperature: f32,
    /// Only so many of the most probable tokens take part; 0 means all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability take part; 1 means all.
    pub top_p: f32,
    /// Only tokens with at least this share of the best one's probability take part; 0 means all.
    pub min_p: f32,
    /// Positive logits of tokens that the prompt or the answer holds are divided by this, negative ones multiplied; 1 means off.
    pub repetition_penalty: f32,
}

/// A number out of its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{key}: expected {expected}, found {found}")]
pub struct SamplingError {
    /// The parameter.
    pub key: &'static str,
    /// Its range.
    pub expected: &'static str,
    /// The number.
    pub found: f32,
}

/// No token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of the {count} logits is a finite number: the weights are damaged, or a grammar allows no token"
)]
pub struct NoTokenError {
    /// Logits looked at.
    pub count: usize,
}

impl Sampling {
    /// The published values of Gemma 3n and Gemma 4.
    pub const PUBLISHED: Sampling = Sampling {
        temperature: 1.0,
        top_k: 64,
        top_p: 0.95,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };

    /// Always the most probable token.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };

    /// Checks the range of every number.
    ///
    /// # Errors
    /// The first one out of its range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let checks = [
            (
                "temperature",
                "0 (greedy) to 100",
                self.temperature,
                0.0..=100.0,
            ),
            ("top_p", "0 to 1 (off)", self.top_p, 0.0..=1.0),
            ("min_p", "0 (off) to 1", self.min_p, 0.0..=1.0),
            (
                "repetition_penalty",
                "0.01 to 100, 1 being off",
                self.repetition_penalty,
                0.01..=100.0,
            ),
        ];
        match checks
            .into_iter()
            .find(|(_, _, found, range)| !range.contains(found))
        {
            Some((key, expected, found, _)) => Err(SamplingError {
                key,
                expected,
                found,
            }),
            None => Ok(()),
        }
    }
}

/// A seed that differs from call to call, for whoever gave none.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Chooses tokens; owns its buffers, so that a token costs no allocation.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    vocab_limit: usize,
    random: SplitMix64,
    /// By id, whether the prompt or the answer holds the token; empty without a repetition penalty.
    seen: Vec<bool>,
    /// The ids for which `seen` holds.
    seen_ids: Vec<u32>,
    /// Unused without top-k.
    best: Best,
    candidates: Vec<Candidate>,
    /// Probabilities of the first candidates in relation to the best one's.
    weights: Vec<f64>,
    /// What is said, in tests.
    cue: Option<Cue>,
}

impl Sampler {
    /// A sampler of ids below `vocab_limit` (the text vocabulary: ids of soft tokens are never chosen).
    ///
    /// # Errors
    /// A number of `sampling` is out of its range.
    pub fn new(sampling: Sampling, vocab_limit: usize, seed: u64) -> Result<Self, SamplingError> {
        sampling.check()?;
        let penalised = if sampling.repetition_penalty == 1.0 {
            0
        } else {
            vocab_limit
        };
        let room = match sampling {
            Sampling {
                temperature: 0.0, ..
            } => 0,
            Sampling { top_k: 0, .. } => vocab_limit,
            Sampling { top_k, .. } => top_k.min(vocab_limit),
        };
        Ok(Sampler {
            sampling,
            vocab_limit,
            random: SplitMix64(seed),
            seen: vec![false; penalised],
            seen_ids: Vec::with_capacity(penalised),
            best: Best::with_capacity(if sampling.top_k == 0 { 0 } else { room }),
            candidates: Vec::with_capacity(room),
            weights: Vec::with_capacity(room),
            cue: None,
        })
    }

    /// Makes what is written down the likeliest from now on, for tests.
    pub fn follow(&mut self, cue: Cue) {
        self.cue = Some(cue);
    }

    /// Notes tokens of the prompt or of the answer, for the repetition penalty.
    pub fn accept(&mut self, ids: &[u32]) {
        for &id in ids {
            if let Some(cue) = &mut self.cue {
                cue.note(id);
            }
            if let Some(seen) = self.seen.get_mut(id as usize)
                && !std::mem::replace(seen, true)
            {
                self.seen_ids.push(id);
            }
        }
    }

    /// How many of the best logits decide what [`Sampler::sample`] chooses, or that all of them do (`None`).
    pub fn deciding(&self) -> Option<usize> {
        let best = match self.sampling {
            // What is made more probable may come from anywhere.
            Sampling {
                repetition_penalty, ..
            } if repetition_penalty < 1.0 => return None,
            Sampling {
                temperature: 0.0, ..
            } => 1,
            Sampling { top_k: 0, .. } => return None,
            Sampling { top_k, .. } => top_k,
        };
        // Each token that is made less probable lets one more come up.
        Some(best.saturating_add(self.seen_ids.len()))
    }

    /// Chooses the next token from the logits of all ids; they may be changed by the repetition penalty.
    ///
    /// Logits that are no finite numbers (masked ones are -inf) take no part.
    ///
    /// # Errors
    /// No logit below the vocabulary's limit is a finite number.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, NoTokenError> {
        let count = self.vocab_limit.min(logits.len());
        let logits = &mut logits[..count];
        if let Some(cue) = &self.cue {
            cue.force(logits);
        }
        for &id in &self.seen_ids {
            if let Some(logit) = logits.get_mut(id as usize) {
                let penalty = self.sampling.repetition_penalty;
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
        let id = if self.sampling.temperature == 0.0 {
            greedy(logits)
        } else {
            self.draw(logits)
        };
        let id = id.ok_or(NoTokenError { count })?;
        self.accept(&[id]);
        Ok(id)
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        self.candidates.clear();
        match self.sampling.top_k {
            0 => self.candidates.extend(finite(logits)),
            k => self.keep_best(logits, k),
        }
        let best = f64::from(self.candidates.iter().min()?.logit);
        let temperature = f64::from(self.sampling.temperature);
        let weight =
            |candidate: &Candidate| libm::exp((f64::from(candidate.logit) - best) / temperature);
        let kept = self.keep_nucleus(weight);
        let min_p = f64::from(self.sampling.min_p);
        self.weights.clear();
        let kept = self.candidates[..kept].iter();
        self.weights.extend(
            kept.map(weight)
                .map(|weight| if weight < min_p { 0.0 } else { weight }),
        );
        let mut left = self.random.unit() * self.weights.iter().sum::<f64>();
        let mut chosen = None;
        for (candidate, &weight) in self.candidates.iter().zip(&self.weights) {
            // The last one with a weight stays where rounding leaves a crumb behind it.
            if weight > 0.0 && left >= 0.0 {
                chosen = Some(candidate.id);
            }
            left -= weight;
        }
        chosen
    }

    /// Fills the candidates with the `k` best tokens, in order.
    fn keep_best(&mut self, logits: &[f32], k: usize) {
        self.candidates.extend(self.best.of(finite(logits), k));
        self.candidates.sort_unstable();
    }

    /// Brings the candidates that top-p keeps to the front, in order, and returns their number; without top-p all stay as
    /// they are.
    ///
    /// Where all tokens are candidates, sorting them would cost more than the rest together: parts of growing size are
    /// sorted until their weights suffice.
    fn keep_nucleus(&mut self, weight: impl Fn(&Candidate) -> f64) -> usize {
        const FIRST_PART: usize = 256;
        let top_p = f64::from(self.sampling.top_p);
        if top_p == 1.0 {
            return self.candidates.len();
        }
        let needed = top_p * self.candidates.iter().map(&weight).sum::<f64>();
        let (mut reached, mut kept, mut part) = (0.0, 0, FIRST_PART);
        while kept < self.candidates.len() {
            let rest = &mut self.candidates[kept..];
            if part < rest.len() {
                rest.select_nth_unstable(part);
            }
            let end = part.min(rest.len());
            rest[..end].sort_unstable();
            for candidate in &rest[..end] {
                reached += weight(candidate);
                kept += 1;
                if reached >= needed {
                    return kept;
                }
            }
            part *= 8;
        }
        kept
    }
}

/// The id of the highest logit, the lowest id of equals.
fn greedy(logits: &[f32]) -> Option<u32> {
    finite(logits)
        .reduce(|a, b| if b.logit > a.logit { b } else { a })
        .map(|best| best.id)
}

/// A small generator of random numbers: one 64-bit state, one addition and one hash a number.
///
/// Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_those_of_the_published_generator() {
        let mut random = SplitMix64(1_234_567);
        let numbers = [(); 5].map(|()| random.next());
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(numbers, published);
    }
}
