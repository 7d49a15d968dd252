//! The next token of an answer: of the logits behind the one before, by chance or not, and within its grammar.

use super::engine::Engine;
use super::error::EngineError;
use super::writing::{Constrained, Pass, Writing};
use crate::model::decoder::Exact;
use crate::model::grammar::{Next, TokenSet};
use crate::model::sampler::Sampler;

/// Logits are computed for the allowed tokens alone where their blocks are at most this share of the vocabulary.
const FEW: usize = 4;

impl Engine {
    /// The next token of an answer.
    pub(super) fn choose(&mut self, writing: &mut Writing) -> Result<u32, EngineError> {
        let is_thinking = writing.is_thinking();
        let Writing {
            constrained,
            sampler,
            pass,
            thought,
            rules,
            not_called,
            ..
        } = writing;
        match constrained {
            None => self.choose_freely(pass, sampler, not_called),
            // Its grammar is that of the text behind the thought: the thought ends by its mark alone.
            Some(_) if is_thinking => self.choose_freely(pass, sampler, &rules.tokens),
            Some(constrained) => match thought.take() {
                Some(thought) => self.choose_beginning(pass, constrained, sampler, thought),
                None => self.choose_within(pass, constrained, sampler),
            },
        }
    }

    /// The next token, of all but `not`.
    fn choose_freely(
        &mut self,
        pass: &Pass,
        sampler: &mut Sampler,
        not: &[u32],
    ) -> Result<u32, EngineError> {
        self.logits(pass, besides(exact(sampler, None), not))?;
        mask(&mut self.logits, not);
        Ok(sampler.sample(&mut self.logits)?)
    }

    /// The first token of an answer that the model may think before: the mark of a thought, or what the grammar begins with.
    fn choose_beginning(
        &mut self,
        pass: &Pass,
        constrained: &mut Constrained,
        sampler: &mut Sampler,
        thought: u32,
    ) -> Result<u32, EngineError> {
        let mut allowed = match constrained.take_next()? {
            Next::Forced(run) => {
                let first = TokenSet::of(&run[..1], self.logits.len());
                constrained.put_back(Next::Forced(run));
                first
            }
            Next::Among(allowed) => allowed,
        };
        allowed.insert(thought);
        self.logits(pass, exact(sampler, Some(&allowed)))?;
        constrained.measure(&allowed, &self.logits);
        allowed.mask(&mut self.logits);
        Ok(sampler.sample(&mut self.logits)?)
    }

    /// The next token within a grammar.
    fn choose_within(
        &mut self,
        pass: &Pass,
        constrained: &mut Constrained,
        sampler: &mut Sampler,
    ) -> Result<u32, EngineError> {
        match constrained.take_next()? {
            Next::Forced(run) => {
                let id = run[0];
                constrained.put_back(Next::Forced(run));
                sampler.accept(&[id]);
                if constrained.confidence.is_some() {
                    self.measure_forced(pass, constrained, id)?;
                }
                Ok(id)
            }
            Next::Among(allowed) => {
                let blocks = allowed.len() * kernels::matvec::BLOCK_ROWS;
                let few = blocks <= self.logits.len() / FEW && self.shortcuts.head_rows;
                if few && constrained.confidence.is_none() {
                    let ids: Vec<u32> = allowed.iter().collect();
                    let logits = &mut self.logits;
                    self.decoder
                        .logits_of(&self.pool, pass.row(), &ids, logits)?;
                } else {
                    self.logits(pass, exact(sampler, Some(&allowed)))?;
                    constrained.measure(&allowed, &self.logits);
                    allowed.mask(&mut self.logits);
                }
                Ok(sampler.sample(&mut self.logits)?)
            }
        }
    }

    /// Notes how probable the model found the only token that may come next.
    fn measure_forced(
        &mut self,
        pass: &Pass,
        constrained: &mut Constrained,
        id: u32,
    ) -> Result<(), EngineError> {
        let only = TokenSet::of(&[id], self.logits.len());
        let exact = Exact::Best {
            count: 1,
            within: Some(&only),
        };
        self.logits(pass, exact)?;
        constrained.measure(&only, &self.logits);
        Ok(())
    }

    /// The logits behind the token that the answer has come to; those of ids that no answer holds are -inf. The head is read once for all
    /// that is left of the pass, that of other answers too.
    fn logits(&mut self, pass: &Pass, exact: Exact<'_>) -> Result<(), EngineError> {
        let exact = if self.shortcuts.head_planes {
            besides(exact, &self.never_said)
        } else {
            Exact::All
        };
        let (row, ready, ids) = (pass.row(), self.decoder.ready(), self.logits.len());
        if !self.multiplied.contains(&row) && ready - row > 1 {
            let room = (ready - row) * ids;
            if self.products.len() < room {
                self.products.resize(room, 0.0);
            }
            let products = &mut self.products[..room];
            self.decoder.products(&self.pool, row..ready, products);
            self.multiplied = row..ready;
        }
        let logits = &mut self.logits;
        if self.multiplied.contains(&row) {
            let at = (row - self.multiplied.start) * ids;
            logits.copy_from_slice(&self.products[at..at + ids]);
            self.decoder.finish_logits(&self.pool, row, exact, logits)?;
        } else {
            self.decoder.logits(&self.pool, row, exact, logits)?;
        }
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
