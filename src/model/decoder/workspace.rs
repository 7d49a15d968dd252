//! The buffers that a chunk of tokens passes through in any decoder, allocated once.

use kernels::Inputs;

use super::attention;
use super::head;
use super::per_layer_embedding::PerLayerInputs;
use super::rope::RopeTables;
use super::{LayerShape, feed_forward};

/// Buffers for chunks of up to `chunk` tokens, each with one role; D and P as in `config.json`.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) chunk: usize,
    pub(crate) per_layer_inputs: PerLayerInputs,
    pub(crate) rope: RopeTables,
    /// What linear layers read: the normed input of the module in work, \[T, D\].
    pub(crate) normed: Inputs,
    /// What attention, the feed-forward network or the per-layer input add to the residual path, \[T, D\].
    pub(crate) branch: Vec<f32>,
    /// The residual path of the stream that is computed, \[T, D\].
    pub(crate) residual: Vec<f32>,
    /// Final hidden states of the tokens that went through every layer, \[ready, D\].
    pub(crate) hidden: Vec<f32>,
    /// What one module needs for itself; nothing in it outlives the module's call.
    pub(crate) scratch: Vec<f32>,
    /// Likewise, partial results of one token's attention, \[kv heads, parts, `part_len`\].
    pub(crate) attention_parts: Vec<f32>,
    pub(crate) head: head::Scratch,
    hidden_size: usize,
}

impl Workspace {
    /// `scratch` is how much a token needs beyond what the parts of any decoder do.
    pub(crate) fn new(
        layers: &[LayerShape],
        hidden_size: usize,
        ple_width: usize,
        scratch: usize,
        chunk: usize,
    ) -> Workspace {
        let d = hidden_size;
        let most = |of: &dyn Fn(&LayerShape) -> usize| layers.iter().map(of).max().unwrap_or(0);
        let scratch = scratch
            .max(most(&attention::scratch_width))
            .max(most(&|layer| {
                feed_forward::scratch_width(layer.ffn_width, d)
            }))
            // Embeddings, and beside them the context projection or a row of the embedding table.
            .max(d + d.max(layers.len() * ple_width));
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
            hidden_size,
        }
    }

    /// Tokens of the last chunk that went through every layer.
    pub(crate) fn ready(&self) -> usize {
        self.hidden.len() / self.hidden_size
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let floats = [
            &self.branch,
            &self.residual,
            &self.hidden,
            &self.scratch,
            &self.attention_parts,
        ];
        let floats: usize = floats.iter().map(|buffer| buffer.capacity()).sum();
        4 * floats + self.per_layer_inputs.bytes() + self.normed.bytes() + self.head.bytes()
    }
}
