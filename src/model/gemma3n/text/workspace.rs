//! Every buffer that a chunk of tokens passes through, allocated once.

use kernels::Inputs;

use super::sparse_feed_forward::ActiveNeurons;
use crate::model::decoder;
use crate::model::decoder::per_layer_embedding::PerLayerInputs;
use crate::model::decoder::rope::RopeTables;
use crate::model::gemma3n::config::TextConfig;

/// Buffers for chunks of up to `chunk` tokens; D and A as in `config.json`.
#[derive(Debug)]
pub struct Workspace {
    /// Those that any decoder has.
    pub(super) shared: decoder::Workspace,
    /// Residual streams, \[T, A, D\]: before a layer, predicted, corrected.
    pub(super) streams: Vec<f32>,
    /// LAuReL's output, \[T, D\].
    laurel: Vec<f32>,
    active_neurons: ActiveNeurons,
    /// Widths of a token's streams and of one of them.
    streams_width: usize,
    hidden_size: usize,
}

/// The buffers of some tokens, by role.
pub(super) struct Buffers<'w> {
    pub(super) tokens: usize,
    pub(super) streams: &'w mut [f32],
    pub(super) normed: &'w mut Inputs,
    pub(super) laurel: &'w mut [f32],
    pub(super) branch: &'w mut [f32],
    pub(super) residual: &'w mut [f32],
    pub(super) per_layer_inputs: &'w mut PerLayerInputs,
    pub(super) rope: &'w RopeTables,
    pub(super) active_neurons: &'w mut ActiveNeurons,
    pub(super) attention_parts: &'w mut [f32],
    pub(super) scratch: &'w mut [f32],
}

impl Workspace {
    /// Allocates the buffers for chunks of up to `chunk` tokens.
    pub fn new(config: &TextConfig, chunk: usize) -> Workspace {
        let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
        let layers = config.layers();
        let ffn_width = layers.iter().map(|layer| layer.ffn_width).max();
        let streams_width = config.altup_num_inputs * d;
        Workspace {
            shared: decoder::Workspace::new(&layers, d, p, config.laurel_rank, chunk),
            streams: vec![0.0; chunk * streams_width],
            laurel: vec![0.0; chunk * d],
            active_neurons: ActiveNeurons::new(ffn_width.unwrap_or(0)),
            streams_width,
            hidden_size: d,
        }
    }

    /// The buffers of `t` tokens.
    pub(super) fn of(&mut self, t: usize) -> Buffers<'_> {
        let d = self.hidden_size;
        Buffers {
            tokens: t,
            streams: &mut self.streams[..t * self.streams_width],
            normed: &mut self.shared.normed,
            laurel: &mut self.laurel[..t * d],
            branch: &mut self.shared.branch[..t * d],
            residual: &mut self.shared.residual[..t * d],
            per_layer_inputs: &mut self.shared.per_layer_inputs,
            rope: &self.shared.rope,
            active_neurons: &mut self.active_neurons,
            attention_parts: &mut self.shared.attention_parts,
            scratch: &mut self.shared.scratch,
        }
    }

    /// The last of `t` tokens is the only one from now on.
    pub(super) fn keep_last(&mut self, t: usize) {
        let width = self.streams_width;
        self.streams.copy_within((t - 1) * width..t * width, 0);
    }

    /// Tokens of the last chunk that went through every layer: all of them, or only the last with the K/V cut.
    pub fn ready(&self) -> usize {
        self.shared.ready()
    }

    /// Rows that logits have taken of the second plane of the LM head so far, where it has one.
    pub fn second_plane_rows(&self) -> u64 {
        self.shared.head.rows_read()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.streams.len() + self.laurel.len();
        4 * floats + self.active_neurons.bytes() + self.shared.bytes()
    }
}
