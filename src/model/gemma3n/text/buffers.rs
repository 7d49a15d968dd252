//! The buffers that the layers of Gemma 3n need beside those of any decoder.

use super::sparse_feed_forward::ActiveNeurons;
use crate::model::gemma3n::config::TextConfig;

/// Buffers for chunks of up to `chunk` tokens; D and A as in `config.json`.
#[derive(Debug)]
pub struct Buffers {
    /// Residual streams, \[T, A, D\]: before a layer, predicted, corrected.
    pub(super) streams: Vec<f32>,
    /// LAuReL's output, \[T, D\].
    pub(super) laurel: Vec<f32>,
    pub(super) active_neurons: ActiveNeurons,
    /// Width of a token's streams.
    pub(super) streams_width: usize,
}

impl Buffers {
    pub(super) fn new(config: &TextConfig, chunk: usize) -> Buffers {
        let d = config.hidden_size;
        let ffn_width = config.intermediate_size.iter().copied().max();
        let streams_width = config.altup_num_inputs * d;
        Buffers {
            streams: vec![0.0; chunk * streams_width],
            laurel: vec![0.0; chunk * d],
            active_neurons: ActiveNeurons::new(ffn_width.unwrap_or(0)),
            streams_width,
        }
    }

    /// The streams of `t` tokens.
    pub(super) fn streams(&mut self, t: usize) -> &mut [f32] {
        &mut self.streams[..t * self.streams_width]
    }

    /// The last `kept` of `t` tokens are the only ones from now on.
    pub(super) fn keep_last(&mut self, t: usize, kept: usize) {
        let width = self.streams_width;
        self.streams.copy_within((t - kept) * width..t * width, 0);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.streams.len() + self.laurel.len()) + self.active_neurons.bytes()
    }
}
