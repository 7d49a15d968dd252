//! An answer on its way: what was written, what may follow, and the pass that its next tokens are chosen by.

use std::sync::Arc;

use super::answer::{OnPiece, Piece};
use super::calling::{Calling, Place};
use super::error::EngineError;
use super::guesses::{Open, Topic};
use super::{Answer, FinishReason, GroupMemory, Timing};
use crate::model::decoder::kv_cache::KvCache;
use crate::model::grammar::{Constraint, Next, TokenSet};
use crate::model::sampler::Sampler;
use crate::model::stop::{StopReason, StopRules, TextStream};
use crate::model::tokenizer::Tokenizer;

/// Room in an answer for each token, so that it does not grow while it is decoded; no text's tokens are longer on average.
const BYTES_PER_TOKEN: usize = 32;

/// Tokens that went through the layers together: one that was chosen, some that have to follow it, and guesses.
#[derive(Debug, Default)]
pub(super) struct Pass {
    ids: Vec<u32>,
    /// The first ones, which are no guesses.
    certain: usize,
    /// The first ones, which have no hidden state: what follows them has to.
    without_logits: usize,
    /// The one that the answer has come to.
    at: usize,
    /// Tokens of others that stand before it.
    before: usize,
}

impl Pass {
    pub(super) fn new(ids: Vec<u32>, certain: usize, without_logits: usize) -> Pass {
        Pass {
            ids,
            certain,
            without_logits,
            ..Pass::default()
        }
    }

    /// The end of a prompt.
    fn of_prompt() -> Pass {
        Pass::new(vec![0], 1, 0)
    }

    /// Its room, for the next.
    pub(super) fn emptied(&mut self) -> Vec<u32> {
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        ids
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Shares the layers with others, behind so many tokens of theirs, and is cut to `most` tokens; tells how many of them are guesses.
    /// There every token has a hidden state.
    pub(super) fn share(&mut self, before: usize, most: usize) -> usize {
        self.ids.truncate(most);
        (self.without_logits, self.before) = (0, before);
        self.ids.len().saturating_sub(self.certain)
    }

    /// Has the layers for itself, though it was to share them.
    pub(super) fn alone(mut self) -> Pass {
        self.before = 0;
        self
    }

    /// Tokens that are to have logits.
    pub(super) fn logits(&self) -> usize {
        self.ids.len() - self.without_logits
    }

    /// Whether it has the cost of a pass of so many tokens: logits for each.
    pub(super) fn is_plain(&self) -> bool {
        self.without_logits == 0
    }

    /// The hidden state that the next token is chosen by, of those that the decoder has.
    ///
    /// # Panics
    /// If the next token has to follow.
    pub(super) fn row(&self) -> usize {
        self.before + self.at - self.without_logits
    }

    /// Whether the token that was chosen is in the pass already: then the answer comes to it.
    pub(super) fn comes_to(&mut self, id: u32) -> bool {
        let comes = self.ids.get(self.at + 1) == Some(&id);
        self.at += usize::from(comes);
        comes
    }

    /// Takes what the answer has not come to out of the context.
    pub(super) fn take_back(&mut self, cache: &mut KvCache) {
        let wrong = self.ids.len().saturating_sub(self.at + 1);
        if wrong > 0 {
            cache.take_back(wrong);
            self.ids.truncate(self.at + 1);
        }
    }
}

/// The grammar of an answer on its way.
pub(super) struct Constrained {
    pub(super) constraint: Constraint,
    /// The least probability that the model gave to what was allowed, where that is wanted.
    pub(super) confidence: Option<f32>,
    /// What may come next, once it was asked for.
    next: Option<Next>,
}

impl Constrained {
    /// Notes how probable the model found `allowed`.
    pub(super) fn measure(&mut self, allowed: &TokenSet, logits: &[f32]) {
        if let Some(least) = &mut self.confidence {
            *least = least.min(allowed.probability(logits));
        }
    }

    /// What may come next.
    pub(super) fn next(&mut self) -> Result<&Next, EngineError> {
        let next = match self.next.take() {
            Some(next) => next,
            None => self.constraint.allowed()?,
        };
        Ok(self.next.insert(next))
    }

    /// Gives what may come next away.
    pub(super) fn take_next(&mut self) -> Result<Next, EngineError> {
        match self.next.take() {
            Some(next) => Ok(next),
            None => Ok(self.constraint.allowed()?),
        }
    }

    /// Gives it back, as it is the same still.
    pub(super) fn put_back(&mut self, next: Next) {
        self.next = Some(next);
    }

