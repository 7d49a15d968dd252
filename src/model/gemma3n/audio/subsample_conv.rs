//! Two strided convolutions that turn 100 log-mel frames a second into 25 frames of the conformer's width.

use kernels::{Pool, matmul};

use super::super::config::AudioConfig;
use super::cumulative_group_norm::{CumulativeGroupNorm, Sums};
use crate::model::conformer::{ConvShape, ConvState, FREQUENCY_PADDING, StridedConv};
use crate::model::encoder::AudioError;
use crate::model::weights::{Mapped, Tensor};

/// The sub-sampling convolutions (SSCP) and the projection to `hidden_size`.
///
/// | | shape |
/// |---|---|
/// | log-mel frames | `[F, input_feat_size]` |
/// | after `conv_0`, its norm and ReLU | `[ceil(F / 2), freq_0, channels_0]` |
/// | after `conv_1`, its norm and ReLU | `[ceil(F / 4), freq_1, channels_1]` |
/// | frames | `[ceil(F / 4), hidden_size]` |
///
/// (for the released strides of 2).
///
/// Source: `Gemma3nAudioSubSampleConvProjection`.
#[derive(Debug)]
pub struct SubsampleConv {
    convs: [Conv; 2],
    input_proj_linear: Tensor,
}

/// What the convolutions remember of a clip.
#[derive(Clone, Debug)]
pub struct SubsampleState {
    convs: [(ConvState, Sums); 2],
    between: Vec<f32>,
    projected_from: Vec<f32>,
}

impl SubsampleConv {
    /// Finds the tensors of `audio_tower.subsample_conv_projection` in `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type, or a kernel is larger than its input.
    pub fn load(
        weights: &Mapped,
        config: &AudioConfig,
        prefix: &str,
    ) -> Result<SubsampleConv, AudioError> {
        let conv_0 = Conv::load(weights, config, prefix, 0, config.input_feat_size, 1)?;
        let conv_1 = Conv::load(
            weights,
            config,
            prefix,
            1,
            conv_0.conv.out_freq(),
            config.sscp_conv_channel_size[0],
        )?;
        let input_proj_linear = weights.matrix(
            &format!("{prefix}.input_proj_linear.weight"),
            config.hidden_size,
            conv_1.conv.out_len(),
        )?;
        Ok(SubsampleConv {
            convs: [conv_0, conv_1],
            input_proj_linear,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> SubsampleState {
        SubsampleState {
            convs: self
                .convs
                .each_ref()
                .map(|part| (part.conv.start(), Sums::default())),
            between: Vec::new(),
            projected_from: Vec::new(),
        }
    }

    /// Log-mel frames for one frame of output.
    pub fn time_stride(&self) -> usize {
        self.convs
            .iter()
            .map(|part| part.conv.time_stride())
            .product()
    }

    /// Takes `log_mel` `[frames, input_feat_size]` and appends the frames that have become final, `[frames, hidden_size]`, to
    /// `out`; with `end`, all that remain.
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
            convs: [state_0, state_1],
            between,
            projected_from,
        } = state;
        between.clear();
        projected_from.clear();
        self.convs[0].push(pool, weights, state_0, log_mel, end, between);
        self.convs[1].push(pool, weights, state_1, between, end, projected_from);
        let frames = projected_from.len() / self.input_proj_linear.cols;
        let start = out.len();
        out.resize(start + frames * self.input_proj_linear.rows, 0.0);
        matmul::matmul(
            pool,
            weights.view(self.input_proj_linear),
            projected_from,
            frames,
            &mut out[start..],
        );
    }
}

/// One convolution, its norm and ReLU.
///
/// Source: `Gemma3nAudioSSCPConvBlock`.
#[derive(Debug)]
struct Conv {
    conv: StridedConv,
    norm: CumulativeGroupNorm,
}

impl Conv {
    fn load(
        weights: &Mapped,
        config: &AudioConfig,
        prefix: &str,
        i: usize,
        in_freq: usize,
        in_channels: usize,
    ) -> Result<Conv, AudioError> {
        let shape = ConvShape {
            in_freq,
            in_channels,
            out_channels: config.sscp_conv_channel_size[i],
            kernel: config.sscp_conv_kernel_size[i],
            frames_before: 0,
            stride: config.sscp_conv_stride_size[i],
        };
        let out_freq = shape.out_freq().ok_or_else(|| AudioError::Config {
            key: "sscp_conv_kernel_size",
            reason: format!(
                "convolution {i} spans {} frequencies of {}",
                shape.kernel[1],
                in_freq + 2 * FREQUENCY_PADDING
            ),
        })?;
        let name = |leaf: &str| format!("{prefix}.conv_{i}.{leaf}.weight");
        Ok(Conv {
            conv: StridedConv::load(weights, shape, out_freq, &name("conv"))?,
            norm: CumulativeGroupNorm::load(
                weights,
                shape.out_channels,
                config.sscp_conv_group_norm_eps,
                &name("norm"),
            )?,
        })
    }

    fn push(
        &self,
        pool: &Pool,
        weights: &Mapped,
        (state, sums): &mut (ConvState, Sums),
        input: &[f32],
        end: bool,
        out: &mut Vec<f32>,
    ) {
        let start = out.len();
        self.conv.push(pool, weights, state, input, end, out);
        for frame in out[start..].chunks_exact_mut(self.conv.out_len()) {
            self.norm.forward(sums, frame);
        }
    }
}
