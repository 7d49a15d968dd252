//! The buffers that a chunk of tokens passes through, allocated once.

use std::ops::Range;

use kernels::Inputs;

use super::attention;
use super::head;
use super::layout::Layout;
use super::per_layer_embedding::PerLayerInputs;
use super::rope::RopeTables;
use super::{LayerShape, feed_forward};

/// Buffers for chunks of up to `chunk` tokens, each with one role; D and P as in `config.json`.
#[derive(Debug)]
pub struct Workspace<S: Layout> {
    pub(crate) chunk: usize,
    pub(crate) per_layer_inputs: PerLayerInputs,
    pub(crate) rope: RopeTables,
    /// What linear layers read: the normed input of the module in work, \[T, D\].
    pub(crate) normed: Inputs,
    /// What attention, the feed-forward network or the per-layer input add to the residual path, \[T, D\].
    pub(crate) branch: Vec<f32>,
    /// The residual path (of the stream that is computed), \[T, D\].
    pub(crate) residual: Vec<f32>,
    /// Final hidden states of the tokens that went through every layer, \[ready, D\].
    pub(crate) hidden: Vec<f32>,
    /// What one module needs for itself; nothing in it outlives the module's call.
    pub(crate) scratch: Vec<f32>,
    /// Likewise, partial results of one token's attention, \[kv heads, parts, `part_len`\].
    pub(crate) attention_parts: Vec<f32>,
    pub(crate) head: head::Scratch,
    /// Those that only the family's layers have.
    pub(crate) own: S::Buffers,
    hidden_size: usize,
}

impl<S: Layout> Workspace<S> {
    /// Allocates the buffers for chunks of up to `chunk` tokens.
    pub fn new(config: &S::Config, chunk: usize) -> Workspace<S> {
        let dimensions = S::dimensions(config);
        let (d, layers) = (dimensions.hidden_size, &dimensions.layers);
        let ple_width = dimensions.ple.width;
        let most = |of: &dyn Fn(&LayerShape) -> usize| layers.iter().map(of).max().unwrap_or(0);
        let scratch = S::scratch_width(config)
            .max(most(&attention::scratch_width))
            .max(most(&|layer| {
                feed_forward::scratch_width(layer.ffn_width, d)
            }))
            // A row of the embedding table, or the context projection.
            .max(d.max(layers.len() * ple_width));
        let rows = |n: usize| vec![0.0; chunk * n];
        Workspace {
            chunk,
            per_layer_inputs: PerLayerInputs::new(chunk, layers.len(), ple_width),
            rope: RopeTables::new(layers, chunk),
            normed: Inputs::new(chunk, d),
            branch: rows(d),
            residual: rows(d),
            hidden: Vec::with_capacity(d),
            scratch: rows(scratch),
            attention_parts: vec![0.0; most(&attention::parts_len)],
            head: head::Scratch::default(),
            own: S::buffers(config, chunk),
            hidden_size: d,
        }
    }

    /// Tokens of the last chunk that went through every layer: all of them, or only the last with the K/V cut.
    pub fn ready(&self) -> usize {
        self.hidden.len() / self.hidden_size
    }

    /// The final hidden state \[D\] of such a token.
    ///
    /// # Panics
    /// If `token` is not below [`Workspace::ready`].
    pub(super) fn hidden_of(&self, token: usize) -> &[f32] {
        &self.hidden[self.place_of(token)]
    }

    /// The same, and the buffers of the head.
    pub(super) fn hidden_and_head(&mut self, token: usize) -> (&[f32], &mut head::Scratch) {
        let place = self.place_of(token);
        (&self.hidden[place], &mut self.head)
    }

    fn place_of(&self, token: usize) -> Range<usize> {
        let (d, ready) = (self.hidden_size, self.ready());
        assert!(
            token < ready,
            "token {token} of {ready} has no hidden state"
        );
        token * d..(token + 1) * d
    }

    /// Rows that logits have taken of the second plane of the LM head so far, where it has one.
    pub fn second_plane_rows(&self) -> u64 {
        self.head.rows_read()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = [
            &self.branch,
            &self.residual,
            &self.hidden,
            &self.scratch,
            &self.attention_parts,
        ];
        let floats: usize = floats.iter().map(|buffer| buffer.capacity()).sum();
        let shared =
            4 * floats + self.per_layer_inputs.bytes() + self.normed.bytes() + self.head.bytes();
        shared + S::buffer_bytes(&self.own)
    }
}