    fn accept(&mut self, id: u32) -> Result<(), EngineError> {
        self.constraint.accept(&[id])?;
        // What has to follow the first of a run still has to.
        self.next = match self.next.take() {
            Some(Next::Forced(mut run)) if run.len() > 1 && run[0] == id => {
                run.remove(0);
                Some(Next::Forced(run))
            }
            _ => None,
        };
        Ok(())
    }
}

/// An answer on its way.
pub(super) struct Writing {
    pub(super) rules: Arc<StopRules>,
    pub(super) sampler: Sampler,
    pub(super) constrained: Option<Constrained>,
    /// The grammar of calls, where any text may come before the first.
    waiting: Option<Constrained>,
    pub(super) calling: Option<Calling>,
    tokenizer: Arc<Tokenizer>,
    /// Without tools, the mark of a call would begin a text that nobody can read.
    pub(super) not_called: Vec<u32>,
    stream: TextStream,
    /// The mark of a thought, as long as the answer may begin with one.
    pub(super) thought: Option<u32>,
    text: String,
    pub(super) written: Vec<u32>,
    pub(super) finish: Option<FinishReason>,
    /// The last token, where it is said in the conversation and not in the context.
    pub(super) pending: Option<u32>,
    /// What its next token is chosen by.
    pub(super) pass: Pass,
    /// What was guessed and has not come yet.
    pub(super) open: Open,
    pub(super) topic: Topic,
}

impl Writing {
    /// Nothing yet; the constraint comes with whether its confidence is wanted.
    pub(super) fn new(
        tokenizer: Arc<Tokenizer>,
        rules: StopRules,
        sampler: Sampler,
        constraint: Option<(Constraint, bool)>,
        calling: Option<Calling>,
        context: usize,
    ) -> Writing {
        let rules = Arc::new(rules);
        let constrained = constraint.map(|(constraint, confidence)| Constrained {
            constraint,
            confidence: confidence.then_some(1.0),
            next: None,
        });
        let (constrained, waiting) = match &calling {
            Some(calling) if calling.waits() => (None, constrained),
            _ => (constrained, None),
        };
        let not_called = match (&calling, tokenizer.control().tools) {
            (None, Some(tools)) => vec![tools.call[0]],
            _ => Vec::new(),
        };
        let stream = TextStream::new(Arc::clone(&tokenizer), Arc::clone(&rules));
        let room = rules.max_tokens.min(context);
        Writing {
            rules,
            sampler,
            constrained,
            waiting,
            calling,
            tokenizer,
            not_called,
            finish: stream.stopped().map(FinishReason::from),
            stream,
            thought: None,
            text: String::with_capacity(room * BYTES_PER_TOKEN),
            written: Vec::with_capacity(room),
            pending: None,
            pass: Pass::of_prompt(),
            open: Open::default(),
            topic: Topic::default(),
        }
    }

    /// Takes the next token.
    pub(super) fn take(&mut self, id: u32, on_piece: OnPiece<'_>) -> Result<(), EngineError> {
        let was_thinking = self.stream.is_thinking();
        let place = match &mut self.calling {
            Some(calling) if !was_thinking => calling.place(&self.tokenizer, id),
            _ => Place::Text,
        };
        match place {
            Place::Call => self.constrained = self.waiting.take().or(self.constrained.take()),
            Place::FreeText => self.constrained = None,
            Place::Text => {}
        }
        let (piece, stopped) = match place {
            Place::Call => ("", self.stream.push_unseen(id)),
            Place::FreeText | Place::Text => self.stream.push(id),
        };
        self.text.push_str(piece);
        self.finish = stopped.map(FinishReason::from);
        let mut goes_on = piece.is_empty() || on_piece(Piece::Text(piece)).is_continue();
        if was_thinking && let Some(thoughts) = self.stream.new_thoughts() {
            goes_on &= on_piece(Piece::Thoughts(&thoughts)).is_continue();
        }
        if !goes_on {
            self.finish = self.finish.or(Some(FinishReason::Cancelled));
        }
        let ended = stopped == Some(StopReason::Token);
        self.pending = (!ended).then_some(id);
        if !ended {
            self.written.push(id);
        }
        if let Some(constrained) = &mut self.constrained
            && !was_thinking
            && !self.stream.is_thinking()
        {
            if !ended {
                constrained.accept(id)?;
            }
            if constrained.constraint.is_complete() {
                self.finish = self.finish.or(Some(FinishReason::Stop));
            }
        }
        Ok(())
    }

    /// Whether the next token is a part of a thought, or its end.
    pub(super) fn is_thinking(&self) -> bool {
        self.stream.is_thinking()
    }

    /// The grammar, where it binds the next token: thoughts are free.
    pub(super) fn binding(&mut self) -> Option<&mut Constrained> {
        let is_thinking = self.stream.is_thinking();
        self.constrained.as_mut().filter(|_| !is_thinking)
    }

    /// Tokens that may still come.
    pub(super) fn room(&self) -> usize {
        self.rules.max_tokens.saturating_sub(self.stream.tokens())
    }

    /// Whether it ended by itself, and so may come again.
    pub(super) fn is_whole(&self) -> bool {
        self.finish == Some(FinishReason::Stop)
    }

    /// The answer, once it has ended.
    pub(super) fn answer(
        mut self,
        on_piece: OnPiece<'_>,
        matformer: String,
        mut timing: Timing,
        memory: Vec<GroupMemory>,
    ) -> Answer {
        let rest = self.stream.finish();
        if !rest.is_empty() {
            self.text.push_str(rest);
            // The answer has ended; there is nothing left to break off.
            on_piece(Piece::Text(rest)).is_break();
        }
        let calls = self.calling.as_ref();
        let calls = calls.map_or_else(Vec::new, |calling| calling.calls(&self.tokenizer));
        if let Some(calling) = self.calling.filter(|_| calls.is_empty()) {
            let rest = calling.text(&self.tokenizer);
            self.text.push_str(&rest);
            if !rest.is_empty() {
                on_piece(Piece::Text(&rest)).is_break();
            }
        }
        timing.tokens = self.stream.tokens();
        Answer {
            thoughts: self.stream.thoughts(),
            text: self.text,
            calls,
            finish: self.finish.unwrap_or(FinishReason::Stop),
            matformer,
            grammar_confidence: self
                .constrained
                .and_then(|constrained| constrained.confidence),
            resumed: None,
            timing,
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_was_to_be_shared_may_be_taken_alone() {
        let mut pass = Pass::new(vec![1, 2, 3], 2, 0);
        assert_eq!((pass.share(4, 8), pass.row()), (1, 4));
        assert_eq!(pass.alone().row(), 0);
    }
}
