//! What a family's decoder has of its own, and what it does not: its layers are called through this.

use std::fmt::Debug;
use std::ops::Range;

use super::feed_forward::FeedForward;
use super::kv_cache::KvCache;
use super::{Compute, LayerShape, Loader, Probe, Workspace};
use crate::model::weights::{PleShape, WeightsError};

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

/// How a layer is to treat the tokens it is given.
pub struct Step {
    /// Which of the chunk in work they are.
    pub(crate) tokens: Range<usize>,
    /// FFN width.
    pub(crate) width: usize,
    /// Through a sparse FFN only the active rows are read.
    pub(crate) skip_zeros: bool,
}

/// The layers of a family. Tokens come to the first and leave the last in the workspace's `residual`, \[T, D\].
pub trait Stack: Debug + Send + Sync + Sized {
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

    /// Finds every tensor of the layers.
    ///
    /// # Errors
    /// One is missing or has another shape or type than `config` implies.
    fn load(
        loader: &Loader<'_>,
        config: &Self::Config,
        layers: &[LayerShape],
    ) -> Result<Self, WeightsError>;

    /// The feed-forward network of a layer.
    fn feed_forward(&self, layer: usize) -> &FeedForward;

    /// The embeddings of `t` tokens become what the first layer takes.
    fn enter(&self, _: Compute<'_>, _: &mut Workspace<Self>, _: usize, _: Probe<'_>) {}

    /// What a layer does before attention for the first `t` tokens of the workspace, and their keys and values, which others read too.
    fn write_kv(
        &self,
        layer: usize,
        compute: Compute<'_>,
        cache: &mut KvCache,
        work: &mut Workspace<Self>,
        t: usize,
    );

    /// Of `t` tokens for which a layer has written keys and values, the last is the only one from now on.
    fn keep_last(&self, layer: usize, compute: Compute<'_>, work: &mut Workspace<Self>, t: usize);

    /// The rest of a layer, for tokens that stand at the beginning of the workspace.
    fn forward(
        &self,
        layer: usize,
        compute: Compute<'_>,
        cache: &KvCache,
        work: &mut Workspace<Self>,
        step: &Step,
        probe: Probe<'_>,
    );

    /// What the last layer gives of `t` tokens becomes what the final norm takes.
    fn leave(&self, _: Compute<'_>, _: &mut Workspace<Self>, _: usize) {}
}
