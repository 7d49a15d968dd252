//! The decoder of Gemma 3n: layers over several residual streams, of which one is computed.
//!
//! Source: reference section 2. What any decoder has, [`decoder::TextModel`] calls.

mod altup;
mod buffers;
mod laurel;
mod layer;
mod sparse_feed_forward;
mod streams;

use self::buffers::Buffers;
use self::layer::Layer;
use self::streams::StreamProjections;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::{
    self, Compute, Dimensions, Lane, LayerShape, Layout, Loader, Probe, Stack, Step,
};
use crate::model::gemma3n::config::TextConfig;
use crate::model::weights::WeightsError;

/// The decoder's weights and the PLE table.
pub type TextModel = decoder::TextModel<Layers>;
/// Every buffer that a chunk of tokens passes through.
pub type Workspace = decoder::Workspace<Layers>;
/// The text model with its buffers.
pub(in crate::model) type TextDecoder = decoder::TextDecoder<Layers>;

/// The layers, and the projections of their streams.
#[derive(Debug)]
pub struct Layers {
    layers: Vec<Layer>,
    streams: StreamProjections,
}

impl Layout for Layers {
    type Config = TextConfig;
    type Buffers = Buffers;

    fn dimensions(config: &TextConfig) -> Dimensions {
        Dimensions {
            layers: config.layers(),
            hidden_size: config.hidden_size,
            ple: config.ple_shape(),
            vocab_size: config.vocab_size,
            text_vocab_size: config.vocab_size_per_layer_input,
            row_ids: config.row_ids(),
            max_context: config.max_position_embeddings,
            rms_norm_eps: config.rms_norm_eps,
            final_logit_softcapping: config.final_logit_softcapping,
        }
    }

    fn buffers(config: &TextConfig, chunk: usize) -> Buffers {
        Buffers::new(config, chunk)
    }

    fn buffer_bytes(buffers: &Buffers) -> usize {
        buffers.bytes()
    }

    /// LAuReL's low rank; two streams; a stream and a per-layer input.
    fn scratch_width(config: &TextConfig) -> usize {
        let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
        config.laurel_rank.max(2 * d).max(d + p)
    }
}

impl Stack for Layers {
    fn load(
        loader: &Loader<'_>,
        config: &TextConfig,
        layers: &[LayerShape],
    ) -> Result<Layers, WeightsError> {
        let layers = layers.iter().enumerate();
        let layers = layers.map(|(index, shape)| Layer::load(loader, config, shape, index));
        Ok(Layers {
            layers: layers.collect::<Result<_, _>>()?,
            streams: StreamProjections::load(loader, config.altup_num_inputs, config.hidden_size)?,
        })
    }

    fn feed_forward(&self, layer: usize) -> &FeedForward {
        self.layers[layer].feed_forward()
    }

    fn enter(&self, compute: Compute<'_>, work: &mut Workspace, t: usize, probe: Probe<'_>) {
        let embeds = &work.residual[..t * self.streams.d];
        let streams = work.own.streams(t);
        self.streams
            .split(compute, embeds, &mut work.scratch, streams);
        probe("altup_init", 0, streams);
    }

    fn write_kv(
        &self,
        layer: usize,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace,
        t: usize,
    ) {
        self.layers[layer].predict(compute, lanes, work, t);
    }

    fn keep_last(
        &self,
        layer: usize,
        compute: Compute<'_>,
        work: &mut Workspace,
        t: usize,
        kept: usize,
    ) {
        work.own.keep_last(t, kept);
        self.layers[layer].norm_input(compute, work, kept);
    }

    fn forward(
        &self,
        layer: usize,
        compute: Compute<'_>,
        lanes: &[Lane<'_>],
        work: &mut Workspace,
        step: &Step,
        probe: Probe<'_>,
    ) {
        self.layers[layer].forward(compute, lanes, work, step, probe);
    }

    /// The streams become one (reference 2.7).
    fn leave(&self, compute: Compute<'_>, work: &mut Workspace, t: usize) {
        let streams = work.own.streams(t);
        let merged = &mut work.residual[..t * self.streams.d];
        self.streams
            .merge(compute, streams, &mut work.scratch, merged);
    }
}
