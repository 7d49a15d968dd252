//! What guesses the next tokens of a decoder, whatever its family.

use std::sync::Arc;

use kernels::Pool;

use super::config::ConfigError;
use super::decoder::kv_cache::KvCache;
use super::weights::{Mapped, WeightsError};

/// A small model that guesses what a decoder will say next: it reads the decoder's final hidden state, and its keys and values.
pub trait Drafter: Send {
    /// The mapped weights, for their memory figures.
    fn weights(&self) -> &Arc<Mapped>;

    /// Begins to guess behind the tokens of `cache`, of which there is at least one; `hidden` \[D\] is the final hidden state of the
    /// last of them ([`Decoder::hidden`](super::decoder::Decoder::hidden)).
    fn begin(&mut self, cache: &KvCache, hidden: &[f32]);

    /// The token that is guessed to follow one whose `embedding` \[D\] is given ([`Decoder::embedding`](super::decoder::Decoder::embedding)):
    /// at first the one that was chosen by the hidden state of [`Drafter::begin`], then what was guessed last. The cache is the same, and
    /// as it was.
    fn next(&mut self, pool: &Pool, cache: &KvCache, embedding: &[f32]) -> u32;
}

/// A drafter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DrafterError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}
