//! Calls of tools on their way through one answer: where one begins, and what it is.

use crate::model::tokenizer::Tokenizer;
use crate::model::tools::{CallSyntax, ToolCall, read_calls};

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

impl Calling {
    /// Nothing yet; whether the answer is a call, and whether a text has a schema.
    pub(super) fn new(syntax: CallSyntax, must: bool, text_is_bound: bool) -> Calling {
        Calling {
            syntax,
            must,
            text_is_bound,
            is_first: true,
            ids: Vec::new(),
            before: 0,
        }
    }

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
