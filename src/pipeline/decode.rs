//! From the last token of a prompt to the last token of an answer.

use std::ops::ControlFlow;
use std::time::Instant;

use super::engine::{Conversation, Engine, milliseconds};
use super::error::EngineError;
use super::{Answer, Generation};
use crate::model::grammar::{Constraint, Next, TokenSet};
use crate::model::sampler::Sampler;
use crate::model::stop::{StopReason, StopRules, TextStream};
use crate::model::text::no_probe;

/// Room in an answer for each token, so that it does not grow while it is decoded; no text's tokens are longer on average.
const BYTES_PER_TOKEN: usize = 32;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or the grammar allowed nothing more.
    Stop,
    /// A stop string came up.
    StopString,
    /// `max_tokens` were given.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller ended it.
    Cancelled,
}

impl From<StopReason> for FinishReason {
    fn from(reason: StopReason) -> FinishReason {
        match reason {
            StopReason::Token => FinishReason::Stop,
            StopReason::String => FinishReason::StopString,
            StopReason::MaxTokens => FinishReason::MaxTokens,
        }
    }
}

/// The grammar of an answer, and how far the model agreed with it so far.
struct Constrained {
    constraint: Constraint,
    confidence: Option<f32>,
}

impl Constrained {
    /// Notes how probable the model found `allowed`.
    fn measure(&mut self, allowed: &TokenSet, logits: &[f32]) {
        if let Some(least) = &mut self.confidence {
            *least = least.min(allowed.probability(logits));
        }
    }
}

impl Engine {
    /// Decodes the answer to what was prefilled.
    pub(super) fn decode(
        &mut self,
        conversation: &mut Conversation,
        generation: &Generation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, EngineError> {
        let start = Instant::now();
        let mut constrained = match &generation.grammar {
            None => None,
            Some(grammar) => Some(Constrained {
                constraint: self.constraint(grammar)?,
                confidence: grammar.confidence().then_some(1.0),
            }),
        };
        let rules = StopRules {
            tokens: self.stop_tokens(),
            strings: generation.stop.clone(),
            max_tokens: generation.max_tokens,
        };
        let mut sampler = Sampler::new(
            generation.sampling,
            self.text.text_vocab_size(),
            generation.seed,
        )?;
        let tokenizer = self.shared_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &rules);
        let context = conversation.cache.context();
        let room = generation.max_tokens.min(context) * BYTES_PER_TOKEN;
        let mut text = String::with_capacity(room);
        let mut finish = stream.stopped().map(FinishReason::from);
        // Tokens that are forced and not taken yet, and the one that was sampled.
        let mut forced = std::collections::VecDeque::new();
        while finish.is_none() {
            if (self.on_step)().is_break() {
                finish = Some(FinishReason::Cancelled);
                break;
            }
            let id = match &mut constrained {
                None => {
                    self.logits_of_last();
                    sampler.sample(&mut self.logits)?
                }
                Some(constrained) => {
                    if forced.is_empty() {
                        match constrained.constraint.next()? {
                            Next::Forced(ids) => forced.extend(ids),
                            Next::Among(allowed) => {
                                self.logits_of_last();
                                constrained.measure(&allowed, &self.logits);
                                allowed.mask(&mut self.logits);
                            }
                        }
                    }
                    let id = match forced.pop_front() {
                        Some(id) => {
                            if constrained.confidence.is_some() {
                                self.logits_of_last();
                                let only = TokenSet::of(&[id], self.logits.len());
                                constrained.measure(&only, &self.logits);
                            }
                            sampler.accept(&[id]);
                            id
                        }
                        None => sampler.sample(&mut self.logits)?,
                    };
                    if !rules.tokens.contains(&id) {
                        constrained.constraint.accept(&[id])?;
                    }
                    id
                }
            };
            let (piece, stopped) = stream.push(id);
            text.push_str(piece);
            finish = stopped.map(FinishReason::from);
            if !piece.is_empty() && on_text(piece).is_break() {
                finish = finish.or(Some(FinishReason::Cancelled));
            }
            if let Some(constrained) = &constrained
                && constrained.constraint.is_complete()
            {
                finish = finish.or(Some(FinishReason::Stop));
            }
            if finish.is_none() && conversation.cache.position() == context {
                finish = Some(FinishReason::ContextFull);
            }
            conversation.pending = (stopped != Some(StopReason::Token)).then_some(id);
            if finish.is_none() {
                match self.take(conversation, &[id]) {
                    Err(EngineError::Cancelled) => finish = Some(FinishReason::Cancelled),
                    other => other?,
                }
            }
        }
        let rest = stream.finish();
        if !rest.is_empty() {
            text.push_str(rest);
            // The answer has ended; there is nothing left to break off.
            on_text(rest).is_break();
        }
        let mut timing = std::mem::take(&mut conversation.timing);
        timing.decode_ms = milliseconds(start);
        timing.tokens = stream.tokens();
        Ok(Answer {
            text,
            finish: finish.unwrap_or(FinishReason::Stop),
            matformer: conversation.slice.name.clone(),
            grammar_confidence: constrained.and_then(|constrained| constrained.confidence),
            resumed: None,
            timing,
            memory: self.memory(),
        })
    }

    /// Takes tokens of the answer into the context.
    fn take(&mut self, conversation: &mut Conversation, ids: &[u32]) -> Result<(), EngineError> {
        let Conversation {
            cache,
            slice,
            pending,
            ..
        } = conversation;
        let taken = self.text.extend_watched(
            &self.pool,
            cache,
            &mut self.work,
            ids,
            &[],
            slice,
            &mut no_probe,
            &mut *self.on_step,
        );
        taken?;
        *pending = None;
        Ok(())
    }

    fn logits_of_last(&mut self) {
        let last = self.work.ready() - 1;
        self.text
            .logits(&self.pool, &self.work, last, &mut self.logits);
    }
}
