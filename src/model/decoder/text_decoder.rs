//! The text model with its buffers, as the rest of the program sees it.

use std::ops::Range;

use kernels::Pool;

use super::kv_cache::KvCache;
use super::stack::Stack;
use super::{
    Chunks, Decoder, Exact, Lane, LayerShape, Probe, Slice, TextError, TextModel, Tokens, Watch,
    Workspace,
};
use crate::model::weights::{Mapped, PleStore, Stretch};

/// The text model with its buffers.
#[derive(Debug)]
pub(in crate::model) struct TextDecoder<S: Stack> {
    text: TextModel<S>,
    work: Workspace<S>,
}

impl<S: Stack> TextDecoder<S> {
    /// For chunks of up to `chunk` tokens.
    pub(in crate::model) fn new(text: TextModel<S>, chunk: usize) -> TextDecoder<S> {
        TextDecoder {
            work: Workspace::new(text.config(), chunk),
            text,
        }
    }
}

impl<S: Stack> Decoder for TextDecoder<S> {
    fn layers(&self) -> &[LayerShape] {
        self.text.layers()
    }

    fn weights(&self) -> &Mapped {
        self.text.weights()
    }

    fn ple(&self) -> &PleStore {
        self.text.ple()
    }

    fn serves(&self, slice: &Slice) -> bool {
        self.text.serves(slice)
    }

    fn unused_by(&self, slice: &Slice) -> Vec<Stretch> {
        self.text.unused_by(slice)
    }

    fn evict(&self) {
        self.text.evict();
    }

    fn start<'t>(&self, cache: &mut KvCache, tokens: Tokens<'t>) -> Result<Chunks<'t>, TextError> {
        self.text.start(cache, tokens)
    }

    fn take_chunk(
        &mut self,
        pool: &Pool,
        cache: &mut KvCache,
        chunks: &mut Chunks<'_>,
        probe: Probe<'_>,
        watch: Watch<'_>,
    ) -> Result<bool, TextError> {
        self.text
            .take_chunk(pool, cache, &mut self.work, chunks, probe, watch)
    }

    fn take_together(
        &mut self,
        pool: &Pool,
        lanes: &mut [Lane<'_>],
        ids: &[u32],
        slice: &Slice,
        on_layer: &mut dyn FnMut(),
    ) -> Result<(), TextError> {
        self.text
            .take_together(pool, lanes, &mut self.work, ids, slice, on_layer)
    }

    fn ready(&self) -> usize {
        self.work.ready()
    }

    fn logits(
        &mut self,
        pool: &Pool,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        self.text.logits(pool, &mut self.work, token, exact, out)
    }

    fn products(&self, pool: &Pool, tokens: Range<usize>, out: &mut [f32]) {
        self.text.products(pool, &self.work, tokens, out);
    }

    fn finish_logits(
        &mut self,
        pool: &Pool,
        token: usize,
        exact: Exact<'_>,
        out: &mut [f32],
    ) -> Result<(), TextError> {
        self.text
            .finish_logits(pool, &mut self.work, token, exact, out)
    }

    fn logits_of(
        &mut self,
        pool: &Pool,
        token: usize,
        ids: &[u32],
        out: &mut [f32],
    ) -> Result<(), TextError> {
        self.text.logits_of(pool, &mut self.work, token, ids, out)
    }

    fn hidden(&self, token: usize) -> &[f32] {
        self.work.hidden_of(token)
    }

    fn embedding(&mut self, pool: &Pool, id: u32, out: &mut [f32]) -> Result<(), TextError> {
        self.text.embedding(pool, &mut self.work, id, out)
    }

    fn second_plane_rows(&self) -> u64 {
        self.work.second_plane_rows()
    }

    fn buffer_bytes(&self) -> usize {
        self.work.bytes()
    }

    fn resize(&mut self, chunk: usize) {
        self.work = Workspace::new(self.text.config(), chunk);
    }
}
