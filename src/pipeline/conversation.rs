//! A conversation on its way through the model.

use super::Timing;
use crate::model::cue::Cue;
use crate::model::decoder::Slice;
use crate::model::decoder::kv_cache::KvCache;

/// Tokens taken so far, and through which slice.
#[derive(Clone)]
pub(super) struct Conversation {
    pub(super) cache: KvCache,
    pub(super) slice: Slice,
    /// Whether the model was asked to think before it answers.
    pub(super) thinking: bool,
    /// The prompt, soft tokens included; of a conversation that goes on, what was added to it.
    pub(super) prompt: Vec<u32>,
    /// The token of the answer that is not taken yet.
    pub(super) pending: Option<u32>,
    /// What a script has for the answer, in tests.
    pub(super) cue: Option<Cue>,
    /// The tokens of the answer, where it is calls and nothing else.
    pub(super) called: Option<Vec<u32>>,
    pub(super) timing: Timing,
}
