//! The way of a chunk from token ids to the final hidden state, and where a prompt may leave it early.

use std::ops::{ControlFlow, Range};

use kernels::Pool;

use super::kv_cache::KvCache;
use super::stack::{Stack, Step};
use super::text_model::TextModel;
use super::{
    Chunks, Compute, Lane, Probe, Slice, TextError, Tokens, Watch, Workspace, lane,
    last_kv_producer, no_probe,
};
use crate::model::weights::WeightsError;

/// What of the model a chunk passes.
#[derive(Clone, Copy)]
struct Pass<'a> {
    /// Tokens.
    t: usize,
    slice: &'a Slice,
    /// Whether the prompt ends with it.
    is_last: bool,
    /// Whether its tokens leave behind the last K/V producer, all but the last of the prompt.
    cut: bool,
    /// How many tokens do not, where the prompt ends with it.
    kept: usize,
    skip_zeros: bool,
}

impl Pass<'_> {
    /// How many of its tokens, the first ones, need nothing behind the last K/V producer.
    fn leaving(self) -> usize {
        match self.cut {
            true if self.is_last => self.t - self.kept,
            true => self.t,
            false => 0,
        }
    }
}

impl<S: Stack> TextModel<S> {
    /// Takes the next chunk of a prompt; whether there are more. Between two of them `work` may serve another context.
    ///
    /// # Errors
    /// What is read by row cannot be read, or [`TextError::Interrupted`].
    pub fn take_chunk(
        &self,
        pool: &Pool,
        cache: &mut KvCache,
        work: &mut Workspace<S>,
        prompt: &mut Chunks<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<bool, TextError> {
        let Tokens {
            ids,
            media_rows,
            slice,
            shortcuts,
            logits,
        } = prompt.tokens;
        let chunk = work.chunk.min(cache.chunk());
        let end = ids.len().min(prompt.done + chunk);
        self.request_rows(prompt, chunk);
        let now = &ids[prompt.done..end];
        let d = self.dimensions.hidden_size;
        let (rows, later) = media_rows.split_at(self.media_count(now) * d);
        let is_last = end == ids.len();
        let kept = logits.clamp(1, now.len());
        let pass = Pass {
            t: now.len(),
            slice,
            is_last,
            // A single token passes every layer, cut or not.
            cut: shortcuts.kv_cut && !(is_last && now.len() == kept),
            kept,
            skip_zeros: shortcuts.sparse_ffn,
        };
        let compute = self.compute(pool);
        self.enter(compute, work, now, rows, pass, probe)?;
        prompt.tokens.media_rows = later;
        let mut lane = [Lane {
            cache,
            tokens: pass.t,
        }];
        let passed = self.pass_layers(compute, &mut lane, work, pass, probe, watch);
        if passed.is_break() {
            lane[0].cache.clear();
            return Err(TextError::Interrupted);
        }
        prompt.done = end;
        Ok(!is_last)
    }

    /// Takes text of several contexts, which stands in `ids` one lane behind the other; every token passes every layer and has logits. What
    /// comes of each lane is, bit by bit, what would have come of it alone. `on_layer` is called before each layer.
    ///
    /// # Errors
    /// Nothing was changed: a lane's tokens do not fit its context, hold an id that is unknown or no text, or went through a slice whose K
    /// and V do not serve this one; or what is read by row cannot be read.
    ///
    /// # Panics
    /// If there are more tokens than a chunk has, or `ids` are not as many as the lanes' tokens.
    pub fn take_together(
        &self,
        pool: &Pool,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace<S>,
        ids: &[u32],
        slice: &Slice,
        on_layer: &mut dyn FnMut(),
    ) -> Result<(), TextError> {
        let t = lane::tokens(lanes);
        assert!(
            t == ids.len() && t <= work.chunk,
            "{} ids for {t} tokens of a chunk of {}",
            ids.len(),
            work.chunk
        );
        let mut rest = ids;
        for lane in &*lanes {
            let own;
            (own, rest) = rest.split_at(lane.tokens);
            self.check(lane.cache, Tokens::new(own, slice))?;
        }
        let pass = Pass {
            t,
            slice,
            is_last: true,
            cut: false,
            kept: t,
            skip_zeros: true,
        };
        self.ple.request(self.ple_rows(ids), self.layers().len());
        let compute = self.compute(pool);
        self.enter(compute, work, ids, &[], pass, &mut no_probe)?;
        for lane in &mut *lanes {
            lane.cache.slice.get_or_insert_with(|| slice.clone());
        }
        let watch: Watch<'_> = &mut || {
            on_layer();
            ControlFlow::Continue(())
        };
        // Nobody breaks off what is others' as well.
        match self.pass_layers(compute, lanes, work, pass, &mut no_probe, watch) {
            ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(()),
        }
    }

    /// Asks for rows of the PLE table as far ahead as the row cache reaches; a single token is waited for anyhow.
    fn request_rows(&self, prompt: &mut Chunks<'_>, chunk: usize) {
        let ids = prompt.tokens.ids;
        if ids.len() > 1 {
            let ahead = ids.len().min(prompt.done + self.ple.capacity().max(chunk));
            let leaving = match prompt.tokens.shortcuts.kv_cut {
                true => {
                    let kept = prompt.tokens.logits.clamp(1, ids.len());
                    ahead.min(ids.len() - kept).max(prompt.requested)
                }
                false => prompt.requested,
            };
            let request = |ids: &[u32], layers| self.ple.request(self.ple_rows(ids), layers);
            request(&ids[prompt.requested..leaving], self.last_producer());
            request(&ids[leaving..ahead], self.layers().len());
            prompt.requested = ahead;
        }
    }

