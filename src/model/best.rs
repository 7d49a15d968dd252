//! The best of many logits, in one pass.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A token that may be chosen; the most probable one is the least in order, and of equals the lowest id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The logits that are finite numbers, with their ids.
pub(super) fn finite(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    let candidates = (0..)
        .zip(logits)
        .map(|(id, &logit)| Candidate { logit, id });
    candidates.filter(|candidate| candidate.logit.is_finite())
}

/// Keeps the best of those it is shown; its memory is reused.
#[derive(Debug, Default)]
pub(super) struct Best {
    /// The worst of them on top.
    heap: BinaryHeap<Candidate>,
}

impl Best {
    /// With room for `count`.
    pub(super) fn with_capacity(count: usize) -> Best {
        Best {
            heap: BinaryHeap::with_capacity(count),
        }
    }

    /// Makes room for `count`.
    pub(super) fn reserve(&mut self, count: usize) {
        self.heap.clear();
        self.heap.reserve(count);
    }

    /// The `count` best of `candidates`, in no order: most cost one comparison.
    pub(super) fn of(
        &mut self,
        candidates: impl Iterator<Item = Candidate>,
        count: usize,
    ) -> impl Iterator<Item = Candidate> {
        self.heap.clear();
        for candidate in candidates {
            if self.heap.len() < count {
                self.heap.push(candidate);
            } else if let Some(mut worst) = self.heap.peek_mut()
                && candidate < *worst
            {
                *worst = candidate;
            }
        }
        self.heap.drain()
    }
}
