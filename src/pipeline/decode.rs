//! From the last token of a prompt to the last token of an answer.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::milliseconds;
use super::engine::{Conversation, Engine, GiveWay};
use super::error::EngineError;
use super::{Answer, FinishReason, Generation};
use crate::model::decoder::{Exact, Shortcuts, Tokens, no_probe};
use crate::model::grammar::{Constraint, Next, TokenSet};
use crate::model::sampler::Sampler;
use crate::model::stop::{StopReason, StopRules, TextStream};

/// Room in an answer for each token, so that it does not grow while it is decoded; no text's tokens are longer on average.
const BYTES_PER_TOKEN: usize = 32;

/// The grammar of an answer on its way.
struct Constrained {
    constraint: Constraint,
    /// The least probability that the model gave to what was allowed, where that is wanted.
    confidence: Option<f32>,
    /// Tokens that are forced, and in the context already.
    taken: VecDeque<u32>,
}

impl Constrained {
    /// Notes how probable the model found `allowed`.
    fn measure(&mut self, allowed: &TokenSet, logits: &[f32]) {
        if let Some(least) = &mut self.confidence {
            *least = least.min(allowed.probability(logits));
        }
    }

    fn is_complete(&self) -> bool {
        self.taken.is_empty() && self.constraint.is_complete()
    }
}

/// Logits are computed for the allowed tokens alone where their blocks are at most this share of the vocabulary.
const FEW: usize = 4;

