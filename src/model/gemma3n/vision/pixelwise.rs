//! What happens to each pixel by itself: pointwise convolutions, norms over channels, the activation.

use kernels::{Matrix, Pool, gelu, matmul, rms_norm};

use crate::model::weights::{Mapped, Tensor, WeightsError};

/// Epsilon of every norm inside the network.
///
/// Source: timm `RmsNorm2d`; it is not in the checkpoint's configuration.
const EPS: f32 = 1e-6;

/// Pixels that one task norms: enough work to be worth handing out, and still many tasks in a strip.
const PIXELS_PER_TASK: usize = 16;

/// What a block needs to compute: the threads, and the weights that its handles point into.
#[derive(Clone, Copy)]
pub(super) struct Compute<'a> {
    pub(super) pool: &'a Pool,
    pub(super) weights: &'a Mapped,
}

impl Compute<'_> {
    /// `out = weight · input` at each pixel; `input` is `[pixels, weight.cols]`, `out` becomes `[pixels, weight.rows]`.
    pub(super) fn pointwise(&self, weight: Tensor, input: &[f32], out: &mut [f32]) {
        self.product(self.weights.view(weight), input, out);
    }

    /// [`Compute::pointwise`] with a part of the weights.
    pub(super) fn product(&self, weight: Matrix<'_>, input: &[f32], out: &mut [f32]) {
        let pixels = input.len() / weight.cols;
        matmul::matmul_in_any_order(self.pool, weight, input, pixels, out);
    }
}

/// An RMS norm over the channels of each pixel.
pub(super) struct Norm {
    weight: Vec<f32>,
}

/// Whether the norm is followed by the activation (gelu, tanh approximation).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Gelu,
}

impl Norm {
    pub(super) fn load(
        weights: &Mapped,
        name: &str,
        channels: usize,
    ) -> Result<Norm, WeightsError> {
        Ok(Norm {
            weight: weights.vector(name, channels)?,
        })
    }

    /// Norms `[pixels, channels]` in place.
    pub(super) fn apply(&self, pool: &Pool, pixels: &mut [f32], activation: Activation) {
        let isa = pool.isa();
        let channels = self.weight.len();
        pool.for_each_chunk_mut(pixels, PIXELS_PER_TASK * channels, &|_, chunk| {
            for pixel in chunk.chunks_exact_mut(channels) {
                rms_norm::rms_norm_in_place(isa, pixel, Some(&self.weight), EPS);
            }
            if activation == Activation::Gelu {
                gelu::gelu_tanh(isa, chunk);
            }
        });
    }

    /// The norm with its weights multiplied by `gamma`, channel by channel: a layer scale behind it costs nothing.
    pub(super) fn scaled(mut self, gamma: &[f32]) -> Norm {
        self.weight
            .iter_mut()
            .zip(gamma)
            .for_each(|(weight, gamma)| *weight *= gamma);
        self
    }
}
