//! The decoder of any family: token ids (and rows for media tokens) to logits.
//!
//! Tokens go through in chunks; [`TextModel::extend`] is prefill and decode step alike.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use kernels::Pool;

use super::head::{Exact, Head};
use super::kv_cache::KvCache;
use super::layout::Dimensions;
use super::per_layer_embedding::ContextProjection;
use super::stack::Stack;
use super::{
    Chunks, Compute, LayerShape, Loader, Probe, RmsNorm, Slice, TextError, Tokens, Watch, Workspace,
};
use crate::model::weights::{
    Checkpoint, Group, Mapped, PleOptions, PleStore, Stretch, WeightsError,
};

/// The decoder's weights and the PLE table.
#[derive(Debug)]
pub struct TextModel<S: Stack> {
    config: S::Config,
    pub(super) dimensions: Dimensions,
    weights: Arc<Mapped>,
    pub(super) ple: PleStore,
    pub(super) head: Head,
    pub(super) stack: S,
    pub(super) context_projection: ContextProjection,
    pub(super) norm: RmsNorm,
}

impl<S: Stack> TextModel<S> {
    /// Maps the text group, opens the PLE table with the default options, and checks every tensor against the configuration.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type than `config` implies.
    pub fn load(checkpoint: &Checkpoint, config: &S::Config) -> Result<TextModel<S>, WeightsError> {
        let shape = S::dimensions(config).ple;
        let ple = PleStore::open(checkpoint, shape, &PleOptions::default(), &mut |_, _| {})?;
        TextModel::with_ple(checkpoint, config, ple)
    }

    /// As [`TextModel::load`], with a PLE table that is open.
    ///
    /// # Errors
    /// As [`TextModel::load`].
    pub fn with_ple(
        checkpoint: &Checkpoint,
        config: &S::Config,
        ple: PleStore,
    ) -> Result<TextModel<S>, WeightsError> {
        let weights = checkpoint.load(Group::Text)?;
        // They go with the process, and what the page cache has of them makes the next start a warm one.
        weights.keep_cached();
        let dimensions = S::dimensions(config);
        let (d, p) = (dimensions.hidden_size, dimensions.ple.width);
        let layers = &dimensions.layers;
        let loader = &Loader::new(&weights, dimensions.rms_norm_eps);
        // A pack leaves out the rows of ids that are no text, which nothing reads.
        let vocabulary = match checkpoint.pack() {
            None => dimensions.vocab_size,
            Some(_) => dimensions.text_vocab_size,
        };
        let cap = dimensions.final_logit_softcapping;
        Ok(TextModel {
            stack: S::load(loader, config, layers)?,
            head: Head::load(checkpoint, loader, vocabulary, d, cap)?,
            context_projection: ContextProjection::load(loader, layers.len(), p, d)?,
            norm: loader.norm("norm.weight", d)?,
            ple,
            config: config.clone(),
            dimensions,
            weights,
        })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &S::Config {
        &self.config
    }

    /// The shape of each layer.
    pub fn layers(&self) -> &[LayerShape] {
        &self.dimensions.layers
    }

    /// The mapped weights, for their memory figures.
    pub fn weights(&self) -> &Mapped {
        &self.weights
    }

    /// The PLE table, for its memory figures.
    pub fn ple(&self) -> &PleStore {
        &self.ple
    }

    /// Whether the weights can be cut at the widths of a slice: always, in a checkpoint in the published layout; in a pack,
    /// if it was made with the slice.
    pub fn serves(&self, slice: &Slice) -> bool {
        slice.layers().all(|layer| {
            slice
                .width(layer)
                .is_some_and(|width| self.stack.feed_forward(layer).serves(width))
        })
    }

    /// Feed-forward weights that a slice does not read.
    pub fn unused_by(&self, slice: &Slice) -> Vec<Stretch> {
        let mut unused = Vec::new();
        for layer in 0..self.layers().len() {
            let (weights, width) = (&self.weights, slice.width(layer).unwrap_or(0));
            let feed_forward = self.stack.feed_forward(layer);
            feed_forward.unused(weights, width, &mut unused);
        }
        unused
    }

    /// Ids below this have an LM head row.
    pub fn text_vocab_size(&self) -> usize {
        self.dimensions.text_vocab_size
    }

    /// Takes tokens into the context: a prompt, or one decoded token. Afterwards [`TextModel::logits`] has the logits of the last ones that
    /// were asked for, or of each one where the shortcuts leave the K/V cut out.
    ///
    /// # Errors
    /// Nothing was changed when the prompt does not fit the context, holds an unknown id, or the number of media rows
    /// differs from the number of media ids. When what is read by row cannot be read, the chunks before that were taken.
    pub fn extend(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace<S>,
        tokens: Tokens<'_>,
        probe: Probe<'_>,
    ) -> Result<(), TextError> {
        let watch: Watch<'_> = &mut || ControlFlow::Continue(());
        self.extend_watched(pool, cache, work, tokens, probe, watch)
    }

    /// [`TextModel::extend`], which `watch` may break off.
    ///
    /// # Errors
    /// As there; and [`TextError::Interrupted`].
    pub fn extend_watched(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace<S>,
        tokens: Tokens<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<(), TextError> {
        let mut chunks = self.start(cache, tokens)?;
        while self.take_chunk(pool, cache, work, &mut chunks, probe, watch)? {}
        Ok(())
    }

    /// Begins to take tokens into the context, to be taken by [`TextModel::take_chunk`].
    ///
    /// # Errors
    /// As [`TextModel::extend`]: the prompt does not fit the context, holds an unknown id, or lacks rows.
    pub fn start<'a>(
        &self,
        cache: &mut KvCache,
        tokens: Tokens<'a>,
    ) -> Result<Chunks<'a>, TextError> {
        self.check(cache, tokens)?;
        cache.slice.get_or_insert_with(|| tokens.slice.clone());
        Ok(Chunks::new(tokens))
    }

