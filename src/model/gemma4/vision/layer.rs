//! A layer of the transformer.

use super::Loader;
use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::rope::RopeTable;
use crate::model::decoder::Compute;
use crate::model::weights::WeightsError;

/// Attention, then the feed-forward network, each added to the patches.
pub(super) struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    pub(super) fn load(loader: &Loader<'_>) -> Result<Layer, WeightsError> {
        Ok(Layer {
            attention: Attention::load(loader)?,
            feed_forward: FeedForward::load(loader)?,
        })
    }

    /// Patches `x` `[patches, hidden]` become the layer's output; `attended` as [`Attention::add_to`] wants it.
    pub(super) fn run(
        &self,
        compute: Compute<'_>,
        rope: &RopeTable,
        x: &mut [f32],
        attended: &mut [f32],
        between: &mut dyn FnMut(),
    ) {
        self.attention.add_to(compute, rope, x, attended, between);
        self.feed_forward.add_to(compute, x, between);
    }
}
