//! A grammar on its way through one answer.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::GrammarError;

/// What may come next.
pub enum Next {
    /// These tokens and no others.
    Forced(Vec<u32>),
    /// One of these tokens; the tokens that end an answer are among them where it may end.
    Among(TokenSet),
}

/// The state of a grammar within one answer.
pub struct Constraint {
    matcher: Matcher,
    what: &'static str,
}

impl Constraint {
    pub(super) fn new(matcher: Matcher, what: &'static str) -> Constraint {
        Constraint { matcher, what }
    }

    /// Whether the answer is complete, and cannot go on.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// What may come next in an answer that is not complete.
    ///
    /// # Errors
    /// The parser reached a limit.
    pub fn allowed(&mut self) -> Result<Next, GrammarError> {
        let forced = self.matcher.compute_ff_tokens();
        if !forced.is_empty() {
            return Ok(Next::Forced(forced));
        }
        let mask = self.matcher.compute_mask();
        mask.map(|mask| Next::Among(TokenSet(mask)))
            .map_err(|error| self.gave_up(&error.to_string()))
    }

    /// How many of these tokens, the first ones, may come one after the other; nothing is taken.
    ///
    /// # Errors
    /// The parser reached a limit.
    pub fn fitting(&mut self, ids: &[u32]) -> Result<usize, GrammarError> {
        self.matcher
            .validate_tokens(ids)
            .map_err(|error| self.gave_up(&error.to_string()))
    }

    /// Takes tokens that were allowed, none of which ends the answer.
    ///
    /// # Errors
    /// The parser reached a limit.
    pub fn accept(&mut self, ids: &[u32]) -> Result<(), GrammarError> {
        self.matcher
            .consume_tokens(ids)
            .map_err(|error| self.gave_up(&error.to_string()))
    }

    fn gave_up(&self, reason: &str) -> GrammarError {
        GrammarError::GaveUp {
            what: self.what,
            reason: reason
                .replace("<non-verbose/>", "")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// A set of token ids, one bit for each id of the vocabulary.
pub struct TokenSet(SimpleVob);

impl TokenSet {
    /// The tokens of `ids`, out of `vocabulary`.
    pub fn of(ids: &[u32], vocabulary: usize) -> TokenSet {
        let set = SimpleVob::alloc(vocabulary);
        let mut set = TokenSet(set);
        ids.iter().for_each(|&id| set.insert(id));
        set
    }

    /// Adds a token.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.0.len() {
            self.0.allow_token(id);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.num_set()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_zero()
    }

    /// The ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter()
    }

    /// Whether it holds an id.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// The share of the probability that a softmax of `logits` (temperature 1) gives to these tokens, 0 to 1.
    pub fn probability(&self, logits: &[f32]) -> f32 {
        let finite = |logit: &f32| logit.is_finite();
        let best = logits
            .iter()
            .copied()
            .filter(finite)
            .fold(f32::MIN, f32::max);
        let (mut inside, mut all) = (0.0, 0.0);
        for (id, &logit) in (0..).zip(logits).filter(|(_, logit)| finite(logit)) {
            let weight = libm::exp(f64::from(logit - best));
            all += weight;
            if self.contains(id) {
                inside += weight;
            }
        }
        if all > 0.0 {
            (inside / all) as f32
        } else {
            0.0
        }
    }

    /// Makes the logits of all other tokens -inf.
    pub fn mask(&self, logits: &mut [f32]) {
        for (id, logit) in (0..).zip(logits) {
            if !self.contains(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