    fn ple_rows(&self, ids: &[u32]) -> impl Iterator<Item = u32> {
        ids.iter().map(|&id| self.dimensions.ple_row(id))
    }

    /// Embeddings and per-layer inputs, and what the first layer takes.
    fn enter(
        &self,
        compute: Compute<'_>,
        work: &mut Workspace<S>,
        ids: &[u32],
        media_rows: &[f32],
        pass: Pass<'_>,
        probe: Probe<'_>,
    ) -> Result<(), WeightsError> {
        let (t, d) = (pass.t, self.dimensions.hidden_size);
        self.embed(compute, ids, media_rows, work)?;
        probe("embeds", 0, &work.residual[..t * d]);
        let leaving = pass.leaving();
        let parts = [
            (0..leaving, self.last_producer()),
            (leaving..t, self.layers().len()),
        ];
        for (tokens, layers) in parts.clone() {
            let rows = self.ple_rows(&ids[tokens.clone()]);
            let out = work.per_layer_inputs.rows_mut(tokens);
            self.ple.read(compute.isa(), rows, layers, out)?;
        }
        probe("ple_gather", 0, work.per_layer_inputs.rows(0..t));
        for (tokens, layers) in parts {
            self.mix_context(compute, work, tokens, layers);
        }
        probe("per_layer_inputs", 0, work.per_layer_inputs.rows(0..t));
        self.stack.enter(compute, work, t, probe);
        Ok(())
    }

    /// Per-layer inputs of the first `layers` layers for some tokens, whose embeddings stand in `residual`.
    fn mix_context(
        &self,
        compute: Compute<'_>,
        work: &mut Workspace<S>,
        tokens: Range<usize>,
        layers: usize,
    ) {
        if tokens.is_empty() || layers == 0 {
            return;
        }
        let d = self.dimensions.hidden_size;
        let embeds = &work.residual[tokens.start * d..tokens.end * d];
        let inputs = work.per_layer_inputs.rows_mut(tokens);
        self.context_projection
            .forward(compute, embeds, layers, inputs, &mut work.scratch);
    }

    /// Scaled rows of `embed_tokens`, and the given rows at media positions, which are not scaled, in `residual`.
    fn embed(
        &self,
        compute: Compute<'_>,
        ids: &[u32],
        media_rows: &[f32],
        work: &mut Workspace<S>,
    ) -> Result<(), WeightsError> {
        let d = self.dimensions.hidden_size;
        let scale = (d as f32).sqrt();
        let takes_row = |&id: &u32| self.dimensions.takes_row(id);
        let (mut embeds, mut media_rows) = (&mut work.residual[..ids.len() * d], media_rows);
        let (head, row) = (&mut work.head, &mut work.scratch[..d]);
        for ids in ids.chunk_by(|a, b| takes_row(a) == takes_row(b)) {
            let now;
            (now, embeds) = embeds.split_at_mut(ids.len() * d);
            if takes_row(&ids[0]) {
                let rows;
                (rows, media_rows) = media_rows.split_at(now.len());
                now.copy_from_slice(rows);
            } else {
                self.head.embed(compute, ids, head, row, now)?;
                now.iter_mut().for_each(|x| *x *= scale);
            }
        }
        Ok(())
    }

    /// Every layer of the slice, or those that the chunk does not leave out, and the final norm.
    fn pass_layers(
        &self,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace<S>,
        pass: Pass<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> ControlFlow<()> {
        let (t, stack) = (pass.t, &self.stack);
        work.hidden.clear();
        let mut first = 0;
        for lane in &*lanes {
            work.rope.fill(first, lane.cache.position(), lane.tokens);
            first += lane.tokens;
        }
        let mut first = 0;
        for layer in pass.slice.layers() {
            watch()?;
            stack.write_kv(layer, compute, lanes, work, t - first);
            if pass.cut && layer == self.last_producer() {
                if !pass.is_last {
                    finish_layer(lanes, layer);
                    break;
                }
                stack.keep_last(layer, compute, work, t, pass.kept);
                first = t - pass.kept;
            }
            let step = Step {
                tokens: first..t,
                width: pass.slice.width(layer).unwrap_or(0),
                skip_zeros: pass.skip_zeros,
            };
            stack.forward(layer, compute, lanes, work, &step, probe);
            finish_layer(lanes, layer);
        }
        if pass.is_last || !pass.cut {
            self.leave(compute, work, t - first);
            probe("final_norm", 0, &work.hidden);
        }
        for lane in lanes {
            lane.cache.finish_chunk(lane.tokens);
        }
        ControlFlow::Continue(())
    }

    /// The final norm of `t` tokens.
    fn leave(&self, compute: Compute<'_>, work: &mut Workspace<S>, t: usize) {
        let d = self.dimensions.hidden_size;
        self.stack.leave(compute, work, t);
        work.hidden.extend_from_slice(&work.residual[..t * d]);
        self.norm.rows(compute.pool, &mut work.hidden, d);
    }

    fn last_producer(&self) -> usize {
        last_kv_producer(self.layers())
    }
}

fn finish_layer(lanes: &mut [Lane<'_>], layer: usize) {
    for lane in lanes {
        lane.cache.finish_layer(layer, lane.tokens);
    }
}
