//! Conversations that may go on: their keys and values by name, the most recent ones within a bound of memory.

use std::collections::VecDeque;

use crate::model::decoder::kv_cache::KvSnapshot;
use crate::model::prompt::Message;

/// What is kept of a conversation.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) snapshot: KvSnapshot,
    /// Tokens of the last answer that are not in the snapshot: the last one, or all where it had thoughts, which are left out.
    pub(super) pending: Vec<u32>,
    /// Instructions before the conversation.
    pub(super) system: Option<Message>,
    /// Whether the model thinks in it.
    pub(super) thinking: bool,
}

/// Kept conversations, the least recently used first.
#[derive(Debug)]
pub(super) struct Conversations {
    kept: VecDeque<(String, Kept)>,
    limit_bytes: u64,
}

impl Conversations {
    pub(super) fn new(limit_bytes: u64) -> Conversations {
        Conversations {
            kept: VecDeque::new(),
            limit_bytes,
        }
    }

    /// The conversation of that name, which is now the most recently used one.
    pub(super) fn get(&mut self, name: &str) -> Option<&Kept> {
        let at = self.kept.iter().position(|(kept, _)| kept == name)?;
        let found = self.kept.remove(at)?;
        self.kept.push_back(found);
        self.kept.back().map(|(_, kept)| kept)
    }

    /// Keeps a conversation in place of what had its name, and forgets the least recently used ones that are too much then,
    /// itself among them.
    pub(super) fn keep(&mut self, name: &str, kept: Kept) {
        self.forget(name);
        self.kept.push_back((name.to_owned(), kept));
        while self.bytes() > self.limit_bytes {
            self.kept.pop_front();
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.kept.retain(|(other, _)| other != name);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |(name, kept): &(String, Kept)| {
            let system = kept.system.as_ref().map_or(0, Message::text_bytes);
            let pending = size_of_val(&kept.pending[..]);
            (name.len() + system + pending + kept.snapshot.bytes()) as u64
        };
        self.kept.iter().map(bytes).sum()
    }
}
