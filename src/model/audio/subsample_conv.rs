//! Two strided convolutions that turn 100 log-mel frames a second into 25 frames of the conformer's width.

use kernels::{Pool, matmul};

use super::AudioError;
use crate::model::config::AudioConfig;
use crate::model::weights::{Mapped, Tensor};

/// Zeros on each side of the frequency axis.
const FREQUENCY_PADDING: usize = 1;

/// The sub-sampling convolutions (SSCP) and the projection to `hidden_size`.
///
/// | | shape |
/// |---|---|
/// | log-mel frames | `[F, input_feat_size]` |
/// | after `conv_0`, its norm and ReLU | `[ceil(F / 2), freq_0, channels_0]` |
/// | after `conv_1`, its norm and ReLU | `[ceil(F / 4), freq_1, channels_1]` |
/// | frames | `[ceil(F / 4), hidden_size]` |
///
/// (for the released strides of 2). A convolution sees its own frame and the ones *after* it; behind the last there are zeros. So
/// an output is final once the frames that it sees are there.
///
/// Source: `Gemma3nAudioSubSampleConvProjection`.
#[derive(Debug)]
pub struct SubsampleConv {
    convs: [Conv; 2],
    input_proj_linear: Tensor,
}

/// What the convolutions remember of a clip.
#[derive(Debug)]
pub struct SubsampleState {
    convs: [ConvState; 2],
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
            conv_0.out_freq,
            conv_0.out_channels,
        )?;
        let flat = conv_1.out_freq * conv_1.out_channels;
        let input_proj_linear = weights.matrix(
            &format!("{prefix}.input_proj_linear.weight"),
            config.hidden_size,
            flat,
        )?;
        Ok(SubsampleConv {
            convs: [conv_0, conv_1],
            input_proj_linear,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> SubsampleState {
        SubsampleState {
            convs: self.convs.each_ref().map(|_| ConvState::default()),
            between: Vec::new(),
            projected_from: Vec::new(),
        }
    }

    /// Log-mel frames for one frame of output.
    pub fn time_stride(&self) -> usize {
        self.convs.iter().map(|conv| conv.stride[0]).product()
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
        matmul::matmul_in_any_order(
            pool,
            weights.view(self.input_proj_linear),
            projected_from,
            frames,
            &mut out[start..],
        );
    }
}

/// One convolution, its cumulative group norm and ReLU.
///
/// The norm knows only the past. With `x_t` the `n` values of frame `t`:
///
/// ```text
/// S_t = S_{t-1} + sum(x_t);             mu_t = S_t / (n t)
/// Q_t = Q_{t-1} + sum((x_t - mu_t)^2);  y_t = (x_t - mu_t) / sqrt(Q_t / (n t) + eps) * norm[channel]
/// ```
///
/// Each frame deviates from its own running mean, so `Q_t / (n t)` is not quite the variance; the model was trained so. The sums
/// grow with the clip and are f64.
///
/// Source: `Gemma3nAudioSSCPConvBlock`, `Gemma3nAudioCumulativeGroupNorm`.
#[derive(Debug)]
struct Conv {
    /// `[out_channels, in_channels, kernel time, kernel frequency]`
    weight: Tensor,
    norm: Vec<f32>,
    eps: f64,
    in_freq: usize,
    in_channels: usize,
    out_freq: usize,
    out_channels: usize,
    /// (time, frequency)
    kernel: [usize; 2],
    stride: [usize; 2],
}

#[derive(Debug, Default)]
struct ConvState {
    /// Input frames from the first that the next output sees, `[frame][freq][channel]`.
    pending: Vec<f32>,
    /// Frames still to come that no output sees (only where the stride is larger than the kernel).
    skip: usize,
    count: f64,
    sum: f64,
    squares: f64,
    /// The patches of the outputs being computed.
    patches: Vec<f32>,
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
        let (kernel, stride) = (
            config.sscp_conv_kernel_size[i],
            config.sscp_conv_stride_size[i],
        );
        let out_channels = config.sscp_conv_channel_size[i];
        let padded = in_freq + 2 * FREQUENCY_PADDING;
        if padded < kernel[1] {
            return Err(AudioError::Config {
                key: "sscp_conv_kernel_size",
                reason: format!(
                    "convolution {i} spans {} frequencies of {padded}",
                    kernel[1]
                ),
            });
        }
        let weight = weights.matrix(
            &format!("{prefix}.conv_{i}.conv.weight"),
            out_channels,
            in_channels * kernel[0] * kernel[1],
        )?;
        Ok(Conv {
            weight,
            norm: weights.vector(&format!("{prefix}.conv_{i}.norm.weight"), out_channels)?,
            eps: f64::from(config.sscp_conv_group_norm_eps),
            in_freq,
            in_channels,
            out_freq: (padded - kernel[1]) / stride[1] + 1,
            out_channels,
            kernel,
            stride,
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
        let in_frame = self.in_freq * self.in_channels;
        let skipped = (state.skip * in_frame).min(input.len());
        state.skip -= skipped / in_frame;
        state.pending.extend_from_slice(&input[skipped..]);
        if end {
            let zeros = (self.kernel[0] - 1) * in_frame;
            state.pending.resize(state.pending.len() + zeros, 0.0);
        }
        let available = state.pending.len() / in_frame;
        if available < self.kernel[0] {
            return;
        }
        let frames = (available - self.kernel[0]) / self.stride[0] + 1;
        self.gather_patches(&state.pending, frames, &mut state.patches);
        let start = out.len();
        out.resize(start + frames * self.out_freq * self.out_channels, 0.0);
        let out = &mut out[start..];
        matmul::matmul_in_any_order(
            pool,
            weights.view(self.weight),
            &state.patches,
            frames * self.out_freq,
            out,
        );
        for frame in out.chunks_exact_mut(self.out_freq * self.out_channels) {
            self.normalise(state, frame);
        }
        let used = (frames * self.stride[0]).min(available);
        state.skip += frames * self.stride[0] - used;
        state.pending.drain(..used * in_frame);
    }

    /// Writes the input values that each output value sees, in the order of the weight, `[frames · out_freq, weight.cols]`.
    fn gather_patches(&self, input: &[f32], frames: usize, patches: &mut Vec<f32>) {
        patches.clear();
        let in_frame = self.in_freq * self.in_channels;
        for frame in 0..frames {
            let first = frame * self.stride[0];
            for freq in 0..self.out_freq {
                for channel in 0..self.in_channels {
                    for t in first..first + self.kernel[0] {
                        patches.extend((0..self.kernel[1]).map(|k| {
                            let f = (freq * self.stride[1] + k).wrapping_sub(FREQUENCY_PADDING);
                            // Left of the first frequency wraps to a number that is beyond the last.
                            if f < self.in_freq {
                                input[t * in_frame + f * self.in_channels + channel]
                            } else {
                                0.0
                            }
                        }));
                    }
                }
            }
        }
    }

    /// The cumulative group norm and ReLU, on one frame `[freq][channel]`.
    fn normalise(&self, state: &mut ConvState, frame: &mut [f32]) {
        state.count += frame.len() as f64;
        state.sum += frame.iter().map(|&x| f64::from(x)).sum::<f64>();
        let mean = state.sum / state.count;
        state.squares += frame
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>();
        let scale = 1.0 / (state.squares / state.count + self.eps).sqrt();
        for values in frame.chunks_exact_mut(self.out_channels) {
            for (x, &weight) in values.iter_mut().zip(&self.norm) {
                let normed = (f64::from(*x) - mean) * scale * f64::from(weight);
                *x = normed.max(0.0) as f32;
            }
        }
    }
}
