//! A prompt on its way into a conversation: its beginning perhaps from the prefix cache, the rest chunk by chunk.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::Request;
use super::answer::milliseconds;
use super::answering::{After, Answering};
use super::conversation::Conversation;
use super::dialogue::written;
use super::engine::{Engine, GiveWay};
use super::error::EngineError;
use super::prefixes::{Known, Token, Why, widths};
use crate::model::decoder::{Slice, Tokens, no_probe};
use crate::model::prompt::{self, Message, Role, system_message};
use crate::model::tools::Tool;

/// Parts of what is the same whatever is asked, each with a place at its end: what changes somewhere in it is read from that part on.
const PARTS: usize = 4;

/// Tokens of such a part, at least.
const PART: usize = 96;

impl Engine {
    /// Takes the prompt of a request: what is left is its answer.
    pub(super) fn begin(
        &mut self,
        request: &Request,
        give_way: GiveWay<'_>,
    ) -> Result<Answering, EngineError> {
        let mut conversation = self.conversation(request.matformer.as_deref())?;
        conversation.cue = self.cue(request);
        let offered = request.generation.offered();
        self.check(request.thinking == Some(true), offered)?;
        let mut rows = Vec::new();
        let messages = written(&request.messages, |media| {
            self.encode(media, &mut rows, &mut conversation.timing, give_way)
        })?;
        let mut system = prompt::system_message(&messages).cloned();
        let mut next = None;
        if let Some(name) = &request.conversation {
            let thinking = request.thinking;
            next = self.go_on(name, &mut system, thinking, &messages, &mut conversation)?;
        }
        let mut round = None;
        match next {
            Some(ids) => {
                let rows = self.media_rows(&ids, &rows);
                self.prefill(&mut conversation, &ids, &rows, give_way)?;
            }
            None => {
                conversation.thinking = request.thinking == Some(true);
                let ids = self.render(&messages, conversation.thinking, offered)?.ids;
                let rows = self.media_rows(&ids, &rows);
                let fixed = self.fixed_tokens(&messages, conversation.thinking, offered, &ids)?;
                let prompt = Known {
                    ids: &ids,
                    rows: &rows,
                    fixed,
                    goes_on: !offered.is_empty()
                        || messages
                            .iter()
                            .any(|message| message.role == Role::Assistant),
                    calls: !offered.is_empty(),
                    more_follows: false,
                };
                self.prefill_known(&mut conversation, prompt, give_way)?;
                round = Some((ids, rows, fixed));
            }
        }
        let keeps = request.conversation.is_some();
        let without_thoughts =
            (keeps && conversation.thinking).then(|| conversation.cache.snapshot());
        let mut answering = self.begin_answer(conversation, &request.generation)?;
        answering.after = Some(After {
            round,
            offered: offered.to_vec(),
            messages,
            name: request.conversation.clone(),
            system,
            without_thoughts,
        });
        Ok(answering)
    }

    /// Tokens at the beginning of a prompt that are the same whatever is asked, where they are worth keeping; never all of it.
    pub(super) fn fixed_tokens(
        &self,
        messages: &[Message],
        thinking: bool,
        tools: &[Tool],
        ids: &[u32],
    ) -> Result<usize, EngineError> {
        if self.prefix_cache.is_none() && !self.prefixes.is_on() {
            return Ok(0);
        }
        let least = self.options.prefix_cache.min_tokens.max(1);
        let system = system_message(messages);
        if ids.len() <= least || (system.is_none() && tools.is_empty()) {
            return Ok(0);
        }
        // Where the instructions end, tokens may join with what follows: two prompts that go on differently tell.
        let mut fixed = ids.len() - 1;
        for other in ["a", "1"] {
            let other = Message::text(Role::User, other);
            let other: Vec<Message> = system.into_iter().cloned().chain([other]).collect();
            let other = self.render(&other, thinking, tools)?.ids;
            let same = ids.iter().zip(&other).take_while(|(a, b)| a == b).count();
            fixed = fixed.min(same);
        }
        // Fewer are computed with the rest.
        Ok(if fixed < least { 0 } else { fixed })
    }

