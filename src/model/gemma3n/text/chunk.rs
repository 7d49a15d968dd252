//! The way of a chunk from token ids to the final hidden state, and where a prompt may leave it early.

use std::ops::ControlFlow;

use kernels::Pool;

use super::layer::Step;
use super::{TextModel, Workspace};
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{
    Chunks, Compute, Probe, Slice, TextError, Tokens, Watch, head, last_kv_producer,
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
    skip_zeros: bool,
}

impl TextModel {
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
        let Tokens {
            ids,
            media_rows,
            slice,
            shortcuts,
        } = prompt.tokens;
        let chunk = work.shared.chunk.min(cache.chunk());
        let end = ids.len().min(prompt.done + chunk);
        self.request_rows(prompt, chunk);
        let now = &ids[prompt.done..end];
        let (rows, later) = media_rows.split_at(self.media_count(now) * self.config.hidden_size);
        let is_last = end == ids.len();
        let pass = Pass {
            t: now.len(),
            slice,
            is_last,
            // A single token passes every layer, cut or not.
            cut: shortcuts.kv_cut && !(is_last && now.len() == 1),
            skip_zeros: shortcuts.sparse_ffn,
        };
        let compute = self.compute(pool);
        self.enter(compute, work, now, rows, pass, probe)?;
        prompt.tokens.media_rows = later;
        let passed = self.pass_layers(compute, cache, work, pass, probe, watch);
        if passed.is_break() {
            cache.clear();
            return Err(TextError::Interrupted);
        }
        prompt.done = end;
        Ok(!is_last)
    }

    /// Asks for rows of the PLE table as far ahead as the row cache reaches; a single token is waited for anyhow.
    fn request_rows(&self, prompt: &mut Chunks<'_>, chunk: usize) {
        let ids = prompt.tokens.ids;
        if ids.len() > 1 {
            let ahead = ids.len().min(prompt.done + self.ple.capacity().max(chunk));
            self.ple.request(&ids[prompt.requested..ahead]);
            prompt.requested = ahead;
        }
    }

    /// Embeddings, per-layer inputs and streams (reference 2.1 to 2.3).
    fn enter(
        &self,
        compute: Compute<'_>,
        work: &mut Workspace,
        ids: &[u32],
        media_rows: &[f32],
        pass: Pass<'_>,
        probe: Probe<'_>,
    ) -> Result<(), WeightsError> {
        let (t, d) = (pass.t, self.config.hidden_size);
        let head = &mut work.shared.head;
        let (embeds, scratch) = work.shared.scratch.split_at_mut(t * d);
        let inputs = &mut work.shared.per_layer_inputs;
        self.ple.read(compute.isa(), ids, inputs.rows_mut(0..t))?;
        self.embed(compute, ids, media_rows, head, &mut scratch[..d], embeds)?;
        probe("embeds", 0, embeds);
        probe("ple_gather", 0, inputs.rows(0..t));
        let (context, layers) = (&self.context_projection, self.layers.len());
        let first_layers = match pass.cut {
            true => self.last_producer(),
            false => layers,
        };
        let rows = inputs.rows_mut(0..t);
        context.forward(compute, embeds, 0..first_layers, rows, scratch);
        if pass.cut && pass.is_last {
            let (last, rows) = (&embeds[(t - 1) * d..], inputs.rows_mut(t - 1..t));
            context.forward(compute, last, first_layers..layers, rows, scratch);
        }
        probe("per_layer_inputs", 0, inputs.rows(0..t));
        let streams = &mut work.streams[..t * self.config.altup_num_inputs * d];
        self.streams.split(compute, embeds, scratch, streams);
        probe("altup_init", 0, streams);
        Ok(())
    }

    /// Scaled rows of `embed_tokens`, and the given rows at media positions, which are not scaled (reference 2.1, 5).
    fn embed(
        &self,
        compute: Compute<'_>,
        ids: &[u32],
        media_rows: &[f32],
        head: &mut head::Scratch,
        row: &mut [f32],
        embeds: &mut [f32],
    ) -> Result<(), WeightsError> {
        let d = self.config.hidden_size;
        let scale = (d as f32).sqrt();
        let is_text = |&id: &u32| (id as usize) < self.text_vocab_size();
        let (mut embeds, mut media_rows) = (embeds, media_rows);
        for ids in ids.chunk_by(|a, b| is_text(a) == is_text(b)) {
            let now;
            (now, embeds) = embeds.split_at_mut(ids.len() * d);
            if is_text(&ids[0]) {
                self.head.embed(compute, ids, head, row, now)?;
                now.iter_mut().for_each(|x| *x *= scale);
            } else {
                let rows;
                (rows, media_rows) = media_rows.split_at(now.len());
                now.copy_from_slice(rows);
            }
        }
        Ok(())
    }

    /// Every layer of the slice, or those that the chunk does not leave out, and the final norm.
    fn pass_layers(
        &self,
        compute: Compute<'_>,
        cache: &mut KvCache,
        work: &mut Workspace,
        pass: Pass<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> ControlFlow<()> {
        let t = pass.t;
        work.shared.hidden.clear();
        work.shared.rope.fill(cache.position(), t);
        let mut first = 0;
        for index in pass.slice.layers() {
            watch()?;
            let layer = &self.layers[index];
            layer.predict(compute, cache, work, t - first);
            if pass.cut && index == self.last_producer() {
                if !pass.is_last {
                    cache.finish_layer(index, t);
                    break;
                }
                work.keep_last(t);
                layer.norm_input(compute, &mut work.of(1));
                first = t - 1;
            }
            let step = Step {
                tokens: first..t,
                width: pass.slice.width(index).unwrap_or(0),
                skip_zeros: pass.skip_zeros,
            };
            layer.forward(compute, cache, work, step, probe);
            cache.finish_layer(index, t);
        }
        if pass.is_last || !pass.cut {
            self.leave(compute, work, t - first);
            probe("final_norm", 0, &work.shared.hidden);
        }
        cache.finish_chunk(t);
        ControlFlow::Continue(())
    }

    /// The streams of `t` tokens become one, which is normed (reference 2.7).
    fn leave(&self, compute: Compute<'_>, work: &mut Workspace, t: usize) {
        let d = self.config.hidden_size;
        work.shared.hidden.resize(t * d, 0.0);
        let (hidden, scratch) = (&mut work.shared.hidden, &mut work.shared.scratch);
        let streams = &work.streams[..t * self.config.altup_num_inputs * d];
        self.streams.merge(compute, streams, scratch, hidden);
        self.norm.rows(compute.pool, hidden, d);
    }

    fn last_producer(&self) -> usize {
        last_kv_producer(&self.shapes)
    }
}