impl Engine {
    /// Decodes the answer to what was prefilled.
    pub(super) fn decode(
        &mut self,
        conversation: &mut Conversation,
        generation: &Generation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
        give_way: GiveWay<'_>,
    ) -> Result<Answer, EngineError> {
        let mut start = Instant::now();
        let mut constrained = match &generation.grammar {
            None => None,
            Some(grammar) => Some(Constrained {
                constraint: self.constraint(grammar)?,
                confidence: grammar.confidence().then_some(1.0),
                taken: VecDeque::new(),
            }),
        };
        let rules = StopRules {
            tokens: self.stop_tokens(),
            strings: generation.stop.clone(),
            max_tokens: generation.max_tokens,
        };
        let mut sampler = Sampler::new(
            generation.sampling,
            self.spec().text_vocab_size,
            generation.seed,
        )?;
        let tokenizer = self.shared_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &rules);
        let context = conversation.cache.context();
        let room = generation.max_tokens.min(context) * BYTES_PER_TOKEN;
        let mut text = String::with_capacity(room);
        let mut finish = stream.stopped().map(FinishReason::from);
        let thought = tokenizer.control().thoughts.map(|marks| marks.start);
        let mut thought = thought.filter(|_| conversation.thinking);
        while finish.is_none() {
            if (self.on_step)().is_break() {
                finish = Some(FinishReason::Cancelled);
                break;
            }
            let was_thinking = stream.is_thinking();
            let chosen = match &mut constrained {
                None => self.choose_freely(&mut sampler, &[]),
                // Its grammar is that of the text behind the thought: the thought ends by its mark alone.
                Some(_) if was_thinking => self.choose_freely(&mut sampler, &rules.tokens),
                Some(constrained) => match thought.take() {
                    Some(thought) => self.choose_beginning(constrained, &mut sampler, thought),
                    None => {
                        let room = generation.max_tokens - stream.tokens();
                        self.choose(conversation, constrained, &mut sampler, room)
                    }
                },
            };
            let id = match chosen {
                Err(EngineError::Cancelled) => {
                    finish = Some(FinishReason::Cancelled);
                    break;
                }
                other => other?,
            };
            let (piece, stopped) = stream.push(id);
            text.push_str(piece);
            finish = stopped.map(FinishReason::from);
            if !piece.is_empty() && on_text(piece).is_break() {
                finish = finish.or(Some(FinishReason::Cancelled));
            }
            if let Some(constrained) = &mut constrained
                && !was_thinking
                && !stream.is_thinking()
            {
                // Taken already, as those before it.
                if constrained.taken.pop_front().is_some() {
                    if constrained.is_complete() {
                        finish = finish.or(Some(FinishReason::Stop));
                    }
                    continue;
                }
                if stopped != Some(StopReason::Token) {
                    constrained.constraint.accept(&[id])?;
                }
                if constrained.is_complete() {
                    finish = finish.or(Some(FinishReason::Stop));
                }
            }
            conversation.pending = (stopped != Some(StopReason::Token)).then_some(id);
            if finish.is_none() && conversation.cache.position() == context {
                finish = Some(FinishReason::ContextFull);
            }
            if finish.is_none() {
                // Nothing of this answer is in the workspace or the logits now.
                start += self.pause(give_way);
                match self.take(conversation, &[id], Shortcuts::default()) {
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
        let thoughts = stream.thoughts();
        let mut timing = std::mem::take(&mut conversation.timing);
        timing.decode_ms = milliseconds(start);
        timing.tokens = stream.tokens();
        Ok(Answer {
            text,
            thoughts,
            finish: finish.unwrap_or(FinishReason::Stop),
            matformer: conversation.slice.name.clone(),
            grammar_confidence: constrained.and_then(|constrained| constrained.confidence),
            resumed: None,
            timing,
            memory: self.memory(),
        })
    }

    /// The next token, of all but `not`.
    fn choose_freely(&mut self, sampler: &mut Sampler, not: &[u32]) -> Result<u32, EngineError> {
        let last = self.decoder.ready() - 1;
        self.logits(last, besides(exact(sampler, None), not))?;
        mask(&mut self.logits, not);
        Ok(sampler.sample(&mut self.logits)?)
    }

    /// The first token of an answer that the model may think before: the mark of a thought, or what the grammar begins with.
    fn choose_beginning(
        &mut self,
        constrained: &mut Constrained,
        sampler: &mut Sampler,
        thought: u32,
    ) -> Result<u32, EngineError> {
        let mut allowed = match constrained.constraint.allowed()? {
            Next::Forced(run) => TokenSet::of(&run[..1], self.logits.len()),
            Next::Among(allowed) => allowed,
        };
        allowed.insert(thought);
        let last = self.decoder.ready() - 1;
        self.logits(last, exact(sampler, Some(&allowed)))?;
        constrained.measure(&allowed, &self.logits);
        allowed.mask(&mut self.logits);
        Ok(sampler.sample(&mut self.logits)?)
    }

    /// The next token within a grammar. Where it forces several, they are all taken into the context at once, at most `room` of
    /// them, and left in [`Constrained::taken`]; the first is given.
    fn choose(
        &mut self,
        conversation: &mut Conversation,
        constrained: &mut Constrained,
        sampler: &mut Sampler,
        room: usize,
    ) -> Result<u32, EngineError> {
        if let Some(&id) = constrained.taken.front() {
            return Ok(id);
        }
        let last = self.decoder.ready() - 1;
        match constrained.constraint.allowed()? {
            Next::Forced(mut run) => {
                let cache = &conversation.cache;
                let most = match self.shortcuts.forced_runs {
                    true => room
                        .min(cache.chunk())
                        .min(cache.context() - cache.position()),
                    false => 1,
                };
                run.truncate(most.max(1));
                sampler.accept(&run);
                if constrained.confidence.is_some() {
                    self.measure_forced(constrained, last, run[0])?;
                }
                if run.len() > 1 {
                    self.take_run(conversation, constrained, &run)?;
                }
                Ok(run[0])
            }
            Next::Among(allowed) => {
                let blocks = allowed.len() * kernels::matvec::BLOCK_ROWS;
                let few = blocks <= self.logits.len() / FEW && self.shortcuts.head_rows;
                if few && constrained.confidence.is_none() {
                    let ids: Vec<u32> = allowed.iter().collect();
                    let logits = &mut self.logits;
                    self.decoder.logits_of(&self.pool, last, &ids, logits)?;
                } else {
                    self.logits(last, exact(sampler, Some(&allowed)))?;
                    constrained.measure(&allowed, &self.logits);
                    allowed.mask(&mut self.logits);
                }
                Ok(sampler.sample(&mut self.logits)?)
            }
        }
    }

    /// Takes a run of forced tokens. Their probabilities, where they are wanted, need all layers for each.
    fn take_run(
        &mut self,
        conversation: &mut Conversation,
        constrained: &mut Constrained,
        run: &[u32],
    ) -> Result<(), EngineError> {
        let shortcuts = match constrained.confidence {
            None => Shortcuts::default(),
            Some(_) => Shortcuts::ALL_LOGITS,
        };
        self.take(conversation, run, shortcuts)?;
        constrained.constraint.accept(run)?;
        constrained.taken.extend(run);
        if constrained.confidence.is_some() {
            for (token, &id) in run[1..].iter().enumerate() {
                self.measure_forced(constrained, token, id)?;
            }
        }
        Ok(())
    }

    /// Notes how probable the model found the only token that may stand behind token `token` of the last chunk.
    fn measure_forced(
        &mut self,
        constrained: &mut Constrained,
        token: usize,
        id: u32,
    ) -> Result<(), EngineError> {
        let only = TokenSet::of(&[id], self.logits.len());
        let exact = Exact::Best {
            count: 1,
            within: Some(&only),
        };
        self.logits(token, exact)?;
        constrained.measure(&only, &self.logits);
        Ok(())
    }

    /// Takes tokens of the answer into the context.
    fn take(
        &mut self,
        conversation: &mut Conversation,
        ids: &[u32],
        shortcuts: Shortcuts,
    ) -> Result<(), EngineError> {
        let Conversation {
            cache,
            slice,
            pending,
            ..
        } = conversation;
        let tokens = Tokens {
            shortcuts,
            ..Tokens::new(ids, slice)
        };
        self.decoder.extend_watched(
            &self.pool,
            cache,
            tokens,
            &mut no_probe,
            &mut *self.on_step,
        )?;
        *pending = None;
        Ok(())
    }

    /// The logits behind a token; those of ids that no answer holds are -inf.
    fn logits(&mut self, token: usize, exact: Exact<'_>) -> Result<(), EngineError> {
        let exact = if self.shortcuts.head_planes {
            besides(exact, &self.never_said)
        } else {
            Exact::All
        };
        let logits = &mut self.logits;
        self.decoder.logits(&self.pool, token, exact, logits)?;
        mask(logits, &self.never_said);
        Ok(())
    }
}

fn mask(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// As many more of the best as may turn out to be of `masked`.
fn besides<'a>(exact: Exact<'a>, masked: &[u32]) -> Exact<'a> {
    match exact {
        Exact::All => Exact::All,
        Exact::Best { count, within } => Exact::Best {
            count: count.saturating_add(masked.len()),
            within,
        },
    }
}

/// What a sampler has to know to choose among all tokens, or among those of a set. How probable a grammar's tokens are is then told
/// from logits that are exact where they weigh most.
fn exact<'a>(sampler: &Sampler, within: Option<&'a TokenSet>) -> Exact<'a> {
    match sampler.deciding() {
        None => Exact::All,
        Some(count) => Exact::Best { count, within },
    }
}
