//! The decoder of Gemma 4: layers over one residual stream.
//!
//! Source: reference section 2. What any decoder has, [`decoder::TextModel`] calls.

mod layer;

use self::layer::Layer;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::{
    self, Compute, Dimensions, Lane, LayerShape, Layout, Loader, Probe, Stack, Step,
};
use crate::model::gemma4::config::Config;
use crate::model::weights::WeightsError;

/// The decoder's weights and the PLE table.
pub(super) type TextModel = decoder::TextModel<Layers>;
/// Every buffer that a chunk of tokens passes through.
pub(super) type Workspace = decoder::Workspace<Layers>;
/// The text model with its buffers.
pub(super) type TextDecoder = decoder::TextDecoder<Layers>;

/// The layers.
#[derive(Debug)]
pub(super) struct Layers(Vec<Layer>);

impl Layout for Layers {
    type Config = Config;
    type Buffers = ();

    fn dimensions(config: &Config) -> Dimensions {
        let text = &config.text;
        Dimensions {
            layers: text.layers(),
            hidden_size: text.hidden_size,
            ple: text.ple_shape(),
            vocab_size: text.vocab_size,
            text_vocab_size: text.vocab_size,
            row_ids: config.row_ids(),
            max_context: text.max_position_embeddings,
            rms_norm_eps: text.rms_norm_eps,
            final_logit_softcapping: text.final_logit_softcapping,
        }
    }

    fn buffers(_: &Config, _: usize) {}

    fn buffer_bytes((): &()) -> usize {
        0
    }
}

impl Stack for Layers {
    fn load(
        loader: &Loader<'_>,
        config: &Config,
        layers: &[LayerShape],
    ) -> Result<Layers, WeightsError> {
        let layers = layers.iter().enumerate();
        let layers = layers.map(|(index, shape)| Layer::load(loader, &config.text, shape, index));
        Ok(Layers(layers.collect::<Result<_, _>>()?))
    }

    fn feed_forward(&self, layer: usize) -> &FeedForward {
        self.0[layer].feed_forward()
    }

    fn write_kv(
        &self,
        layer: usize,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace,
        t: usize,
    ) {
        self.0[layer].write_kv(compute, lanes, work, t);
    }

    fn keep_last(
        &self,
        layer: usize,
        compute: Compute<'_>,
        work: &mut Workspace,
        t: usize,
        kept: usize,
    ) {
        self.0[layer].keep_last(compute, work, t, kept);
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
        self.0[layer].forward(compute, lanes, work, step, probe);
    }
}
