//! From the last token of a prompt to the last token of an answer: token by token, several of them in a pass where they are known before
//! or well guessed.

use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::milliseconds;
use super::calling::Calling;
use super::engine::{Conversation, Engine, GiveWay};
use super::error::EngineError;
use super::guesses::{Known, Stand};
use super::writing::{Pass, Writing};
use super::{Answer, FinishReason, Generation};
use crate::model::decoder::{Shortcuts, Tokens, no_probe};
use crate::model::grammar::Next;
use crate::model::sampler::Sampler;
use crate::model::stop::StopRules;

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
        let rules = StopRules {
            tokens: self.stop_tokens(),
            strings: generation.stop.clone(),
            max_tokens: generation.max_tokens,
        };
        let tokenizer = self.shared_tokenizer();
        let constraint = match self.answer_grammar(generation)? {
            None => None,
            Some(grammar) => Some((self.constraint(&grammar)?, grammar.confidence())),
        };
        let calling = self.calling(generation)?;
        let context = conversation.cache.context();
        let mut sampler = Sampler::new(
            generation.sampling,
            self.spec().text_vocab_size,
            generation.seed,
        )?;
        if let Some(cue) = conversation.cue.take() {
            sampler.follow(cue);
        }
        let mut writing = Writing::new(&tokenizer, &rules, sampler, constraint, calling, context);
        writing.topic = self.topic(conversation, generation);
        let thoughts = tokenizer.control().thoughts.map(|marks| marks.start);
        writing.thought = thoughts.filter(|_| conversation.thinking);
        let mut began: Option<Instant> = None;
        while writing.finish.is_none() {
            let chosen = match (self.on_step)() {
                ControlFlow::Break(()) => Err(EngineError::Cancelled),
                ControlFlow::Continue(()) => self.choose(&mut writing),
            };
            let id = match chosen {
                Err(EngineError::Cancelled) => {
                    writing.finish = Some(FinishReason::Cancelled);
                    break;
                }
                other => other?,
            };
            self.guesser.came(&mut writing.open, id);
            writing.take(id, on_text)?;
            if writing.finish.is_some() {
                break;
            }
            if writing.pass.comes_to(id) {
                writing.pending = None;
                continue;
            }
            if let Some(began) = began
                && writing.pass.is_plain()
            {
                self.guesser.passed(writing.pass.tokens(), began.elapsed());
            }
            writing.pass.take_back(&mut conversation.cache);
            if conversation.cache.position() == context {
                writing.finish = Some(FinishReason::ContextFull);
                continue;
            }
            let pass = self.next_pass(conversation, &mut writing, id)?;
            // Nothing of this answer is in the workspace or the logits now.
            start += self.pause(give_way);
            began = Some(Instant::now());
            match self.take(conversation, &pass) {
                // The context is empty.
                Err(EngineError::Cancelled) => {
                    (writing.pass, writing.finish) =
                        (Pass::default(), Some(FinishReason::Cancelled));
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    conversation.timing.passes += 1;
                    (writing.pass, writing.pending) = (pass, None);
                }
            }
        }
        writing.pass.take_back(&mut conversation.cache);
        conversation.pending = writing.pending;
        conversation.called = writing.calling.as_ref().and_then(Calling::only_calls);
        self.guesser.end(&mut writing.open);
        if writing.is_whole() {
            self.guesser.learn(&writing.topic, &writing.written);
        }
        let mut timing = std::mem::take(&mut conversation.timing);
        timing.decode_ms = milliseconds(start);
        let slice = conversation.slice.name.clone();
        Ok(writing.answer(on_text, slice, timing, self.memory()))
    }

    /// What goes through the layers next: a token that was chosen, what has to follow it, and guesses.
    fn next_pass(
        &mut self,
        conversation: &Conversation,
        writing: &mut Writing<'_>,
        id: u32,
    ) -> Result<Pass, EngineError> {
        self.guesser.end(&mut writing.open);
        let cache = &conversation.cache;
        // What would be too much for the answer or the context is not begun.
        let room = (cache.context() - cache.position()).min(writing.room());
        let most = room.min(cache.max_revocable()).max(1);
        let row = writing.pass.row();
        let mut ids = writing.pass.emptied();
        ids.push(id);
        let (mut without_logits, mut is_cut) = (0, false);
        if self.shortcuts.forced_runs
            && let Some(constrained) = writing.binding()
            && let Next::Forced(run) = constrained.next()?
        {
            is_cut = run.len() >= most;
            ids.extend(run.iter().take(most - 1));
            if constrained.confidence.is_none() {
                without_logits = ids.len() - 1;
            }
        }
        let certain = ids.len();
        let guesses = most.min(self.guesser.most(certain));
        if !is_cut && guesses > certain {
            let how = self.shortcuts.guessing;
            let before = writing.written.len();
            writing.written.extend(&ids[1..]);
            let model = (certain == 1).then(|| Known {
                decoder: &mut *self.decoder,
                row,
                cache,
                pool: &self.pool,
            });
            let mut stand = Stand {
                topic: &writing.topic,
                prompt: &conversation.prompt,
                written: &writing.written,
                model,
            };
            let open = &mut writing.open;
            let mut guess = self
                .guesser
                .guess(&mut stand, how, certain, guesses - certain, open);
            writing.written.truncate(before);
            let spec = self.architecture.spec();
            // What ends an answer is worth no pass, and what has an embedding of its own is no text.
            let is_text = |id: &u32| {
                (*id as usize) < spec.text_vocab_size
                    && !spec.takes_row(*id)
                    && !writing.rules.tokens.contains(id)
            };
            let text = guess.iter().take_while(|id| is_text(id)).count();
            guess.truncate(text);
            if !guess.is_empty()
                && let Some(constrained) = writing.binding()
            {
                let all = [&ids[1..], &guess].concat();
                let fit = constrained.constraint.fitting(&all)?;
                guess.truncate((fit + 1).saturating_sub(certain));
            }
            self.guesser.cut(&mut writing.open, guess.len());
            ids.append(&mut guess);
        }
        Ok(Pass::new(ids, without_logits))
    }

    /// Takes tokens of the answer into the context.
    fn take(&mut self, conversation: &mut Conversation, pass: &Pass) -> Result<(), EngineError> {
        let Conversation { cache, slice, .. } = conversation;
        let tokens = Tokens {
            shortcuts: Shortcuts::default(),
            logits: pass.logits(),
            ..Tokens::new(pass.ids(), slice)
        };
        Ok(self.decoder.extend_watched(
            &self.pool,
            cache,
            tokens,
            &mut no_probe,
            &mut *self.on_step,
        )?)
    }
}
