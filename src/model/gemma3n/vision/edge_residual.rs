//! ER, the edge residual block: a full convolution widens the channels, a pointwise one narrows them again.

use std::ops::Range;

use kernels::conv;

use super::feature_map::{RowSource, RowWindow, Strips, Walk};
use super::pixelwise::{Activation, Compute, Norm};
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// `out = rms(pwl · gelu(rms(exp * x)))`, `exp` of `kernel x kernel` with a stride.
///
/// Source: timm `EdgeResidual`; MobileNetV4 (arXiv 2404.10518), "fused inverted bottleneck".
pub(super) struct EdgeResidual {
    kernel: usize,
    stride: usize,
    /// `[mid, in, kernel, kernel]`
    conv_exp: Tensor,
    bn1: Norm,
    /// `[out, mid]`
    conv_pwl: Tensor,
    bn2: Norm,
}

impl EdgeResidual {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        [in_channels, mid_channels, out_channels]: [usize; 3],
        kernel: usize,
        stride: usize,
    ) -> Result<Self, WeightsError> {
        let patch = in_channels * kernel * kernel;
        Ok(EdgeResidual {
            kernel,
            stride,
            conv_exp: weights.matrix(&format!("{prefix}.conv_exp.weight"), mid_channels, patch)?,
            bn1: Norm::load(weights, &format!("{prefix}.bn1.weight"), mid_channels)?,
            conv_pwl: weights.matrix(
                &format!("{prefix}.conv_pwl.weight"),
                out_channels,
                mid_channels,
            )?,
            bn2: Norm::load(weights, &format!("{prefix}.bn2.weight"), out_channels)?,
        })
    }

    /// Computes the block strip by strip and hands each strip of the output, with its rows, to `emit`.
    pub(super) fn run<S: RowSource>(
        &self,
        compute: Compute<'_>,
        source: &mut S,
        mut emit: impl FnMut(&mut S, Range<usize>, &[f32]),
    ) {
        let [height, width, channels] = source.shape();
        let down = Walk::same(height, self.kernel, self.stride);
        let across = Walk::same(width, self.kernel, self.stride);
        let window = across.window(channels);
        let (patch, mid, out) = (self.conv_exp.cols, self.conv_exp.rows, self.conv_pwl.rows);
        let row_len = across.output * (patch + mid + out) + self.stride * width * channels;
        let strips = Strips::new(down.output, row_len);
        let mut held = RowWindow::new(width * channels, down.most_inputs(strips.height));
        let (mut patches, mut mids, mut outs) = (Vec::new(), Vec::new(), Vec::new());

        for rows in strips.iter() {
            held.slide(down.inputs(rows.clone()), |rows, to| {
                source.read(compute.pool, rows, to)
            });
            let pixels = rows.len() * across.output;
            patches.resize(pixels * patch, 0.0);
            compute
                .pool
                .for_each_row_mut(&mut patches, patch, &|pixel, to| {
                    let y = rows.start + pixel / across.output;
                    let input = held.rows(down.inputs(y..y + 1));
                    conv::patch(
                        &window,
                        input,
                        down.rows_above(y),
                        pixel % across.output,
                        to,
                    );
                });
            mids.resize(pixels * mid, 0.0);
            compute.pointwise(self.conv_exp, &patches, &mut mids);
            self.bn1.apply(compute.pool, &mut mids, Activation::Gelu);
            outs.resize(pixels * out, 0.0);
            compute.pointwise(self.conv_pwl, &mids, &mut outs);
            self.bn2.apply(compute.pool, &mut outs, Activation::None);
            emit(source, rows, &outs);
        }
    }
}
