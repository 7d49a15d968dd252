//! The decoder: token ids (and rows for media tokens) to logits.
//!
//! Source: reference section 2. Tokens go through in chunks; [`TextModel::extend`] is prefill and decode step alike.

mod altup;
mod laurel;
mod layer;
mod workspace;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use kernels::Pool;

use self::layer::Layer;
pub use self::workspace::Workspace;
use super::matformer::Slice;
use crate::model::config::TextConfig;
pub use crate::model::decoder::head::Exact;
use crate::model::decoder::head::{self, Head};
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::load;
use crate::model::decoder::per_layer_embedding::ContextProjection;
use crate::model::weights::{
    Checkpoint, Group, Mapped, PleOptions, PleStore, Stretch, Tensor, WeightsError,
};

/// Sees intermediate results by name and layer: (name, layer, values). Normal use passes a closure that does nothing.
pub type Probe<'a> = &'a mut dyn FnMut(&'static str, usize, &[f32]);

/// A probe that looks at nothing.
pub fn no_probe(_: &'static str, _: usize, _: &[f32]) {}

/// A prompt that cannot be taken into the context.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// More tokens than the context has room for.
    #[error(
        "the prompt needs {needed} tokens and {used} of the context's {context} are in use: shorten it or raise the context (at most {limit})"
    )]
    ContextFull {
        /// Tokens to add.
        needed: usize,
        /// Tokens in the cache.
        used: usize,
        /// Room in all.
        context: usize,
        /// What the model supports.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// Media tokens and the rows given for them differ in number.
    #[error("the prompt has {tokens} media tokens, but {rows} embeddings were given for them")]
    MediaRows {
        /// Ids beyond the text vocabulary.
        tokens: usize,
        /// Rows given.
        rows: usize,
    },
    /// The tokens so far went through a slice whose K and V do not serve this one.
    #[error(
        "the conversation so far went through MatFormer slice {before:?}, whose keys and values do not fit slice {now:?}: start a new conversation"
    )]
    OtherSlice {
        /// The slice of the tokens in the cache.
        before: String,
        /// The slice asked for.
        now: String,
    },
    /// Nothing to do.
    #[error("the prompt is empty")]
    Empty,
    /// Whoever watches broke it off between two layers; the cache is empty now, for a part of a chunk is of no use.
    #[error("broken off")]
    Interrupted,
    /// What is read by row (the per-layer-embedding table, a second plane of the LM head) cannot be read any more; the tokens before
    /// the chunk at hand were taken.
    #[error(transparent)]
    Rows(#[from] WeightsError),
}

/// Called before each layer: tells a watchdog that work goes on, and may break it off.
pub type Watch<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// A prompt that is taken chunk by chunk, and how much of it has been.
pub struct Chunks<'a> {
    ids: &'a [u32],
    /// Of the ids beyond the text vocabulary that are still to come.
    media_rows: &'a [f32],
    slice: &'a Slice,
    /// Tokens whose rows of the per-layer embedding have been asked for, and tokens taken.
    requested: usize,
    done: usize,
}

/// What may be switched off to compare with the plain computation; the results are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcuts {
    /// Only the last token of a prompt passes the layers behind the last K/V producer (reference 11.1).
    pub kv_cut: bool,
    /// A single token through a sparse FFN reads only the active rows (reference 11.2).
    pub sparse_ffn: bool,
    /// Where a grammar allows few tokens, only their rows of the LM head are read.
    pub head_rows: bool,
    /// Of an LM head in two planes, the second is read where it decides ([`Exact::Best`]).
    pub head_planes: bool,
    /// Tokens that a grammar forces pass the layers together.
    pub forced_runs: bool,
}

impl Default for Shortcuts {
    fn default() -> Shortcuts {
        Shortcuts {
            kv_cut: true,
            sparse_ffn: true,
            head_rows: true,
            head_planes: true,
            forced_runs: true,
        }
    }
}

/// How a layer is to treat the tokens it is given.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Tokens.
    t: usize,
    /// The first of them, counted in the chunk in work.
    first: usize,
    /// FFN width.
    width: usize,
    sparse: bool,
    /// Where the layer's inputs start in a token's row of per-layer inputs, and the length of the row.
    ple_offset: usize,
    ple_stride: usize,
}

