//! An answer on its way, with the conversation that it stands in and what becomes of that.

use std::time::Instant;

use super::answer::milliseconds;
use super::conversation::Conversation;
use super::writing::{Pass, Writing};
use crate::model::decoder::kv_cache::KvSnapshot;
use crate::model::prompt::Message;
use crate::model::tools::Tool;

/// An answer on its way. Between two passes nothing of it is in the decoder: another may be served there.
pub(super) struct Answering {
    pub(super) conversation: Conversation,
    pub(super) writing: Writing,
    /// The pass that comes next; nothing once it has ended.
    pub(super) next: Option<Pass>,
    pub(super) after: Option<After>,
    /// The pass of the engine that was its last.
    pub(super) served: u64,
}

/// What is kept of an answer to a request.
pub(super) struct After {
    /// The prompt, its media's rows, and how many tokens of it are the same whatever is asked; nothing where a conversation went on.
    pub(super) round: Option<(Vec<u32>, Vec<f32>, usize)>,
    pub(super) messages: Vec<Message>,
    pub(super) offered: Vec<Tool>,
    /// The name of the conversation.
    pub(super) name: Option<String>,
    pub(super) system: Option<Message>,
    /// Keys and values from before the answer: the user's next message will stand behind an answer without thoughts.
    pub(super) without_thoughts: Option<KvSnapshot>,
}

impl Answering {
    pub(super) fn new(conversation: Conversation, writing: Writing) -> Answering {
        Answering {
            conversation,
            writing,
            next: None,
            after: None,
            served: 0,
        }
    }

    pub(super) fn add_time(&mut self, since: Instant) {
        self.conversation.timing.decode_ms += milliseconds(since);
    }

    /// A pass of it has gone through the layers.
    pub(super) fn passed(&mut self, pass: Pass) {
        self.conversation.timing.passes += 1;
        (self.writing.pass, self.writing.pending) = (pass, None);
    }
}
