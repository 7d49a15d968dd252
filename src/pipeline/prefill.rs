//! A prompt on its way into a conversation: its beginning perhaps from the prefix cache, the rest chunk by chunk.

use std::time::Instant;

use super::answer::milliseconds;
use super::engine::{Conversation, Engine, GiveWay};
use super::error::EngineError;
use super::prefix_cache::PrefixCache;
use crate::model::decoder::{Tokens, no_probe};
use crate::model::prompt::{Message, Role, system_message};

impl Engine {
    /// Tokens at the beginning of a prompt that are the same whatever is asked, where they are worth keeping; never all of it.
    pub(super) fn fixed_tokens(
        &self,
        messages: &[Message],
        thinking: bool,
        ids: &[u32],
    ) -> Result<usize, EngineError> {
        let Some(least) = self.prefix_cache.as_ref().map(PrefixCache::min_tokens) else {
            return Ok(0);
        };
        let Some(system) = system_message(messages).filter(|_| ids.len() > least) else {
            return Ok(0);
        };
        // Where the instructions end, tokens may join with what follows: two prompts that go on differently tell.
        let mut fixed = ids.len() - 1;
        for other in ["a", "1"] {
            let other = Message::text(Role::User, other);
            let other = self.render(&[system.clone(), other], thinking)?.ids;
            let same = ids.iter().zip(&other).take_while(|(a, b)| a == b).count();
            fixed = fixed.min(same);
        }
        // Fewer are computed with the rest.
        Ok(if fixed < least { 0 } else { fixed })
    }

    /// Takes the beginning of a prompt into an empty conversation: from the prefix cache, or computed, and then kept there.
    /// Text only.
    pub(super) fn prefill_fixed(
        &mut self,
        conversation: &mut Conversation,
        ids: &[u32],
        give_way: GiveWay<'_>,
    ) -> Result<(), EngineError> {
        let kv_layers = self.spec().own_kv_layers();
        let kept = self
            .prefix_cache
            .as_ref()
            .filter(|cache| ids.len() >= cache.min_tokens())
            .map(|cache| cache.key(&conversation.slice, kv_layers, ids));
        if let (Some(cache), Some(key)) = (&self.prefix_cache, &kept) {
            let start = Instant::now();
            if cache.load(key, &conversation.slice, &mut conversation.cache) {
                conversation.timing.prefill_ms += milliseconds(start);
                conversation.timing.prompt_tokens += ids.len();
                conversation.timing.cached_tokens += ids.len();
                return Ok(());
            }
        }
        if !ids.is_empty() {
            self.prefill(conversation, ids, &[], give_way)?;
        }
        if let (Some(cache), Some(key)) = (&mut self.prefix_cache, &kept) {
            cache.keep(key, &conversation.cache);
        }
        Ok(())
    }

    /// Takes tokens into a conversation; `rows` are the embeddings of those beyond the text vocabulary.
    pub(super) fn prefill(
        &mut self,
        conversation: &mut Conversation,
        ids: &[u32],
        rows: &[f32],
        give_way: GiveWay<'_>,
    ) -> Result<(), EngineError> {
        let mut start = Instant::now();
        let Conversation {
            cache,
            slice,
            timing,
            ..
        } = conversation;
        let tokens = Tokens {
            media_rows: rows,
            ..Tokens::new(ids, slice)
        };
        let mut prompt = self.decoder.start(cache, tokens)?;
        while self.decoder.take_chunk(
            &self.pool,
            cache,
            &mut prompt,
            &mut no_probe,
            &mut *self.on_step,
        )? {
            start += self.pause(give_way);
        }
        timing.prefill_ms += milliseconds(start);
        timing.prompt_tokens += ids.len();
        Ok(())
    }
}
