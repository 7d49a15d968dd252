//! An answer on its way, with the conversation that it stands in and what becomes of that.

use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::milliseconds;
use super::dialogue::written;
use super::engine::{Conversation, Engine, GiveWay};
use super::error::EngineError;
use super::prefixes::Known;
use super::writing::{Pass, Writing};
use super::{Answer, FinishReason, Request};
use crate::model::decoder::kv_cache::KvSnapshot;
use crate::model::prompt::{self, Message, Role};
use crate::model::tools::Tool;

/// Gets a text as it comes, and may end it.
pub(super) type OnText<'a> = &'a mut dyn FnMut(&str) -> ControlFlow<()>;

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

    /// Keeps what may go on from an answer: a round of calls, and a conversation that has a name.
    pub(super) fn keep_what_follows(
        &mut self,
        conversation: Conversation,
        after: After,
        answer: &mut Answer,
    ) -> Result<(), EngineError> {
        let resumed = after.round.is_none();
        if let Some((ids, rows, fixed)) = &after.round {
            let prompt = Known {
                ids,
                rows,
                fixed: *fixed,
                goes_on: true,
                calls: true,
                more_follows: true,
            };
            let (messages, offered) = (&after.messages, &after.offered);
            self.keep_round(&conversation, prompt, messages, offered, answer)?;
        }
        if let Some(name) = &after.name {
            answer.resumed = Some(resumed);
            // A turn that was broken off counts as not said.
            if answer.finish != FinishReason::Cancelled {
                let without_thoughts = after.without_thoughts;
                self.keep(name, conversation, after.system, answer, without_thoughts);
            }
        }
        Ok(())
    }
}
