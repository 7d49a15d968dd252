//! Two strided convolutions that turn 100 log-mel frames a second into 25 frames of the conformer's width.

use kernels::layer_norm::layer_norm_relu;
use kernels::{Pool, matmul};

use super::super::config::AudioConfig;
use crate::model::conformer::{ConvShape, ConvState, FREQUENCY_PADDING, StridedConv};
use crate::model::encoder::AudioError;
use crate::model::weights::{Mapped, Tensor};

/// Input values that an output value of a convolution sees, in time and in frequency: its own and one on each side.
const KERNEL: usize = 3;
/// Steps from one output value to the next, in time and in frequency.
const STRIDE: usize = 2;
/// Log-mel frames for one frame of output.
pub(super) const FRAMES_OF_MEL: usize = STRIDE * STRIDE;

/// The sub-sampling convolutions and the projection to `hidden_size` (reference section 4.2).
///
/// | | shape |
/// |---|---|
/// | log-mel frames | `[F, bands]` |
/// | after `layer0`: convolution, norm over channels, ReLU | `[ceil(F / 2), bands / 2, channels_0]` |
/// | after `layer1`, likewise | `[ceil(F / 4), bands / 4, channels_1]` |
/// | frames | `[ceil(F / 4), hidden_size]` |
///
/// Source: `Gemma4AudioSubSampleConvProjection`.
#[derive(Debug)]
pub struct SubsampleConv {
    layers: [Layer; 2],
    input_proj_linear: Tensor,
}

/// What the convolutions remember of a clip.
#[derive(Clone, Debug)]
pub struct SubsampleState {
    layers: [ConvState; 2],
    between: Vec<f32>,
    projected_from: Vec<f32>,
}

impl SubsampleConv {
    /// Finds the tensors in `weights`, whose names begin with `prefix`, for log-mel frames of `bands`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type.
    pub fn load(
        weights: &Mapped,
        config: &AudioConfig,
        bands: usize,
        prefix: &str,
    ) -> Result<SubsampleConv, AudioError> {
        let [channels_0, channels_1] = config.subsampling_conv_channels;
        let eps = config.rms_norm_eps;
        let layer = |i: usize, in_freq: usize, in_channels: usize, out_channels: usize| {
            let prefix = format!("{prefix}.layer{i}");
            Layer::load(weights, &prefix, in_freq, [in_channels, out_channels], eps)
        };
        let layer_0 = layer(0, bands, 1, channels_0)?;
        let layer_1 = layer(1, layer_0.conv.out_freq(), channels_0, channels_1)?;
        let input_proj_linear = weights.matrix(
            &format!("{prefix}.input_proj_linear.weight"),
            config.hidden_size,
            layer_1.conv.out_len(),
        )?;
        Ok(SubsampleConv {
            layers: [layer_0, layer_1],
            input_proj_linear,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> SubsampleState {
        SubsampleState {
            layers: self.layers.each_ref().map(|layer| layer.conv.start()),
            between: Vec::new(),
            projected_from: Vec::new(),
        }
    }

    /// Takes `log_mel` `[frames, bands]` and appends the frames that have become final, `[frames, hidden_size]`, to `out`; with `end`,
    /// all that remain.
    pub fn push(
        &self,
        pool: &Pool,
        weights: &Mapped,
        state: &mut SubsampleState,
        log_mel: &[f32],
        end: bool,
        out: &mut Vec<f32>,
    ) {
        let SubsampleState {
            layers: [state_0, state_1],
            between,
            projected_from,
        } = state;
        between.clear();
        projected_from.clear();
        self.layers[0].push(pool, weights, state_0, log_mel, end, between);
        self.layers[1].push(pool, weights, state_1, between, end, projected_from);
        let projection = self.input_proj_linear;
        let frames = projected_from.len() / projection.cols;
        let start = out.len();
        out.resize(start + frames * projection.rows, 0.0);
        let out = &mut out[start..];
        matmul::matmul(pool, weights.view(projection), projected_from, frames, out);
    }
}

/// One convolution, its norm and ReLU.
///
/// Source: `Gemma4AudioSubSampleConvProjectionLayer`.
#[derive(Debug)]
struct Layer {
    conv: StridedConv,
    /// `[channels]`
    norm: Vec<f32>,
    eps: f32,
}

impl Layer {
    fn load(
        weights: &Mapped,
        prefix: &str,
        in_freq: usize,
        [in_channels, out_channels]: [usize; 2],
        eps: f32,
    ) -> Result<Layer, AudioError> {
        let shape = ConvShape {
            in_freq,
            in_channels,
            out_channels,
            kernel: [KERNEL; 2],
            frames_before: FREQUENCY_PADDING,
            stride: [STRIDE; 2],
        };
        // A frame has at least one frequency, and the padding makes it as many as the kernel sees.
        let out_freq = in_freq.div_ceil(STRIDE);
        Ok(Layer {
            conv: StridedConv::load(weights, shape, out_freq, &format!("{prefix}.conv.weight"))?,
            norm: weights.vector(&format!("{prefix}.norm.weight"), out_channels)?,
            eps,
        })
    }

    fn push(
        &self,
        pool: &Pool,
        weights: &Mapped,
        state: &mut ConvState,
        input: &[f32],
        end: bool,
        out: &mut Vec<f32>,
    ) {
        let start = out.len();
        self.conv.push(pool, weights, state, input, end, out);
        pool.for_each_row_mut(&mut out[start..], self.conv.out_len(), &|_, frame| {
            layer_norm_relu(pool.isa(), frame, &self.norm, self.eps);
        });
    }
}
