//! A convolution over time and frequency that takes its frames as they come.

use kernels::{Pool, matmul};

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Zeros on each side of the frequency axis.
pub const FREQUENCY_PADDING: usize = 1;

/// Sizes of a convolution; pairs are (time, frequency).
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    /// Frequencies of an input frame.
    pub in_freq: usize,
    /// Channels of each.
    pub in_channels: usize,
    /// Channels of each frequency of an output frame.
    pub out_channels: usize,
    /// Input values that an output value sees.
    pub kernel: [usize; 2],
    /// Of these, the frames before its own; in front of the first frame there are zeros.
    pub frames_before: usize,
    /// Steps from one output value to the next.
    pub stride: [usize; 2],
}

impl ConvShape {
    /// Frequencies of an output frame; `None` where the kernel is larger than the padded input.
    pub fn out_freq(&self) -> Option<usize> {
        let steps = (self.in_freq + 2 * FREQUENCY_PADDING).checked_sub(self.kernel[1])?;
        Some(steps / self.stride[1] + 1)
    }
}

/// A convolution without bias: `[frames, in_freq, in_channels]` to `[frames / stride, out_freq, out_channels]`.
///
/// It sees its own frame, perhaps some before it ([`ConvShape::frames_before`]), and the ones *after* it; behind the last there are
/// zeros. So an output is final once the frames that it sees are there.
#[derive(Debug)]
pub struct StridedConv {
    /// `[out_channels, in_channels, kernel time, kernel frequency]`
    weight: Tensor,
    shape: ConvShape,
    out_freq: usize,
}

/// What a convolution remembers of a clip.
#[derive(Clone, Debug)]
pub struct ConvState {
    /// Input frames from the first that the next output sees, `[frame][freq][channel]`.
    pending: Vec<f32>,
    /// Frames still to come that no output sees (only where the stride is larger than the kernel).
    skip: usize,
    /// The patches of the outputs being computed.
    patches: Vec<f32>,
}

impl StridedConv {
    /// Finds the tensor `name` in `weights`; `out_freq` is [`ConvShape::out_freq`].
    ///
    /// # Errors
    /// If the tensor is missing or has another shape or type.
    pub fn load(
        weights: &Mapped,
        shape: ConvShape,
        out_freq: usize,
        name: &str,
    ) -> Result<StridedConv, WeightsError> {
        let seen = shape.in_channels * shape.kernel[0] * shape.kernel[1];
        Ok(StridedConv {
            weight: weights.matrix(name, shape.out_channels, seen)?,
            shape,
            out_freq,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> ConvState {
        ConvState {
            pending: vec![0.0; self.shape.frames_before * self.in_frame()],
            skip: 0,
            patches: Vec::new(),
        }
    }

    /// Frequencies of an output frame.
    pub fn out_freq(&self) -> usize {
        self.out_freq
    }

    fn in_frame(&self) -> usize {
        self.shape.in_freq * self.shape.in_channels
    }

    /// Values in an output frame.
    pub fn out_len(&self) -> usize {
        self.out_freq * self.shape.out_channels
    }

    /// Input frames for one frame of output.
    pub fn time_stride(&self) -> usize {
        self.shape.stride[0]
    }

    /// Takes `input` frames and appends the frames that have become final to `out`; with `end`, all that remain.
    pub fn push(
        &self,
        pool: &Pool,
        weights: &Mapped,
        state: &mut ConvState,
        input: &[f32],
        end: bool,
        out: &mut Vec<f32>,
    ) {
        let (kernel, stride) = (self.shape.kernel[0], self.shape.stride[0]);
        let in_frame = self.in_frame();
        let skipped = (state.skip * in_frame).min(input.len());
        state.skip -= skipped / in_frame;
        state.pending.extend_from_slice(&input[skipped..]);
        if end {
            let zeros = (kernel - 1 - self.shape.frames_before) * in_frame;
            state.pending.resize(state.pending.len() + zeros, 0.0);
        }
        let available = state.pending.len() / in_frame;
        if available < kernel {
            return;
        }
        let frames = (available - kernel) / stride + 1;
        self.gather_patches(&state.pending, frames, &mut state.patches);
        let start = out.len();
        out.resize(start + frames * self.out_len(), 0.0);
        matmul::matmul(
            pool,
            weights.view(self.weight),
            &state.patches,
            frames * self.out_freq,
            &mut out[start..],
        );
        let used = (frames * stride).min(available);
        state.skip += frames * stride - used;
        state.pending.drain(..used * in_frame);
    }

    /// Writes the input values that each output value sees, in the order of the weight, `[frames · out_freq, weight.cols]`.
    fn gather_patches(&self, input: &[f32], frames: usize, patches: &mut Vec<f32>) {
        let ConvShape {
            in_freq,
            in_channels,
            kernel,
            stride,
            ..
        } = self.shape;
        let taps = kernel[0] * kernel[1];
        patches.clear();
        patches.resize(frames * self.out_freq * in_channels * taps, 0.0);
        for (i, patch) in patches.chunks_exact_mut(in_channels * taps).enumerate() {
            let (frame, freq) = (i / self.out_freq * stride[0], i % self.out_freq * stride[1]);
            for tap in 0..taps {
                // Left of the first frequency wraps to a number that is beyond the last.
                let f = (freq + tap % kernel[1]).wrapping_sub(FREQUENCY_PADDING);
                if f < in_freq {
                    let pixel = (frame + tap / kernel[1]) * in_freq + f;
                    let channels = &input[pixel * in_channels..][..in_channels];
                    for (to, x) in patch.chunks_exact_mut(taps).zip(channels) {
                        to[tap] = *x;
                    }
                }
            }
        }
    }
}
