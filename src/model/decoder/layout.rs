//! Sizes that a family's config gives its decoder, and what buffers are made by.

use std::fmt::Debug;
use std::ops::Range;

use super::LayerShape;
use crate::model::weights::PleShape;

/// Sizes of a decoder, and the tokens that it takes.
#[derive(Clone, Debug)]
pub struct Dimensions {
    /// The shape of each layer.
    pub layers: Vec<LayerShape>,
    /// Width of the residual path, D.
    pub hidden_size: usize,
    /// Sizes of the table of per-layer embeddings.
    pub ple: PleShape,
    /// Rows of the token embeddings.
    pub vocab_size: usize,
    /// Ids below this have a row in the LM head.
    pub text_vocab_size: usize,
    /// Ids whose embeddings are given with them; they read row 0 of the per-layer embeddings, the pad row.
    pub row_ids: Vec<Range<u32>>,
    /// Longest context, tokens.
    pub max_context: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// Logits are `cap · tanh(logit / cap)`; `None` for no cap.
    pub final_logit_softcapping: Option<f32>,
}

impl Dimensions {
    /// Whether the embedding of an id is given with it.
    pub(super) fn takes_row(&self, id: u32) -> bool {
        self.row_ids.iter().any(|ids| ids.contains(&id))
    }

    /// The row of the per-layer embeddings that an id reads.
    pub(super) fn ple_row(&self, id: u32) -> u32 {
        if self.takes_row(id) { 0 } else { id }
    }
}

/// What the buffers of a family's decoder are made by.
pub trait Layout: Debug + Sized {
    /// What its part of `config.json` says.
    type Config: Clone + Debug + Send + Sync;
    /// The buffers that its layers need beside those of any decoder.
    type Buffers: Debug + Send;

    /// Sizes, and the tokens that are taken.
    fn dimensions(config: &Self::Config) -> Dimensions;

    /// Its own buffers for chunks of up to `chunk` tokens.
    fn buffers(config: &Self::Config, chunk: usize) -> Self::Buffers;

    /// Bytes of them.
    fn buffer_bytes(buffers: &Self::Buffers) -> usize;

    /// Scratch that a token needs beyond what the parts of any decoder do.
    fn scratch_width(_: &Self::Config) -> usize {
        0
    }
}
