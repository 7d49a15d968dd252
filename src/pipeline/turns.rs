//! Conversations from one turn to the next: taken up where they were left, and kept.

use super::Answer;
use super::conversation::Conversation;
use super::conversations::Kept;
use super::engine::Engine;
use super::error::EngineError;
use crate::model::decoder::kv_cache::KvSnapshot;
use crate::model::prompt::{Message, Role};

impl Engine {
    /// Tokens of a conversation that is kept; 0 where none of that name is.
    pub fn kept_tokens(&mut self, name: &str) -> usize {
        let kept = self.conversations.get(name);
        kept.map_or(0, |kept| kept.snapshot.position() + kept.pending.len())
    }

    /// Forgets a conversation, and gives its memory back.
    pub fn forget(&mut self, name: &str) {
        self.conversations.forget(name);
    }

    /// Takes up a kept conversation, with its instructions; gives the ids that go on with it, or nothing where it has to begin
    /// anew.
    pub(super) fn go_on(
        &mut self,
        name: &str,
        system: &mut Option<Message>,
        thinking: Option<bool>,
        messages: &[Message],
        conversation: &mut Conversation,
    ) -> Result<Option<Vec<u32>>, EngineError> {
        // Who tells what was said before begins with that.
        let [user] = &messages[usize::from(system.is_some())..] else {
            return Ok(None);
        };
        if user.role != Role::User {
            return Ok(None);
        }
        let Some(kept) = self.conversations.get(name) else {
            return Ok(None);
        };
        let mut ids = kept.pending.clone();
        let template = self.architecture.template();
        ids.extend(template.render_next(&self.tokenizer, &user.content)?.ids);
        let full = kept.snapshot.position() + ids.len() > conversation.cache.context();
        let differs = (system.is_some() && *system != kept.system)
            || thinking.is_some_and(|thinking| thinking != kept.thinking);
        if full || differs {
            return Ok(None);
        }
        conversation.cache.restore(&kept.snapshot);
        conversation.thinking = kept.thinking;
        system.clone_from(&kept.system);
        Ok(Some(ids))
    }

    /// Keeps a conversation until its next turn. The user's next message will stand behind an answer without thoughts: where there were
    /// any, the answer's words are taken anew behind `without_thoughts`, the keys and values from before it.
    pub(super) fn keep(
        &mut self,
        name: &str,
        conversation: Conversation,
        system: Option<Message>,
        answer: &Answer,
        without_thoughts: Option<KvSnapshot>,
    ) {
        let (snapshot, pending) = match without_thoughts {
            Some(snapshot) if answer.thoughts.is_some() => {
                (snapshot, self.tokenizer.encode_text(answer.text.trim()))
            }
            _ => (
                conversation.cache.snapshot(),
                conversation.pending.into_iter().collect(),
            ),
        };
        let kept = Kept {
            snapshot,
            pending,
            system,
            thinking: conversation.thinking,
        };
        self.conversations.keep(name, kept);
    }
}
