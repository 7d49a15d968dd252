//! Whose tokens pass the layers together: those of one context, or of several.

use super::kv_cache::KvCache;

/// A context, and how many tokens of a pass are its: they stand behind those of the lanes before. What reads weights sees the tokens of all
/// lanes as rows alike; positions, keys and values are each lane's own.
#[derive(Debug)]
pub struct Lane<'a> {
    /// The context.
    pub cache: &'a mut KvCache,
    /// Its tokens, one at least.
    pub tokens: usize,
}

/// Tokens of all lanes.
pub(super) fn tokens(lanes: &[Lane<'_>]) -> usize {
    lanes.iter().map(|lane| lane.tokens).sum()
}
