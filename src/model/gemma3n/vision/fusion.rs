//! MSFA, the multi-scale fusion: the outputs of two stages become one grid of encoder outputs.

use std::ops::Range;

use kernels::Pool;
use kernels::quant::{FIRST_COLUMN, GROUP};

use super::VisionError;
use super::feature_map::{FeatureMap, Strips};
use super::pixelwise::{Activation, Compute, Norm};
use crate::model::weights::{Mapped, Tensor};

/// `out = rms(resize(rms(proj · gelu(rms(exp · [fine, nearest(coarse)])))))`, the two joined channel by channel.
///
/// The coarse channels are multiplied before the upsampling, a quarter of the pixels: `exp · [fine, coarse]` is a sum of two products
/// (reference 11.6), for 2 % less work of the whole network.
///
/// Source: timm `MobileNetV5MultiScaleFusionAdapter`.
pub(super) struct Fusion {
    output_resolution: usize,
    /// `[mid, fine + coarse]`
    pw_exp: Tensor,
    pw_exp_norm: Norm,
    /// `[out, mid]`
    pw_proj: Tensor,
    pw_proj_norm: Norm,
    norm: Norm,
}

impl Fusion {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        [in_channels, mid_channels, out_channels]: [usize; 3],
        output_resolution: usize,
    ) -> Result<Self, VisionError> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        Ok(Fusion {
            output_resolution,
            pw_exp: weights.matrix(&name("ffn.pw_exp.conv"), mid_channels, in_channels)?,
            pw_exp_norm: Norm::load(weights, &name("ffn.pw_exp.bn"), mid_channels)?,
            pw_proj: weights.matrix(&name("ffn.pw_proj.conv"), out_channels, mid_channels)?,
            pw_proj_norm: Norm::load(weights, &name("ffn.pw_proj.bn"), out_channels)?,
            norm: Norm::load(weights, &name("norm"), out_channels)?,
        })
    }

    /// `[output_resolution^2, out]`, row by row of the grid.
    pub(super) fn run(
        &self,
        compute: Compute<'_>,
        fine: &FeatureMap,
        coarse: &FeatureMap,
    ) -> Vec<f32> {
        let (mid, out, side) = (self.pw_exp.rows, self.pw_proj.rows, self.output_resolution);
        let pool = compute.pool;
        let mut grid = vec![0.0; side * side * out];
        let down = Resize::new(fine.height, side);
        let across = Resize::new(fine.width, side);
        // Where the fine channels end within groups of a quantised matrix that stand together, these belong to both parts, and the
        // channels that are not theirs are zeros.
        let exp = compute.weights.view(self.pw_exp);
        let shared = fine.channels % FIRST_COLUMN;
        let fine_cols = fine.channels.next_multiple_of(GROUP).min(exp.cols);
        let of_fine = exp.columns(0..fine_cols);
        let of_coarse = exp.columns(fine.channels - shared..exp.cols);
        let (mut joined, mut mids, mut outs) = (Vec::new(), Vec::new(), Vec::new());
        let mut coarse_mids = Vec::new();
        let row_len = coarse.width * (of_coarse.cols + mid)
            + fine.height.div_ceil(coarse.height) * fine.width * (fine_cols + mid + out);
        for coarse_rows in Strips::new(coarse.height, row_len).iter() {
            // Row y takes the coarse row y * coarse.height / fine.height.
            let first = |row: usize| (row * fine.height).div_ceil(coarse.height);
            let rows = first(coarse_rows.start)..first(coarse_rows.end);
            coarse_mids.resize(coarse_rows.len() * coarse.width * mid, 0.0);
            padded(
                pool,
                coarse,
                coarse_rows.clone(),
                shared,
                of_coarse.cols,
                &mut joined,
            );
            compute.product(of_coarse, &joined, &mut coarse_mids);
            let pixels = rows.len() * fine.width;
            mids.resize(pixels * mid, 0.0);
            padded(pool, fine, rows.clone(), 0, fine_cols, &mut joined);
            compute.product(of_fine, &joined, &mut mids);
            pool.for_each_row_mut(&mut mids, mid, &|pixel, mids| {
                let (y, x) = (rows.start + pixel / fine.width, pixel % fine.width);
                let y = y * coarse.height / fine.height - coarse_rows.start;
                let x = x * coarse.width / fine.width;
                let upsampled = &coarse_mids[(y * coarse.width + x) * mid..][..mid];
                kernels::elementwise::add(pool.isa(), mids, upsampled);
            });
            self.pw_exp_norm.apply(pool, &mut mids, Activation::Gelu);
            outs.resize(pixels * out, 0.0);
            compute.pointwise(self.pw_proj, &mids, &mut outs);
            self.pw_proj_norm.apply(pool, &mut outs, Activation::None);
            gather(pool, [&down, &across], rows, &outs, &mut grid, side);
        }
        self.norm.apply(pool, &mut grid, Activation::None);
        grid
    }
}