    pub(super) fn media_count(&self, ids: &[u32]) -> usize {
        let dimensions = &self.dimensions;
        ids.iter().filter(|&&id| dimensions.takes_row(id)).count()
    }

    pub(super) fn check(&self, cache: &KvCache, tokens: Tokens<'_>) -> Result<(), TextError> {
        let Tokens {
            ids,
            media_rows,
            slice,
            ..
        } = tokens;
        let Dimensions {
            vocab_size,
            hidden_size,
            max_context,
            ..
        } = self.dimensions;
        if ids.is_empty() {
            return Err(TextError::Empty);
        }
        if ids.len() > cache.context() - cache.position() {
            return Err(TextError::ContextFull {
                needed: ids.len(),
                used: cache.position(),
                context: cache.context(),
                limit: max_context,
            });
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(TextError::UnknownToken { id, vocab_size });
        }
        let (tokens, rows) = (self.media_count(ids), media_rows.len() / hidden_size);
        if tokens != rows {
            return Err(TextError::MediaRows { tokens, rows });
        }
        match &cache.slice {
            Some(before) if !before.shares_kv_with(slice, self.layers()) => {
                Err(TextError::OtherSlice {
                    before: before.name.clone(),
                    now: slice.name.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn compute<'a>(&'a self, pool: &'a Pool) -> Compute<'a> {
        Compute {
            pool,
            weights: &self.weights,
        }
    }

    /// Logits of a token that went through every layer (the last `work.ready()` of the last chunk), for the first
    /// `out.len()` ids: `cap · tanh(embed_tokens · hidden / cap)`, those exact that `exact` asks for. Ids from
    /// [`TextModel::text_vocab_size`] on are never to be emitted, so there is no reason to ask for them but a comparison.
    ///
    /// # Errors
    /// The second plane of the head cannot be read any more; `out` is then unspecified.
    ///
    /// # Panics
    /// If `token` is not below `work.ready()`, or `out` is longer than the vocabulary.
    pub fn logits(
        &self,
        pool: &Pool,
        work: &mut Workspace<S>,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        self.products(pool, work, token..token + 1, out);
        self.finish_logits(pool, work, token, exact, out)
    }

    /// What the logits of some tokens begin as, \[tokens, ids\], for as many ids as there is room: the head is read once.
    /// [`TextModel::finish_logits`] makes logits of each token's. Equal bit by bit to [`TextModel::logits`].
    ///
    /// # Panics
    /// As there.
    pub fn products(
        &self,
        pool: &Pool,
        work: &Workspace<S>,
        tokens: Range<usize>,
        out: &mut [f32],
    ) {
        let (d, ready) = (self.dimensions.hidden_size, work.ready());
        assert!(tokens.end <= ready, "tokens {tokens:?} of {ready}");
        let hidden = &work.hidden[tokens.start * d..tokens.end * d];
        self.head
            .products(self.compute(pool), hidden, tokens.len(), out);
    }

    /// The logits of a token, of what [`TextModel::products`] gave for it.
    ///
    /// # Errors
    /// As [`TextModel::logits`].
    ///
    /// # Panics
    /// As there.
    pub fn finish_logits(
        &self,
        pool: &Pool,
        work: &mut Workspace<S>,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        let (hidden, scratch) = work.hidden_and_head(token);
        Ok(self
            .head
            .finish(self.compute(pool), hidden, exact, scratch, out)?)
    }

    /// As [`TextModel::logits`], but only the logits of `ids`, which ascend, are computed, and all others are -inf: for a
    /// grammar that allows few tokens. Equal bit by bit.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there; and if `ids` do not ascend or name one beyond `out`.
    pub fn logits_of(
        &self,
        pool: &Pool,
        work: &mut Workspace<S>,
        token: usize,
        ids: &[u32],
        out: &mut [f32],
    ) -> Result<(), TextError> {
        let (hidden, scratch) = work.hidden_and_head(token);
        Ok(self
            .head
            .logits_of(self.compute(pool), hidden, ids, scratch, out)?)
    }

    /// The embedding of a token as the first layer takes it, into `out` \[D\].
    ///
    /// # Errors
    /// The second plane of the head cannot be read any more; `out` is then unspecified.
    pub fn embedding(
        &self,
        pool: &Pool,
        work: &mut Workspace<S>,
        id: u32,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        let d = self.dimensions.hidden_size;
        let (head, row) = (&mut work.head, &mut work.scratch[..d]);
        self.head.embed(self.compute(pool), &[id], head, row, out)?;
        let scale = (d as f32).sqrt();
        out.iter_mut().for_each(|x| *x *= scale);
        Ok(())
    }

    /// Gives back the pages of the weights; what is read again comes from the file again.
    pub fn evict(&self) {
        self.weights.evict();
        self.head.evict();
    }
}
