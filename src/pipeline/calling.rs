//! Calls of tools on their way through one answer: where one begins, and what it is.

use super::engine::{Conversation, Engine};
use super::error::EngineError;
use super::prefixes::{Known, Why, widths};
use super::{Answer, Generation};
use crate::model::grammar::Grammar;
use crate::model::prompt::{Message, Part, Role};
use crate::model::tokenizer::Tokenizer;
use crate::model::tools::{self, CallSyntax, Tool, ToolCall, read_calls};

/// Where a token of an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the text.
    Text,
    /// To the text, which is free from here on.
    FreeText,
    /// To a call: it is no text.
    Call,
}

/// The calls of an answer.
pub(super) struct Calling {
    syntax: CallSyntax,
    /// The answer is a call.
    must: bool,
    /// A text has a schema.
    text_is_bound: bool,
    /// Nothing has come yet.
    is_first: bool,
    /// Tokens from the first call on.
    ids: Vec<u32>,
    /// Tokens before it.
    before: usize,
}

/// What a call begins with in JSON.
const BRACE: u8 = b'{';

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
        Ok(Some(Calling {
            syntax: self.architecture.template().call_syntax(&self.tokenizer)?,
            must: tools.rules.must,
            text_is_bound: generation.grammar.is_some(),
            is_first: true,
            ids: Vec::new(),
            before: 0,
        }))
    }
}

impl Engine {
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
}

impl Calling {
    /// Whether text is free, until a token begins a call.
    pub(super) fn waits(&self) -> bool {
        matches!(self.syntax, CallSyntax::Tokens(_)) && !self.must && !self.text_is_bound
    }

    /// Where the next token belongs, which is no part of a thought.
    pub(super) fn place(&mut self, tokenizer: &Tokenizer, id: u32) -> Place {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let begins = match self.syntax {
            CallSyntax::Tokens(tokens) => id == tokens.call[0],
            CallSyntax::Json => {
                let bytes = tokenizer.token_bytes(id).unwrap_or_default();
                is_first && bytes.first() == Some(&BRACE)
            }
        };
        let goes_on = !self.ids.is_empty();
        if begins || goes_on {
            self.ids.push(id);
            return Place::Call;
        }
        self.before += 1;
        match self.syntax {
            CallSyntax::Json if is_first && !self.must && !self.text_is_bound => Place::FreeText,
            _ => Place::Text,
        }
    }

    /// The whole calls.
    pub(super) fn calls(&self, tokenizer: &Tokenizer) -> Vec<ToolCall> {
        read_calls(self.syntax, tokenizer, &self.ids)
    }

    /// The tokens of an answer that is calls and nothing else.
    pub(super) fn only_calls(&self) -> Option<Vec<u32>> {
        (self.before == 0 && !self.ids.is_empty()).then(|| self.ids.clone())
    }

    /// What began as a call does and is none: a text that is JSON, too.
    pub(super) fn text(&self, tokenizer: &Tokenizer) -> String {
        let mut bytes = Vec::new();
        if self.syntax == CallSyntax::Json && self.text_is_bound && !self.must {
            for &id in &self.ids {
                tokenizer.append_token_bytes(id, &mut bytes);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