/// The pixels of some rows, each `cols` long, its channels behind `before` zeros.
fn padded(
    pool: &Pool,
    map: &FeatureMap,
    rows: Range<usize>,
    before: usize,
    cols: usize,
    out: &mut Vec<f32>,
) {
    let channels = map.channels;
    let from = map.rows(rows);
    out.clear();
    out.resize(from.len() / channels * cols, 0.0);
    pool.for_each_row_mut(out, cols, &|pixel, to| {
        to[before..before + channels].copy_from_slice(&from[pixel * channels..][..channels]);
    });
}

/// Adds to the grid what the fine rows `rows`, in `strip`, contribute to it.
fn gather(
    pool: &Pool,
    [down, across]: [&Resize; 2],
    rows: Range<usize>,
    strip: &[f32],
    grid: &mut [f32],
    side: usize,
) {
    let channels = grid.len() / (side * side);
    let width = strip.len() / (rows.len() * channels);
    pool.for_each_row_mut(grid, channels, &|token, to| {
        for &(row, down) in &down.taps[token / side] {
            if !rows.contains(&row) {
                continue;
            }
            for &(column, across) in &across.taps[token % side] {
                let from = &strip[((row - rows.start) * width + column) * channels..][..channels];
                kernels::elementwise::scale_add(pool.isa(), to, down * across, from);
            }
        }
    });
}

/// Along one axis, which input samples an output sample is made of, with their weights.
struct Resize {
    taps: Vec<Vec<(usize, f32)>>,
}

impl Resize {
    /// The mean of `input / output` samples where that is a whole number (no change where it is 1), else bilinear without
    /// antialiasing, sample centres aligned as in torch's `interpolate(align_corners=False)`.
    fn new(input: usize, output: usize) -> Resize {
        let taps = (0..output)
            .map(|i| {
                if input.is_multiple_of(output) {
                    let ratio = input / output;
                    return (i * ratio..(i + 1) * ratio)
                        .map(|tap| (tap, 1.0 / ratio as f32))
                        .collect();
                }
                let at = ((i as f32 + 0.5) * (input as f32 / output as f32) - 0.5).max(0.0);
                let first = (at as usize).min(input - 1);
                let fraction = at - first as f32;
                vec![
                    (first, 1.0 - fraction),
                    ((first + 1).min(input - 1), fraction),
                ]
            })
            .collect();
        Resize { taps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_takes_the_mean_or_interpolates() {
        let of = |input, output| Resize::new(input, output).taps;
        assert_eq!(of(4, 4)[2], [(2, 1.0)]);
        assert_eq!(
            of(6, 2)[1],
            [(3, 1.0 / 3.0), (4, 1.0 / 3.0), (5, 1.0 / 3.0)]
        );
        // torch.nn.functional.interpolate(torch.arange(3.), size=2, mode="linear"): 0.25, 1.75.
        assert_eq!(
            of(3, 2),
            [vec![(0, 0.75), (1, 0.25)], vec![(1, 0.25), (2, 0.75)]]
        );
        // The same to size 4: 0, 0.625, 1.375, 2.
        let values: Vec<f32> = of(3, 4)
            .iter()
            .map(|taps| taps.iter().map(|&(at, w)| at as f32 * w).sum())
            .collect();
        assert_eq!(values, [0.0, 0.625, 1.375, 2.0]);
    }
}