    /// Takes a prompt into an empty conversation, all but what is kept of it: the longest beginning that came before, from memory or disk.
    /// What may come again is kept on the way.
    pub(super) fn prefill_known(
        &mut self,
        conversation: &mut Conversation,
        prompt: Known<'_>,
        give_way: GiveWay<'_>,
    ) -> Result<(), EngineError> {
        let Known { ids, rows, .. } = prompt;
        let architecture = Arc::clone(&self.architecture);
        let spec = architecture.spec();
        let (kv_layers, width) = (spec.own_kv_layers(), spec.hidden_size);
        let takes_row = |id: u32| spec.takes_row(id);
        let text = ids.iter().take_while(|&&id| !takes_row(id)).count();
        let rows_of = |ids: &[u32]| ids.iter().filter(|&&id| takes_row(id)).count() * width;
        let tokens = match self.prefixes.is_on() {
            true => self.prefixes.tokens(ids, rows, width, takes_row),
            false => Vec::new(),
        };
        let most = prompt.most();
        let start = Instant::now();
        let (slice, cache) = (&conversation.slice, &mut conversation.cache);
        let found =
            self.prefixes
                .take_over(slice, kv_layers, &tokens[..most.min(tokens.len())], cache);
        let mut at = found.as_ref().map_or(0, |found| found.length);
        if let Some(disk) = &self.prefix_cache {
            let ids = &ids[..text.min(most)];
            at = disk
                .take_over(slice, kv_layers, ids, at, cache)
                .unwrap_or(at);
        }
        // What was in memory when it came for the first time is worth a file when it comes again; but a call of tools goes on once.
        let is_round = prompt.calls && at > prompt.fixed;
        if let (Some(found), Some(disk)) = (found, &mut self.prefix_cache)
            && found.first
            && !is_round
            && at == found.length
            && (disk.min_tokens()..=text).contains(&at)
        {
            let key = disk.key(slice, kv_layers, &ids[..at]);
            disk.keep(&key, cache, true);
        }
        if at > 0 {
            conversation.timing.prefill_ms += milliseconds(start);
            conversation.timing.prompt_tokens += at;
            conversation.timing.cached_tokens += at;
            conversation.prompt.extend(&ids[..at]);
        }
        let mut row = rows_of(&ids[..at]);
        for (place, again) in self.places(&conversation.slice, &prompt, &tokens, at) {
            let more = rows_of(&ids[at..place]);
            self.prefill(
                conversation,
                &ids[at..place],
                &rows[row..row + more],
                give_way,
            )?;
            (at, row) = (place, row + more);
            let (slice, cache) = (&conversation.slice, &conversation.cache);
            if !tokens.is_empty() {
                let why = match at.cmp(&prompt.fixed) {
                    Ordering::Less if !again => Why::Spare,
                    Ordering::Equal => Why::Instructions,
                    _ => Why::Turn,
                };
                let widths = widths(slice, kv_layers);
                self.prefixes.keep(widths, &tokens[..at], cache, why);
            }
            if let Some(disk) = &mut self.prefix_cache
                && (disk.min_tokens()..=text).contains(&at)
                && (again || at == prompt.fixed)
            {
                let key = disk.key(slice, kv_layers, &ids[..at]);
                disk.keep(&key, cache, again);
            }
        }
        if at < ids.len() {
            self.prefill(conversation, &ids[at..], &rows[row..], give_way)?;
        }
        Ok(())
    }

    /// Where keys and values are kept on the way, in order, from behind `from` on; and whether what stands before came before.
    fn places(
        &mut self,
        slice: &Slice,
        prompt: &Known<'_>,
        tokens: &[Token],
        from: usize,
    ) -> Vec<(usize, bool)> {
        let mut places = Vec::new();
        let least = self.options.prefix_cache.min_tokens.max(1);
        if prompt.fixed >= least {
            places.push((prompt.fixed, false));
        }
        if self.prefixes.is_on() {
            // Where a long list changes, such as that of a house, no more of what stands before the change is read anew than a part.
            let part = (prompt.fixed / PARTS).max(PART);
            let ends = (1..PARTS).map(|n| n * part);
            let ends = ends.filter(|end| *end < prompt.fixed);
            places.extend(ends.map(|end| (end, false)));
            let turn = self.tokenizer.control().start_of_turn;
            let turns = prompt.ids.iter().enumerate().filter(|(_, id)| **id == turn);
            let turns: Vec<usize> = turns.map(|(at, _)| at).collect();
            let widths = widths(slice, self.spec().own_kv_layers());
            let parting = self.prefixes.parting(widths, tokens, &turns, from, least);
            places.extend(parting.map(|at| (at, true)));
            let last = turns
                .last()
                .filter(|last| prompt.goes_on && **last >= from + least);
            places.extend(last.map(|last| (*last, false)));
        }
        places.retain(|(place, _)| *place > from && *place <= prompt.most());
        places.sort_unstable();
        places.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            earlier.1 |= same && later.1;
            same
        });
        places
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
            prompt: taken,
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
        self.multiplied = 0..0;
        timing.prefill_ms += milliseconds(start);
        timing.prompt_tokens += ids.len();
        taken.extend(ids);
        Ok(())
    }
}
