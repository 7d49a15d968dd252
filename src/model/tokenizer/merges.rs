//! The merge table of byte-pair encoding, and the merging.
//!
//! A text starts as one symbol per character. Of all neighbours that the table can merge, the pair with the lowest
//! rank is merged first (the leftmost of equals), until no pair is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks a symbol that was merged into its left neighbour, and the end of the list of symbols.
const NONE: u32 = u32::MAX;

/// `left` followed by `right` becomes `result`; lower ranks go first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) rank: u32,
    pub(super) result: u32,
}

/// All merges, sorted by pair: 16 bytes each, found by binary search.
#[derive(Debug, Default)]
pub(super) struct Merges(Vec<Merge>);

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    previous: u32,
    next: u32,
}

impl Merges {
    /// Builds the table; of a pair that stands twice the later one counts, as in the reference implementation.
    pub(super) fn new(mut merges: Vec<Merge>) -> Self {
        merges.sort_unstable_by_key(|merge| (merge.left, merge.right, Reverse(merge.rank)));
        merges.dedup_by_key(|merge| (merge.left, merge.right));
        merges.shrink_to_fit();
        Merges(merges)
    }

    /// Forgets the merges whose result is one of `ids` (sorted).
    pub(super) fn forbid(&mut self, ids: &[u32]) {
        self.0
            .retain(|merge| ids.binary_search(&merge.result).is_err());
    }

    fn find(&self, left: u32, right: u32) -> Option<&Merge> {
        let at = self
            .0
            .binary_search_by_key(&(left, right), |merge| (merge.left, merge.right));
        at.ok().map(|at| &self.0[at])
    }

    /// Merges `ids` (one per character or byte) as far as the table goes and appends the result to `out`.
    ///
    /// A heap of candidate pairs makes this O(n log n): text without a boundary between words may be long.
    pub(super) fn apply(&self, ids: &[u32], out: &mut Vec<u32>) {
        let count = ids.len() as u32;
        let mut symbols: Vec<Symbol> = (0..count)
            .zip(ids)
            .map(|(at, &id)| Symbol {
                id,
                previous: if at == 0 { NONE } else { at - 1 },
                next: if at + 1 == count { NONE } else { at + 1 },
            })
            .collect();
        let candidate = |symbols: &[Symbol], at: u32| {
            let symbol = symbols[at as usize];
            let next = symbols.get(symbol.next as usize)?;
            self.find(symbol.id, next.id)
                .map(|merge| Reverse((merge.rank, at, merge.result)))
        };
        let mut heap: BinaryHeap<_> = (0..count)
            .filter_map(|at| candidate(&symbols, at))
            .collect();
        while let Some(Reverse((_, at, result))) = heap.pop() {
            // An entry is stale when one of its two symbols has been merged since.
            let still = candidate(&symbols, at).is_some_and(|Reverse((_, _, now))| now == result);
            if !still {
                continue;
            }
            let next = symbols[at as usize].next;
            let after = symbols[next as usize].next;
            symbols[next as usize].id = NONE;
            symbols[at as usize].id = result;
            symbols[at as usize].next = after;
            if let Some(after) = symbols.get_mut(after as usize) {
                after.previous = at;
            }
            let previous = symbols[at as usize].previous;
            heap.extend(if previous == NONE {
                None
            } else {
                candidate(&symbols, previous)
            });
            heap.extend(candidate(&symbols, at));
        }
        out.extend(
            symbols
                .iter()
                .map(|symbol| symbol.id)
                .filter(|&id| id != NONE),
        );
    }
}
