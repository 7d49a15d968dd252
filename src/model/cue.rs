//! An answer that is written down beforehand, for tests: the token that goes on with it is made certain where the next one is chosen.

use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// Beyond any logit.
const CERTAIN: f32 = 1e4;

/// A control token, or a byte of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Token(u32),
    Byte(u8),
}

/// An answer that is written down, and how far it was said.
#[derive(Clone, Debug)]
pub struct Cue {
    tokenizer: Arc<Tokenizer>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    symbols: Vec<Symbol>,
    said: usize,
}

fn symbols(tokenizer: &Tokenizer, id: u32) -> Vec<Symbol> {
    if tokenizer.is_special(id) {
        return vec![Symbol::Token(id)];
    }
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    bytes.into_iter().map(Symbol::Byte).collect()
}

impl Cue {
    /// Of a text with control tokens by their names, behind which one of `ends` is said.
    pub fn new(tokenizer: Arc<Tokenizer>, ends: Vec<u32>, text: &str) -> Cue {
        let ids = tokenizer.encode(text);
        let symbols = ids.into_iter().flat_map(|id| symbols(&tokenizer, id));
        Cue {
            symbols: symbols.collect(),
            said: 0,
            tokenizer,
            ends,
        }
    }

    /// Notes what was said; what parts from the script ends it.
    pub(super) fn note(&mut self, id: u32) {
        let said = symbols(&self.tokenizer, id);
        match self.symbols[self.said..].starts_with(&said) {
            true => self.said += said.len(),
            false => self.said = self.symbols.len(),
        }
    }

    /// Raises the logit of the token that comes next, of those that may.
    pub(super) fn force(&self, logits: &mut [f32]) {
        let tokenizer = &self.tokenizer;
        let may = |id: &u32| {
            logits
                .get(*id as usize)
                .is_some_and(|logit| logit.is_finite())
        };
        let rest = &self.symbols[self.said..];
        let bytes = rest.iter().map_while(|symbol| match symbol {
            Symbol::Byte(byte) => Some(*byte),
            Symbol::Token(_) => None,
        });
        let bytes: Vec<u8> = bytes.collect();
        let next = match rest.first() {
            None => self.ends.iter().copied().find(may),
            Some(Symbol::Token(id)) => Some(*id).filter(may),
            Some(Symbol::Byte(_)) => {
                let usual = tokenizer.encode_bytes(&bytes).first().copied();
                usual.filter(may).or_else(|| {
                    let fits = |id: &u32| {
                        let token = tokenizer
                            .token_bytes(*id)
                            .filter(|_| !tokenizer.is_special(*id));
                        token.is_some_and(|token| !token.is_empty() && bytes.starts_with(&token))
                    };
                    let all = (0..logits.len() as u32).filter(|id| may(id) && fits(id));
                    all.max_by_key(|id| tokenizer.token_bytes(*id).map_or(0, |token| token.len()))
                })
            }
        };
        if let Some(logit) = next.and_then(|id| logits.get_mut(id as usize)) {
            *logit = CERTAIN;
        }
    }
}
