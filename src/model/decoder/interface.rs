//! What a decoder can do, whatever its family.

use std::ops::{ControlFlow, Range};

use kernels::Pool;

use super::kv_cache::KvCache;
use super::{Chunks, Exact, Lane, LayerShape, Probe, Slice, TextError, Tokens, Watch};
use crate::model::weights::{Mapped, PleStore, Stretch};

/// A decoder with its weights, its table of per-layer embeddings and the buffers that a chunk of tokens passes through.
pub trait Decoder: Send {
    /// The shape of each layer.
    fn layers(&self) -> &[LayerShape];

    /// The mapped weights, for their memory figures.
    fn weights(&self) -> &Mapped;

    /// The table of per-layer embeddings.
    fn ple(&self) -> &PleStore;

    /// Whether the weights can be cut at the widths of a slice: always, in a checkpoint in the published layout; in a pack,
    /// if it was made with the slice.
    fn serves(&self, slice: &Slice) -> bool;

    /// Feed-forward weights that a slice does not read.
    fn unused_by(&self, slice: &Slice) -> Vec<Stretch>;

    /// Gives back the pages of the weights; what is read again comes from the file again.
    fn evict(&self);

    /// Begins to take tokens into a context, to be taken by [`Decoder::take_chunk`].
    ///
    /// # Errors
    /// They do not fit the context, hold an unknown id, or lack rows; nothing was changed then.
    fn start<'t>(&self, cache: &mut KvCache, tokens: Tokens<'t>) -> Result<Chunks<'t>, TextError>;

    /// Takes the next chunk of them; whether there are more. Between two of them another context may be served.
    ///
    /// # Errors
    /// What is read by row cannot be read, or [`TextError::Interrupted`].
    fn take_chunk(
        &mut self,
        pool: &Pool,
        cache: &mut KvCache,
        chunks: &mut Chunks<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<bool, TextError>;

    /// Takes text of several contexts, which stands in `ids` one lane behind the other: the weights are read once. Every token passes every
    /// layer and has logits. What comes of each lane is, bit by bit, what would have come of it alone. `on_layer` is called before each
    /// layer.
    ///
    /// # Errors
    /// As [`Decoder::start`] and [`Decoder::take_chunk`]; nothing was changed then.
    ///
    /// # Panics
    /// If there are more tokens than a chunk has, or `ids` are not as many as the lanes' tokens.
    fn take_together(
        &mut self,
        pool: &Pool,
        lanes: &mut [Lane<'_>],
        ids: &[u32],
        slice: &Slice,
        on_layer: &mut dyn FnMut(),
    ) -> Result<(), TextError>;

    /// Tokens of the last chunk that went through every layer, and so have logits: all of them, or with the K/V cut the last ones.
    fn ready(&self) -> usize;

    /// Logits of such a token, for the first `out.len()` ids, those exact that `exact` asks for.
    ///
    /// # Errors
    /// The second plane of the head cannot be read any more; `out` is then unspecified.
    ///
    /// # Panics
    /// If `token` is not below [`Decoder::ready`], or `out` is longer than the vocabulary.
    fn logits(
        &mut self,
        pool: &Pool,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError>;

    /// What the logits of some such tokens begin as, \[tokens, ids\]: the head is read once. [`Decoder::finish_logits`] makes logits of
    /// each token's, equal bit by bit to [`Decoder::logits`].
    ///
    /// # Panics
    /// If the tokens are not below [`Decoder::ready`], or `out` is longer than the vocabulary times their number.
    fn products(&self, pool: &Pool, tokens: Range<usize>, out: &mut [f32]);

    /// The logits of a token, of what [`Decoder::products`] gave for it.
    ///
    /// # Errors
    /// As [`Decoder::logits`].
    ///
    /// # Panics
    /// As there.
    fn finish_logits(
        &mut self,
        pool: &Pool,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError>;

    /// As [`Decoder::logits`], but only the logits of `ids`, which ascend, are computed, and all others are -inf. Equal bit by bit.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there; and if `ids` do not ascend or name one beyond `out`.
    fn logits_of(
        &mut self,
        pool: &Pool,
        token: usize,
        ids: &[u32],
        out: &mut [f32],
    ) -> Result<(), TextError>;

    /// The final hidden state \[D\] of such a token, behind the last norm: what its logits are made of.
    ///
    /// # Panics
    /// If `token` is not below [`Decoder::ready`].
    fn hidden(&self, token: usize) -> &[f32];

    /// The embedding of a token as the first layer takes it, into `out` \[D\].
    ///
    /// # Errors
    /// What is read by row cannot be read any more; `out` is then unspecified.
    fn embedding(&mut self, pool: &Pool, id: u32, out: &mut [f32]) -> Result<(), TextError>;

    /// Rows that logits have taken of the second plane of the LM head so far, where it has one.
    fn second_plane_rows(&self) -> u64;

    /// Bytes of the buffers.
    fn buffer_bytes(&self) -> usize;

    /// Makes the buffers anew, for chunks of up to so many tokens.
    fn resize(&mut self, chunk: usize);

    /// Takes tokens into a context: a prompt, or one decoded token; `watch` may break it off.
    ///
    /// # Errors
    /// As [`Decoder::start`] and [`Decoder::take_chunk`]: when what is read by row cannot be read, the chunks before that were taken.
    fn extend_watched(
        &mut self,
        pool: &Pool,
        cache: &mut KvCache,
        tokens: Tokens<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<(), TextError> {
        let mut chunks = self.start(cache, tokens)?;
        while self.take_chunk(pool, cache, &mut chunks, probe, watch)? {}
        Ok(())
    }

    /// [`Decoder::extend_watched`] by nobody.
    ///
    /// # Errors
    /// As there.
    fn extend(
        &mut self,
        pool: &Pool,
        cache: &mut KvCache,
        tokens: Tokens<'_>,
        probe: Probe<'_>,
    ) -> Result<(), TextError> {
        let watch: Watch<'_> = &mut || ControlFlow::Continue(());
        self.extend_watched(pool, cache, tokens, probe, watch)
    }
}