/// The decoder's weights and the PLE table.
#[derive(Debug)]
pub struct TextModel {
    config: TextConfig,
    weights: Arc<Mapped>,
    ple: PleStore,
    head: Head,
    layers: Vec<Layer>,
    context_projection: ContextProjection,
    altup_projections: Vec<Tensor>,
    altup_unembed_projections: Vec<Tensor>,
    norm: Vec<f32>,
    /// Which shortcuts are taken.
    pub shortcuts: Shortcuts,
}

impl TextModel {
    /// Maps the text group, opens the PLE table with the default options, and checks every tensor against the configuration.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type than `config` implies.
    pub fn load(checkpoint: &Checkpoint, config: &TextConfig) -> Result<TextModel, WeightsError> {
        let ple = PleStore::open(checkpoint, config, &PleOptions::default(), &mut |_, _| {})?;
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
        let d = config.hidden_size;
        let name = |leaf: &str| format!("{}{leaf}", load::PREFIX);
        let stream_matrices = |leaf: &str| {
            (0..config.altup_num_inputs - 1)
                .map(|i| weights.matrix(&name(&format!("{leaf}.{i}.weight")), d, d))
                .collect::<Result<Vec<_>, _>>()
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(&weights, config, index))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(TextModel {
            head: Head::load(checkpoint, &weights, config)?,
            layers,
            context_projection: ContextProjection::load(&weights, config)?,
            altup_projections: stream_matrices("altup_projections")?,
            altup_unembed_projections: stream_matrices("altup_unembed_projections")?,
            norm: weights.vector(&name("norm.weight"), d)?,
            ple,
            config: config.clone(),
            weights,
            shortcuts: Shortcuts::default(),
        })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &TextConfig {
        &self.config
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

    /// Takes tokens into the context: a prompt, or one decoded token.
    ///
    /// Ids beyond the text vocabulary take their embedding from `media_rows`, \[number of such ids, D\], in the order in
    /// which they stand in `ids`. Afterwards [`TextModel::logits`] has the logits of the last token.
    ///
    /// # Errors
    /// Nothing was changed when the prompt does not fit the context, holds an unknown id, or the number of media rows
    /// differs from the number of media ids. When what is read by row cannot be read, the chunks before that were taken.
    pub fn extend(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace,
        ids: &[u32],
        media_rows: &[f32],
        slice: &Slice,
        probe: Probe<'_>,
    ) -> Result<(), TextError> {
        let watch: Watch<'_> = &mut || ControlFlow::Continue(());
        self.extend_watched(pool, cache, work, ids, media_rows, slice, probe, watch)
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
        ids: &[u32],
        media_rows: &[f32],
        slice: &Slice,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<(), TextError> {
        let mut prompt = self.start(cache, ids, media_rows, slice)?;
        while self.take_chunk(pool, cache, work, &mut prompt, probe, watch)? {}
        Ok(())
    }

    /// Begins to take tokens into the context, to be taken by [`TextModel::take_chunk`].
    ///
    /// # Errors
    /// As [`TextModel::extend`]: the prompt does not fit the context, holds an unknown id, or lacks rows.
    pub fn start<'a>(
        &self,
        cache: &mut KvCache,
        ids: &'a [u32],
        media_rows: &'a [f32],
        slice: &'a Slice,
    ) -> Result<Chunks<'a>, TextError> {
        self.check(cache, ids, media_rows, slice)?;
        cache.slice.get_or_insert_with(|| slice.clone());
        Ok(Chunks {
            ids,
            media_rows,
            slice,
            requested: 0,
            done: 0,
        })
    }

    /// Takes the next chunk of a prompt; whether there are more. Between two of them `work` may serve another context.
    ///
    /// # Errors
    /// What is read by row cannot be read, or [`TextError::Interrupted`].
    pub fn take_chunk(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace,
        prompt: &mut Chunks<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<bool, TextError> {
        let Chunks {
            ids, slice, done, ..
        } = *prompt;
        let chunk = work.chunk.min(cache.chunk());
        let end = ids.len().min(done + chunk);
        // As far ahead as the row cache reaches; a single token is waited for anyhow.
        let ahead = ids.len().min(done + self.ple.capacity().max(chunk));
        if ids.len() > 1 {
            self.ple.request(&ids[prompt.requested..ahead]);
            prompt.requested = ahead;
        }
        let now = &ids[done..end];
        let rows = &mut work.per_layer_inputs[..now.len() * self.ple.width()];
        self.ple.read(pool.isa(), now, rows)?;
        let rows = self.media_count(now) * self.config.hidden_size;
        let (rows, later) = prompt.media_rows.split_at(rows);
        prompt.media_rows = later;
        self.embed(pool, work, now, rows)?;
        let is_last = end == ids.len();
        let passed =
            self.extend_by_chunk(pool, cache, work, now.len(), slice, is_last, probe, watch);
        if passed.is_break() {
            cache.clear();
            return Err(TextError::Interrupted);
        }
        prompt.done = end;
        Ok(!is_last)
    }

    fn media_count(&self, ids: &[u32]) -> usize {
        ids.iter()
            .filter(|&&id| id as usize >= self.text_vocab_size())
            .count()
    }

    fn check(
        &self,
        cache: &KvCache,
        ids: &[u32],
        media_rows: &[f32],
        slice: &Slice,
    ) -> Result<(), TextError> {
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
            Some(before) if !before.shares_kv_with(slice, &self.config) => {
                Err(TextError::OtherSlice {
                    before: before.name.clone(),
                    now: slice.name.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn extend_by_chunk(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace,
        t: usize,
        slice: &Slice,
        is_last: bool,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> ControlFlow<()> {
        let last_producer = self.config.first_kv_shared_layer() - 1;
        // A single token passes every layer, cut or not.
        let cut = self.shortcuts.kv_cut && !(is_last && t == 1);
        let prompt_layers = if cut {
            last_producer
        } else {
            self.config.num_hidden_layers
        };
        probe("embeds", 0, &work.out[..t * self.config.hidden_size]);
        let width = self.ple.width();
        probe("ple_gather", 0, &work.per_layer_inputs[..t * width]);
        self.per_layer_inputs(pool, work, 0..t, 0..prompt_layers);
        if cut && is_last {
            let beyond = prompt_layers..self.config.num_hidden_layers;
            self.per_layer_inputs(pool, work, t - 1..t, beyond);
        }
        probe("per_layer_inputs", 0, &work.per_layer_inputs[..t * width]);
        self.initial_streams(pool, work, t);
        probe(
            "altup_init",
            0,
            &work.h[..t * self.config.altup_num_inputs * self.config.hidden_size],
        );
        work.rope_full.fill(cache.position(), t);
        work.rope_sliding.fill(cache.position(), t);

        let mut first = 0;
        for index in slice.layers() {
            watch()?;
            let layer = &self.layers[index];
            layer.predict_and_write_kv(pool, &self.weights, cache, work, t - first);
            if cut && index == last_producer {
                if !is_last {
                    cache.finish_layer(index, t);
                    break;
                }
                let streams = self.config.altup_num_inputs * self.config.hidden_size;
                work.h.copy_within((t - 1) * streams..t * streams, 0);
                layer.norm_active(pool, work, 1);
                first = t - 1;
            }
            let p = self.config.hidden_size_per_layer_input;
            let step = Step {
                t: t - first,
                first,
                width: slice.width(index).unwrap_or(0),
                sparse: self.shortcuts.sparse_ffn,
                ple_offset: index * p,
                ple_stride: width,
            };
            layer.forward(pool, &self.weights, cache, work, step, probe);
            if index <= last_producer {
                cache.finish_layer(index, t);
            }
        }
        work.ready = 0;
        if is_last || !cut {
            self.final_hidden(pool, work, t - first);
            work.ready = t - first;
            probe(
                "final_norm",
                0,
                &work.hidden[..work.ready * self.config.hidden_size],
            );
        }
        cache.finish_chunk(t);
        ControlFlow::Continue(())
    }

    /// Scaled rows of `embed_tokens`, and the given rows at media positions, which are not scaled (reference 2.1, 5).
    fn embed(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        ids: &[u32],
        media_rows: &[f32],
    ) -> Result<(), WeightsError> {
        let d = self.config.hidden_size;
        let scale = (d as f32).sqrt();
        let is_text = |&id: &u32| (id as usize) < self.text_vocab_size();
        let Workspace {
            out, laurel, head, ..
        } = work;
        let mut e = &mut out[..ids.len() * d];
        let mut media_rows = media_rows;
        for ids in ids.chunk_by(|a, b| is_text(a) == is_text(b)) {
            let (now, later) = e.split_at_mut(ids.len() * d);
            e = later;
            if is_text(&ids[0]) {
                self.head
                    .embed(pool, &self.weights, ids, head, &mut laurel[..d], now)?;
                now.iter_mut().for_each(|x| *x *= scale);
            } else {
                let (rows, later) = media_rows.split_at(now.len());
                now.copy_from_slice(rows);
                media_rows = later;
            }
        }
        Ok(())
    }

    /// Turns rows of the table into the inputs of some layers, for some tokens of the chunk.
    fn per_layer_inputs(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        tokens: Range<usize>,
        layers: Range<usize>,
    ) {
        let (d, width) = (self.config.hidden_size, self.ple.width());
        let t = tokens.len();
        let e = &work.out[tokens.start * d..tokens.end * d];
        let inputs = &mut work.per_layer_inputs[tokens.start * width..tokens.end * width];
        let scratch = &mut work.wide;
        self.context_projection
            .forward(pool, &self.weights, e, t, layers, inputs, scratch);
    }

    /// Stream 0 is the embedding; the others are projections of it, scaled to its magnitude (reference 2.3).
    fn initial_streams(&self, pool: &Pool, work: &mut Workspace, t: usize) {
        let (a, d) = (self.config.altup_num_inputs, self.config.hidden_size);
        let Workspace {
            out: e, h, laurel, ..
        } = work;
        for (h, e) in h.chunks_exact_mut(a * d).zip(e.chunks_exact(d)).take(t) {
            h[..d].copy_from_slice(e);
        }
        for (i, &projection) in self.altup_projections.iter().enumerate() {
            let u = &mut laurel[..t * d];
            kernels::matmul::matmul(pool, self.weights.view(projection), &e[..t * d], t, u);
            for t in 0..t {
                let u = &mut u[t * d..(t + 1) * d];
                altup::match_magnitude(pool.isa(), &e[t * d..(t + 1) * d], u);
                h[(t * a + i + 1) * d..(t * a + i + 2) * d].copy_from_slice(u);
            }
        }
    }

    /// Mean of the streams, each but the first projected and scaled to the first's magnitude, then normed (reference
    /// 2.7): `work.h` → `work.hidden`.
    fn final_hidden(&self, pool: &Pool, work: &mut Workspace, t: usize) {
        let (a, d) = (self.config.altup_num_inputs, self.config.hidden_size);
        let Workspace {
            h,
            laurel,
            out,
            hidden,
            ..
        } = work;
        for (hidden, h) in hidden
            .chunks_exact_mut(d)
            .zip(h.chunks_exact(a * d))
            .take(t)
        {
            hidden.copy_from_slice(&h[..d]);
        }
        for (i, &projection) in self.altup_unembed_projections.iter().enumerate() {
            let stream = &mut laurel[..t * d];
            for (stream, h) in stream.chunks_exact_mut(d).zip(h.chunks_exact(a * d)) {
                stream.copy_from_slice(&h[(i + 1) * d..(i + 2) * d]);
            }
            let u = &mut out[..t * d];
            kernels::matmul::matmul(pool, self.weights.view(projection), stream, t, u);
            for (t, u) in u.chunks_exact_mut(d).enumerate() {
                altup::match_magnitude(pool.isa(), &h[t * a * d..t * a * d + d], u);
                kernels::elementwise::add(pool.isa(), &mut hidden[t * d..(t + 1) * d], u);
            }
        }
        for hidden in hidden.chunks_exact_mut(d).take(t) {
            for x in hidden.iter_mut() {
                *x /= a as f32;
            }
            kernels::rms_norm::rms_norm_in_place(
                pool.isa(),
                hidden,
                Some(&self.norm),
                self.config.rms_norm_eps,
            );
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
        let exact = match self.shortcuts.head_planes {
            true => exact,
            false => Exact::All,
        };
        let (hidden, scratch) = self.hidden(work, token);
        Ok(self
            .head
            .logits(pool, &self.weights, hidden, exact, scratch, out)?)
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
            .logits_of(pool, &self.weights, hidden, ids, scratch, out)?)
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
        let d = self.config.hidden_size;
        assert!(
            token < work.ready,
            "token {token} of {} has no hidden state",
            work.ready
        );
        (&work.hidden[token * d..(token + 1) * d], &mut work.head)
    }
}
