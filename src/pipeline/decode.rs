//! From the last token of a prompt to the last token of an answer: token by token, several of them in a pass where they are known before
//! or well guessed.

use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::OnPiece;
use super::answer::milliseconds;
use super::answering::Answering;
use super::calling::Calling;
use super::conversation::Conversation;
use super::engine::{Engine, GiveWay};
use super::error::EngineError;
use super::guesses::{Known, Stand};
use super::seats::MAX_ANSWERS;
use super::writing::{Pass, Writing};
use super::{Answer, FinishReason, Generation};
use crate::model::decoder::{Shortcuts, Tokens, no_probe};
use crate::model::grammar::Next;
use crate::model::sampler::Sampler;
use crate::model::stop::StopRules;

impl Engine {
    /// The answer to what was prefilled, before its first token.
    pub(super) fn begin_answer(
        &mut self,
        mut conversation: Conversation,
        generation: &Generation,
    ) -> Result<Answering, EngineError> {
        let start = Instant::now();
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
        let thoughts = tokenizer.control().thoughts.map(|marks| marks.start);
        let mut writing = Writing::new(tokenizer, rules, sampler, constraint, calling, context);
        writing.topic = self.topic(&conversation, generation);
        writing.thought = thoughts.filter(|_| conversation.thinking);
        conversation.timing.decode_ms += milliseconds(start);
        Ok(Answering::new(conversation, writing))
    }

    /// Decodes an answer to its end; answers that have seats go along.
    pub(super) fn decode(
        &mut self,
        mut mine: Answering,
        on_piece: OnPiece<'_>,
        give_way: GiveWay<'_>,
    ) -> Result<Answer, EngineError> {
        let start = Instant::now();
        self.read_on(&mut mine, on_piece)?;
        self.plan_pass(&mut mine, 0)?;
        mine.add_time(start);
        while mine.next.is_some() {
            // Nothing of this answer is in the workspace or the logits now.
            give_way(self);
            self.pass_together(Some((&mut mine, &mut *on_piece)))?;
        }
        self.end_answer(mine, on_piece)
    }

    /// Takes the tokens that the last pass shows, until another one is needed or the answer has ended.
    pub(super) fn read_on(
        &mut self,
        answering: &mut Answering,
        on_piece: OnPiece<'_>,
    ) -> Result<(), EngineError> {
        let writing = &mut answering.writing;
        while writing.finish.is_none() {
            let chosen = match (self.on_step)() {
                ControlFlow::Break(()) => Err(EngineError::Cancelled),
                ControlFlow::Continue(()) => self.choose(writing),
            };
            let id = match chosen {
                Err(EngineError::Cancelled) => {
                    writing.finish = Some(FinishReason::Cancelled);
                    break;
                }
                other => other?,
            };
            self.guesser.came(&mut writing.open, id);
            writing.take(id, on_piece)?;
            if writing.finish.is_some() {
                break;
            }
            if !writing.pass.comes_to(id) {
                break;
            }
            writing.pending = None;
        }
        Ok(())
    }

    /// Makes the next pass of an answer that goes on; `beside` is how many tokens of others are likely to go along.
    pub(super) fn plan_pass(
        &mut self,
        answering: &mut Answering,
        beside: usize,
    ) -> Result<(), EngineError> {
        let Answering {
            conversation,
            writing,
            next,
            ..
        } = answering;
        writing.pass.take_back(&mut conversation.cache);
        let Some(id) = writing.pending.filter(|_| writing.finish.is_none()) else {
            return Ok(());
        };
        if conversation.cache.position() == conversation.cache.context() {
            writing.finish = Some(FinishReason::ContextFull);
            return Ok(());
        }
        *next = Some(self.next_pass(conversation, writing, id, beside)?);
        Ok(())
    }

    /// Takes an answer's next pass alone.
    pub(super) fn pass_alone(&mut self, answering: &mut Answering) -> Result<(), EngineError> {
        let Some(pass) = answering.next.take().map(Pass::alone) else {
            return Ok(());
        };
        let writing = &mut answering.writing;
        match self.take(&mut answering.conversation, &pass) {
            // The context is empty.
            Err(EngineError::Cancelled) => {
                (writing.pass, writing.finish) = (Pass::default(), Some(FinishReason::Cancelled));
            }
            Err(error) => return Err(error),
            Ok(()) => answering.passed(pass),
        }
        Ok(())
    }

    /// The answer, once it has ended; what goes on from it is kept.
    pub(super) fn end_answer(
        &mut self,
        answering: Answering,
        on_piece: OnPiece<'_>,
    ) -> Result<Answer, EngineError> {
        let Answering {
            mut conversation,
            mut writing,
            after,
            ..
        } = answering;
        conversation.pending = writing.pending;
        conversation.called = writing.calling.as_ref().and_then(Calling::only_calls);
        self.guesser.end(&mut writing.open);
        if writing.is_whole() {
            self.guesser.learn(&writing.topic, &writing.written);
        }
        let timing = std::mem::take(&mut conversation.timing);
        let slice = conversation.slice.name.clone();
        let mut answer = writing.answer(on_piece, slice, timing, self.memory());
        if let Some(after) = after {
            self.keep_what_follows(conversation, after, &mut answer)?;
        }
        Ok(answer)
    }

    /// What goes through the layers next: a token that was chosen, what has to follow it, and guesses.
    fn next_pass(
        &mut self,
        conversation: &Conversation,
        writing: &mut Writing,
        id: u32,
        beside: usize,
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
        let mut guesses = most.min(self.guesser.most(certain));
        if beside > 0 {
            guesses = guesses.min(MAX_ANSWERS.saturating_sub(beside));
        }
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
            let mut guess =
                self.guesser
                    .guess(&mut stand, how, [certain, beside], guesses - certain, open);
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
        Ok(Pass::new(ids, certain, without_logits))
    }

    /// Takes tokens of the answer into the context.
    fn take(&mut self, conversation: &mut Conversation, pass: &Pass) -> Result<(), EngineError> {
        let Conversation { cache, slice, .. } = conversation;
        let tokens = Tokens {
            shortcuts: Shortcuts::default(),
            logits: pass.logits(),
            ..Tokens::new(pass.ids(), slice)
        };
        self.multiplied = 0..0;
        Ok(self.decoder.extend_watched(
            &self.pool,
            cache,
            tokens,
            &mut no_probe,
            &mut *self.on_step,
        )?)
    }
}
