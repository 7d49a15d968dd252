//! What goes on from an answer: calls and the round with what came of them, and the next turn of a conversation.

use super::answering::After;
use super::calling::Calling;
use super::conversation::Conversation;
use super::engine::Engine;
use super::error::EngineError;
use super::prefixes::{Known, Why, widths};
use super::{Answer, FinishReason, Generation};
use crate::model::grammar::Grammar;
use crate::model::prompt::{Message, Part, Role};
use crate::model::tools::{self, Tool};

impl Engine {
    /// The grammar of an answer, where it has one: of its calls, of its text, or of either.
    pub(super) fn answer_grammar(
        &self,
        generation: &Generation,
    ) -> Result<Option<Grammar>, EngineError> {
        let Some(tools) = &generation.tools else {
            return Ok(generation.grammar.clone());
        };
        let syntax = self.architecture.template().call_syntax(&self.tokenizer)?;
        let text = generation.grammar.as_ref().and_then(Grammar::schema);
        let grammar = tools::grammar(syntax, &tools.callable, tools.rules, text.as_ref())?;
        Ok(Some(grammar))
    }

    /// The calls of an answer at its beginning, where there may be any.
    pub(super) fn calling(&self, generation: &Generation) -> Result<Option<Calling>, EngineError> {
        let Some(tools) = &generation.tools else {
            return Ok(None);
        };
        let syntax = self.architecture.template().call_syntax(&self.tokenizer)?;
        let text_is_bound = generation.grammar.is_some();
        Ok(Some(Calling::new(syntax, tools.rules.must, text_is_bound)))
    }

    /// Keeps what a prompt and the calls that answered it left, for the round with what came of them: there they are written anew, by
    /// the template, and where that gives other tokens nothing is kept.
    pub(super) fn keep_round(
        &mut self,
        conversation: &Conversation,
        prompt: Known<'_>,
        messages: &[Message],
        tools: &[Tool],
        answer: &Answer,
    ) -> Result<(), EngineError> {
        let Some(called) = conversation
            .called
            .as_ref()
            .filter(|_| self.prefixes.is_on())
        else {
            return Ok(());
        };
        if answer.calls.is_empty() || answer.thoughts.is_some() {
            return Ok(());
        }
        let calls = answer.calls.iter().cloned().map(Part::ToolCall);
        let turn = Message {
            role: Role::Assistant,
            content: calls.collect(),
        };
        let next: Vec<Message> = messages.iter().cloned().chain([turn]).collect();
        let next = self.render(&next, conversation.thinking, tools)?.ids;
        let mut ids = [prompt.ids, called].concat();
        ids.truncate(conversation.cache.position());
        if ids.len() < prompt.ids.len() || !next.starts_with(&ids) {
            return Ok(());
        }
        let spec = self.architecture.spec();
        let takes_row = |id: u32| spec.takes_row(id);
        let tokens = self
            .prefixes
            .tokens(&ids, prompt.rows, spec.hidden_size, takes_row);
        let widths = widths(&conversation.slice, spec.own_kv_layers());
        self.prefixes.outgrow(&widths, &tokens, prompt.fixed);
        self.prefixes
            .keep(widths, &tokens, &conversation.cache, Why::Turn);
        Ok(())
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
