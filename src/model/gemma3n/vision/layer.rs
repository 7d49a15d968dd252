//! A block of the network, run over its input strip by strip.

use std::ops::Range;

use super::block::{Block, BlockKind};
use super::edge_residual::EdgeResidual;
use super::feature_map::{FeatureMap, RowSource};
use super::inverted_bottleneck::InvertedBottleneck;
use super::multi_query_attention::{self, MultiQueryAttention};
use super::pixelwise::Compute;
use crate::model::weights::{Mapped, WeightsError};

/// A block ready to run.
pub(super) struct Layer {
    pub(super) residual: bool,
    out_channels: usize,
    stride: usize,
    body: Body,
}

enum Body {
    EdgeResidual(EdgeResidual),
    InvertedBottleneck(InvertedBottleneck),
    MultiQueryAttention(MultiQueryAttention),
}

impl Layer {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        block: &Block,
    ) -> Result<Layer, WeightsError> {
        let Block {
            in_channels,
            out_channels,
            stride,
            residual,
            ..
        } = *block;
        let body = match block.kind {
            BlockKind::EdgeResidual {
                kernel,
                mid_channels,
            } => {
                let channels = [in_channels, mid_channels, out_channels];
                Body::EdgeResidual(EdgeResidual::load(
                    weights, prefix, channels, kernel, stride,
                )?)
            }
            BlockKind::InvertedBottleneck {
                start_kernel,
                mid_kernel,
                mid_channels,
            } => {
                let channels = [in_channels, mid_channels, out_channels];
                let kernels = [start_kernel, mid_kernel];
                Body::InvertedBottleneck(InvertedBottleneck::load(
                    weights, prefix, channels, kernels, stride,
                )?)
            }
            BlockKind::MultiQueryAttention {
                num_heads,
                key_dim,
                value_dim,
                kv_stride,
                kernel,
            } => {
                let heads = multi_query_attention::Heads {
                    num_heads,
                    key_dim,
                    value_dim,
                };
                let channels = [in_channels, out_channels];
                Body::MultiQueryAttention(MultiQueryAttention::load(
                    weights,
                    prefix,
                    channels,
                    heads,
                    [kernel, kv_stride],
                )?)
            }
        };
        Ok(Layer {
            residual,
            out_channels,
            stride,
            body,
        })
    }

    /// Adds the block's output to its input. A strip of the input is overwritten when nothing reads it any more: the
    /// blocks keep copies of the rows that their next strip needs.
    pub(super) fn run_in_place(&self, compute: Compute<'_>, mut map: FeatureMap) -> FeatureMap {
        self.strips(compute, &mut map, |map, rows, strip| {
            kernels::elementwise::add(compute.pool.isa(), map.rows_mut(rows), strip);
        });
        map
    }

    /// The block's output as a new feature map.
    pub(super) fn run<S: RowSource>(&self, compute: Compute<'_>, source: &mut S) -> FeatureMap {
        let [height, width, _] = source.shape();
        let [height, width] = [height, width].map(|side| side.div_ceil(self.stride));
        let mut out = FeatureMap::new(height, width, self.out_channels);
        self.strips(compute, source, |_, rows, strip| {
            out.rows_mut(rows).copy_from_slice(strip)
        });
        out
    }

    fn strips<S: RowSource>(
        &self,
        compute: Compute<'_>,
        source: &mut S,
        emit: impl FnMut(&mut S, Range<usize>, &[f32]),
    ) {
        match &self.body {
            Body::EdgeResidual(block) => block.run(compute, source, emit),
            Body::InvertedBottleneck(block) => block.run(compute, source, emit),
            Body::MultiQueryAttention(block) => block.run(compute, source, emit),
        }
    }
}
