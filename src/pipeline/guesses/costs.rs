//! What a pass of some tokens takes on this machine, and how many guesses pay.

use super::MAX_PASS;

/// Passes of each length that are remembered: the middle one of them counts, so that one that was disturbed does not.
const REMEMBERED: usize = 9;

/// What each further token is taken to cost before a pass of so many was measured, as a share of a pass of one. Too little rather than
/// too much: one pass shows.
const UNMEASURED: f64 = 0.08;

/// How much faster than without guesses it must be: what is measured is not exact.
const LEAST_GAIN: f64 = 1.03;

/// Milliseconds of the last passes of each length.
#[derive(Debug, Default)]
pub(super) struct Costs {
    last: [Vec<f64>; MAX_PASS],
    /// Which of each length is the oldest.
    oldest: [usize; MAX_PASS],
}

impl Costs {
    pub(super) fn note(&mut self, tokens: usize, took_ms: f64) {
        let Some(at) = tokens.checked_sub(1).filter(|at| *at < MAX_PASS) else {
            return;
        };
        let (last, oldest) = (&mut self.last[at], &mut self.oldest[at]);
        if last.len() < REMEMBERED {
            last.push(took_ms);
        } else {
            last[*oldest] = took_ms;
            *oldest = (*oldest + 1) % REMEMBERED;
        }
    }

    /// What a pass of `tokens` takes; one that was not measured is as its nearest neighbours are, or a little more.
    fn of(&self, tokens: usize) -> f64 {
        let measured = |tokens: usize| self.measured(tokens);
        if let Some(ms) = measured(tokens) {
            return ms;
        }
        let below = (1..tokens).rev().find_map(|n| Some((n, measured(n)?)));
        let above = (tokens + 1..=MAX_PASS).find_map(|n| Some((n, measured(n)?)));
        match (below, above) {
            (Some((a, low)), Some((b, high))) => {
                low + (high - low) * (tokens - a) as f64 / (b - a) as f64
            }
            (Some((a, low)), None) => {
                let one = measured(1).unwrap_or(low);
                low + one * UNMEASURED * (tokens - a) as f64
            }
            (None, Some((_, high))) => high,
            (None, None) => 1.0 + UNMEASURED * tokens as f64,
        }
    }

    fn measured(&self, tokens: usize) -> Option<f64> {
        let mut last = self.last.get(tokens.checked_sub(1)?)?.clone();
        last.sort_unstable_by(f64::total_cmp);
        last.get(last.len() / 2).copied()
    }

    /// How much faster than without guesses the best number of them is, and that number, up to `most` behind `certain` tokens and `beside` of
    /// other answers; the k-th is right with `share(k - 1)` where those before it are, and asking for each takes `asking_ms`. 1 and 0 where
    /// none pays.
    pub(super) fn best(
        &self,
        [certain, beside]: [usize; 2],
        most: usize,
        asking_ms: f64,
        share: impl Fn(usize) -> f64,
    ) -> (f64, usize) {
        let tokens = certain + beside;
        let plain_ms = self.of(tokens.clamp(1, MAX_PASS));
        // Each of the others gets a token as well.
        let plain = 1.0 + beside as f64;
        let (mut right, mut expected) = (1.0, plain);
        let mut best = (1.0, 0);
        for guesses in 1..=most.min(MAX_PASS.saturating_sub(tokens)) {
            right *= share(guesses - 1);
            expected += right;
            let took_ms = self.of(tokens + guesses) + asking_ms * guesses as f64;
            let gain = expected / plain * plain_ms / took_ms;
            if gain >= LEAST_GAIN && gain > best.0 {
                best = (gain, guesses);
            }
        }
        best
    }
}

/// A running mean, which begins with what was measured first.
pub(super) fn blend(before: f64, now: f64) -> f64 {
    match before {
        0.0 => now,
        before => before + (now - before) / 8.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(ms: &[(usize, f64)]) -> Costs {
        let mut costs = Costs::default();
        for &(tokens, ms) in ms {
            (0..REMEMBERED).for_each(|_| costs.note(tokens, ms));
        }
        costs
    }

    #[test]
    fn guesses_pay_where_a_pass_of_many_costs_little() {
        let memory_bound = costs(&[(1, 100.0), (4, 110.0), (8, 130.0)]);
        assert_eq!(memory_bound.best([1, 0], 7, 0.0, |_| 0.9).1, 7);
        assert_eq!(memory_bound.best([1, 0], 7, 0.0, |_| 0.01), (1.0, 0));
        // A draft that costs more than it gives.
        assert_eq!(memory_bound.best([1, 0], 3, 300.0, |_| 0.9), (1.0, 0));
        let compute_bound = costs(&[(1, 100.0), (2, 200.0), (8, 800.0)]);
        assert_eq!(compute_bound.best([1, 0], 7, 0.0, |_| 0.99), (1.0, 0));
    }

    #[test]
    fn what_a_pass_took_long_ago_is_forgotten_though_other_lengths_are_more_frequent() {
        let mut costs = costs(&[(1, 100.0), (2, 105.0)]);
        for _ in 0..REMEMBERED {
            costs.note(2, 150.0);
            (0..REMEMBERED - 1).for_each(|_| costs.note(1, 100.0));
        }
        assert_eq!(costs.of(2), 150.0);
    }

    #[test]
    fn one_pass_that_was_disturbed_is_none() {
        let mut costs = costs(&[(1, 100.0), (2, 105.0)]);
        costs.note(2, 5_000.0);
        assert_eq!(costs.of(2), 105.0);
        assert_eq!(costs.of(5), 105.0 + 3.0 * 8.0);
        assert!(costs.best([1, 0], 1, 0.0, |_| 0.8).1 == 1);
    }
}
