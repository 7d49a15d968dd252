//! What a family's decoder has of its own, and what it does not: its layers are called through this.

use std::ops::Range;

use super::feed_forward::FeedForward;
use super::layout::Layout;
use super::{Compute, Lane, LayerShape, Loader, Probe, Workspace};
use crate::model::weights::WeightsError;

/// How a layer is to treat the tokens it is given.
pub struct Step {
    /// Which of the chunk in work they are: of one of several lanes, all.
    pub(crate) tokens: Range<usize>,
    /// FFN width.
    pub(crate) width: usize,
    /// Through a sparse FFN only the active rows are read.
    pub(crate) skip_zeros: bool,
}

/// The layers of a family. Tokens come to the first and leave the last in the workspace's `residual`, \[T, D\].
pub trait Stack: Layout + Send + Sync {
    /// Finds every tensor of the layers.
    ///
    /// # Errors
    /// One is missing or has another shape or type than `config` implies.
    fn load(
        loader: &Loader<'_>,
        config: &Self::Config,
        layers: &[LayerShape],
    ) -> Result<Self, WeightsError>;

    /// The feed-forward network of a layer.
    fn feed_forward(&self, layer: usize) -> &FeedForward;

    /// The embeddings of `t` tokens become what the first layer takes.
    fn enter(&self, _: Compute<'_>, _: &mut Workspace<Self>, _: usize, _: Probe<'_>) {}

    /// What a layer does before attention for the first `t` tokens of the workspace, and their keys and values, which others read too.
    fn write_kv(
        &self,
        layer: usize,
        compute: Compute<'_>,
        lanes: &mut [Lane<'_>],
        work: &mut Workspace<Self>,
        t: usize,
    );

    /// Of `t` tokens for which a layer has written keys and values, the last `kept` are the only ones from now on.
    fn keep_last(
        &self,
        layer: usize,
        compute: Compute<'_>,
        work: &mut Workspace<Self>,
        t: usize,
        kept: usize,
    );

    /// The rest of a layer, for tokens that stand at the beginning of the workspace.
    fn forward(
        &self,
        layer: usize,
        compute: Compute<'_>,
        lanes: &[Lane<'_>],
        work: &mut Workspace<Self>,
        step: &Step,
        probe: Probe<'_>,
    );

    /// What the last layer gives of `t` tokens becomes what the final norm takes.
    fn leave(&self, _: Compute<'_>, _: &mut Workspace<Self>, _: usize) {}
}
