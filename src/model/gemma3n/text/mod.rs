//! The decoder: token ids (and rows for media tokens) to logits.
//!
//! Source: reference section 2. Tokens go through in chunks; [`TextModel::extend`] is prefill and decode step alike.

mod altup;
mod chunk;
mod decoder;
mod laurel;
mod layer;
mod sparse_feed_forward;
mod streams;
mod workspace;

use std::ops::ControlFlow;
use std::sync::Arc;

use kernels::Pool;

pub(in crate::model) use self::decoder::TextDecoder;
use self::layer::Layer;
use self::streams::StreamProjections;
pub use self::workspace::Workspace;
use crate::model::decoder::head::{self, Head};
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::per_layer_embedding::ContextProjection;
use crate::model::decoder::{
    Chunks, Compute, Exact, LayerShape, Loader, Probe, RmsNorm, Slice, TextError, Tokens, Watch,
};
use crate::model::gemma3n::config::TextConfig;
use crate::model::weights::{
    Checkpoint, Group, Mapped, PleOptions, PleStore, Stretch, WeightsError,
};

/// The decoder's weights and the PLE table.
#[derive(Debug)]
pub struct TextModel {
    config: TextConfig,
    shapes: Vec<LayerShape>,
    weights: Arc<Mapped>,
    ple: PleStore,
    head: Head,
    layers: Vec<Layer>,
    context_projection: ContextProjection,
    streams: StreamProjections,
    norm: RmsNorm,
}

impl TextModel {
    /// Maps the text group, opens the PLE table with the default options, and checks every tensor against the configuration.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type than `config` implies.
    pub fn load(checkpoint: &Checkpoint, config: &TextConfig) -> Result<TextModel, WeightsError> {
        let ple = PleStore::open(
            checkpoint,
            config.ple_shape(),
            &PleOptions::default(),
            &mut |_, _| {},
        )?;
        TextModel::with_ple(checkpoint, config, ple)
    }

    /// As [`TextModel::load`], with a PLE table that is open.
    ///
    /// # Errors
    /// As [`TextModel::load`].
    pub fn with_ple(
        checkpoint: &Checkpoint,
        config: &TextConfig,
        ple: PleStore,
    ) -> Result<TextModel, WeightsError> {
        let weights = checkpoint.load(Group::Text)?;
        // They go with the process, and what the page cache has of them makes the next start a warm one.
        weights.keep_cached();
        let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
        let loader = &Loader::new(&weights, config.rms_norm_eps);
        let shapes = config.layers();
        let layers = shapes.iter().enumerate();
        let layers = layers.map(|(index, shape)| Layer::load(loader, config, shape, index));
        // A pack leaves out the rows of media tokens, which nothing reads.
        let vocabulary = match checkpoint.pack() {
            None => config.vocab_size,
            Some(_) => config.vocab_size_per_layer_input,
        };
        let cap = config.final_logit_softcapping;
        Ok(TextModel {
            layers: layers.collect::<Result<_, _>>()?,
            head: Head::load(checkpoint, loader, vocabulary, d, cap)?,
            context_projection: ContextProjection::load(loader, shapes.len(), p, d)?,
            streams: StreamProjections::load(loader, config.altup_num_inputs, d)?,
            norm: loader.norm("norm.weight", d)?,
            ple,
            config: config.clone(),
            shapes,
            weights,
        })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The shape of each layer.
    pub fn layers(&self) -> &[LayerShape] {
        &self.shapes
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
                .is_some_and(|width| self.layers[layer].serves(width))
        })
    }

    /// Feed-forward weights that a slice does not read.
    pub fn unused_by(&self, slice: &Slice) -> Vec<Stretch> {
        let mut unused = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            layer.unused(&self.weights, slice.width(index).unwrap_or(0), &mut unused);
        }
        unused
    }

    /// Ids below this are text: they have an LM head row and may be sampled.
    pub fn text_vocab_size(&self) -> usize {
        self.config.vocab_size_per_layer_input
    }

    /// Takes tokens into the context: a prompt, or one decoded token. Afterwards [`TextModel::logits`] has the logits of the last one,
    /// or of each one where the shortcuts leave the K/V cut out.
    ///
    /// # Errors
    /// Nothing was changed when the prompt does not fit the context, holds an unknown id, or the number of media rows
    /// differs from the number of media ids. When what is read by row cannot be read, the chunks before that were taken.
    pub fn extend(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace,
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
        work: &mut Workspace,
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

    fn media_count(&self, ids: &[u32]) -> usize {
        ids.iter()
            .filter(|&&id| id as usize >= self.text_vocab_size())
            .count()
    }

    fn check(&self, cache: &KvCache, tokens: Tokens<'_>) -> Result<(), TextError> {
        let Tokens {
            ids,
            media_rows,
            slice,
            ..
        } = tokens;
        if ids.is_empty() {
            return Err(TextError::Empty);
        }
        if ids.len() > cache.context() - cache.position() {
            return Err(TextError::ContextFull {
                needed: ids.len(),
                used: cache.position(),
                context: cache.context(),
                limit: self.config.max_position_embeddings,
            });
        }
        if let Some(&id) = ids
            .iter()
            .find(|&&id| id as usize >= self.config.vocab_size)
        {
            return Err(TextError::UnknownToken {
                id,
                vocab_size: self.config.vocab_size,
            });
        }
        let (tokens, rows) = (
            self.media_count(ids),
            media_rows.len() / self.config.hidden_size,
        );
        if tokens != rows {
            return Err(TextError::MediaRows { tokens, rows });
        }
        match &cache.slice {
            Some(before) if !before.shares_kv_with(slice, &self.shapes) => {
                Err(TextError::OtherSlice {
                    before: before.name.clone(),
                    now: slice.name.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn compute<'a>(&'a self, pool: &'a Pool) -> Compute<'a> {
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
        work: &mut Workspace,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        let (hidden, scratch) = self.hidden(work, token);
        Ok(self
            .head
            .logits(self.compute(pool), hidden, exact, scratch, out)?)
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
        work: &mut Workspace,
        token: usize,
        ids: &[u32],
        out: &mut [f32],
    ) -> Result<(), TextError> {
        let (hidden, scratch) = self.hidden(work, token);
        Ok(self
            .head
            .logits_of(self.compute(pool), hidden, ids, scratch, out)?)
    }

    /// Gives back the pages of the weights; what is read again comes from the file again.
    pub fn evict(&self) {
        self.weights.evict();
        self.head.evict();
    }

    /// The final hidden state of a token of the last chunk, and the buffers of the head.
    fn hidden<'w>(
        &self,
        work: &'w mut Workspace,
        token: usize,
    ) -> (&'w [f32], &'w mut head::Scratch) {
        let (d, ready) = (self.config.hidden_size, work.ready());
        assert!(
            token < ready,
            "token {token} of {ready} has no hidden state"
        );
        let work = &mut work.shared;
        (&work.hidden[token * d..(token + 1) * d], &mut work.head)
    }
}
