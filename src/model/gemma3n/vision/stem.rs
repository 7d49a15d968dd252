//! The stem: the first convolution, from 8-bit pixels, computed row by row when the first block asks.

use std::ops::Range;

use kernels::{Pool, conv, matmul};

use super::feature_map::{RowSource, Walk};
use super::pixelwise::{Activation, Norm};
use super::{Observation, Observer};
use crate::model::weights::{Mapped, Tensor, WeightsError};

const KERNEL: usize = 3;
const STRIDE: usize = 2;
const RGB: usize = 3;

/// `out = gelu(rms(conv * pixels / 255 + bias))`, 3 x 3 with stride 2.
///
/// Source: timm `MobileNetV5Encoder.conv_stem`, the only convolution of the network with a bias.
pub(super) struct Stem {
    /// `[channels, 3, 3, 3]`
    conv: Tensor,
    bias: Vec<f32>,
    norm: Norm,
}

impl Stem {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        channels: usize,
    ) -> Result<Self, WeightsError> {
        Ok(Stem {
            conv: weights.matrix(
                &format!("{prefix}.conv.weight"),
                channels,
                RGB * KERNEL * KERNEL,
            )?,
            bias: weights.vector(&format!("{prefix}.conv.bias"), channels)?,
            norm: Norm::load(weights, &format!("{prefix}.bn.weight"), channels)?,
        })
    }
}

/// The stem's output for one picture, never whole in memory: at 768 x 768 it would be the largest feature map of all.
pub(super) struct StemRows<'a, 'o> {
    pub(super) stem: &'a Stem,
    pub(super) weights: &'a Mapped,
    /// `[resolution, resolution, 3]`
    pub(super) pixels: &'a [u8],
    pub(super) walk: Walk,
    pub(super) observer: Observer<'a, 'o>,
}

impl Stem {
    /// How the stem walks over a square picture, along either axis.
    pub(super) fn walk(resolution_px: usize) -> Walk {
        Walk::same(resolution_px, KERNEL, STRIDE)
    }
}

impl RowSource for StemRows<'_, '_> {
    fn shape(&self) -> [usize; 3] {
        [self.walk.output, self.walk.output, self.stem.conv.rows]
    }

    fn read(&mut self, pool: &Pool, rows: Range<usize>, out: &mut [f32]) {
        let walk = self.walk;
        let row_len = walk.input * RGB;
        let seen = walk.inputs(rows.clone());
        let input: Vec<f32> = self.pixels[seen.start * row_len..seen.end * row_len]
            .iter()
            .map(|&v| f32::from(v) * (1.0 / 255.0))
            .collect();
        let window = walk.window(RGB);
        let patch = self.stem.conv.cols;
        let pixels = rows.len() * walk.output;
        let mut patches = vec![0.0; pixels * patch];
        pool.for_each_row_mut(&mut patches, patch, &|pixel, to| {
            let y = rows.start + pixel / walk.output;
            let under = walk.inputs(y..y + 1);
            let input =
                &input[(under.start - seen.start) * row_len..(under.end - seen.start) * row_len];
            conv::patch(&window, input, walk.rows_above(y), pixel % walk.output, to);
        });
        matmul::matmul_in_any_order(
            pool,
            self.weights.view(self.stem.conv),
            &patches,
            pixels,
            out,
        );
        for pixel in out.chunks_exact_mut(self.stem.bias.len()) {
            pixel
                .iter_mut()
                .zip(&self.stem.bias)
                .for_each(|(value, bias)| *value += bias);
        }
        self.stem.norm.apply(pool, out, Activation::Gelu);
        let [height, width, channels] = self.shape();
        (self.observer)(&Observation {
            name: "stem",
            height,
            width,
            channels,
            rows,
            values: out,
        });
    }
}
