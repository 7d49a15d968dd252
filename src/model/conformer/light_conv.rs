//! The light convolution of a conformer block.

use kernels::elementwise::{scale_add, sigmoid, silu};
use kernels::rms_norm::rms_norm_in_place;

use super::{Scratch, Shape, Step};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::weights::{Mapped, WeightsError};

/// The light convolution: gate, look a few frames back in each channel, norm, project.
///
/// ```text
/// g_t = a * sigmoid(b)                        [a; b] = linear_start rms(h_t; pre_layer_norm)
/// c_t = sum_j depthwise_conv1d[j] * g_{t - (kernel_size - 1) + j}     by channel
/// out = linear_end silu(rms(c_t; conv_norm))
/// ```
///
/// Source: `Gemma3nAudioConformerLightConv1d`, `Gemma4AudioLightConv1d`.
#[derive(Debug)]
pub(super) struct LightConv {
    pre_layer_norm: Vec<f32>,
    linear_start: ClippedLinear,
    /// `[kernel_size, hidden_size]`
    taps: Vec<f32>,
    pub(super) kernel_size: usize,
    conv_norm: Vec<f32>,
    linear_end: ClippedLinear,
}

impl LightConv {
    pub(super) fn load(
        weights: &Mapped,
        shape: &Shape,
        prefix: &str,
        matrix: &str,
    ) -> Result<LightConv, WeightsError> {
        let (width, kernel_size) = (shape.width, shape.conv_kernel);
        let linear = |part: &str, rows: usize| {
            ClippedLinear::load(weights, &format!("{prefix}.{part}{matrix}"), rows, width)
        };
        let by_channel = weights.vector(
            &format!("{prefix}.depthwise_conv1d.weight"),
            width * kernel_size,
        )?;
        let taps = (0..kernel_size)
            .flat_map(|j| by_channel.iter().skip(j).step_by(kernel_size))
            .copied()
            .collect();
        Ok(LightConv {
            pre_layer_norm: weights.vector(&format!("{prefix}.pre_layer_norm.weight"), width)?,
            linear_start: linear("linear_start", 2 * width)?,
            taps,
            kernel_size,
            conv_norm: weights.vector(&format!("{prefix}.conv_norm.weight"), width)?,
            linear_end: linear("linear_end", width)?,
        })
    }

    pub(super) fn add_to(
        &self,
        step: &Step<'_>,
        gated: &mut Vec<f32>,
        scratch: &mut Scratch,
        h: &mut [f32],
    ) {
        let (isa, width) = (step.pool.isa(), step.width);
        scratch.resize(h.len(), 2);
        step.norm_rows(h, &self.pre_layer_norm, &mut scratch.normed);
        step.linear(self.linear_start, &scratch.normed, &mut scratch.wide);
        for row in scratch.wide.chunks_exact_mut(2 * width) {
            let (value, gate) = row.split_at_mut(width);
            sigmoid(isa, gate);
            gated.extend(
                value
                    .iter()
                    .zip(gate.iter())
                    .map(|(value, gate)| value * gate),
            );
        }
        for (t, out) in scratch.normed.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            for (tap, frame) in self
                .taps
                .chunks_exact(width)
                .zip(gated[t * width..].chunks_exact(width))
            {
                for ((out, tap), x) in out.iter_mut().zip(tap).zip(frame) {
                    *out += tap * x;
                }
            }
            rms_norm_in_place(isa, out, Some(&self.conv_norm), step.eps);
            silu(isa, out);
        }
        gated.drain(..h.len());
        step.linear(self.linear_end, &scratch.normed, &mut scratch.out);
        scale_add(isa, h, 1.0, &scratch.out);
    }
}
