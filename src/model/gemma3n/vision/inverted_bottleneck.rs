//! UIR, the universal inverted bottleneck: depthwise, pointwise up, depthwise, pointwise down; either depthwise
//! convolution may be missing.

use std::ops::Range;

use kernels::Pool;
use kernels::conv;

use super::feature_map::{RowSource, RowWindow, Strips, Walk};
use super::pixelwise::{Activation, Compute, Norm};
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// A depthwise convolution and the norm behind it.
pub(super) struct Depthwise {
    kernel: usize,
    stride: usize,
    /// `[kernel, kernel, channels]`
    weight: Vec<f32>,
    norm: Norm,
}

impl Depthwise {
    pub(super) fn load(
        weights: &Mapped,
        [conv, norm]: [String; 2],
        channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Self, WeightsError> {
        // Stored `[channels, 1, kernel, kernel]`; with the channels last, neighbours in memory are computed together.
        let taps = kernel * kernel;
        let stored = weights.vector(&conv, channels * taps)?;
        let weight = (0..taps * channels)
            .map(|at| stored[at % channels * taps + at / channels])
            .collect();
        Ok(Depthwise {
            kernel,
            stride,
            weight,
            norm: Norm::load(weights, &norm, channels)?,
        })
    }

    /// How it walks over pictures of this height and width.
    pub(super) fn walks(&self, height: usize, width: usize) -> [Walk; 2] {
        [height, width].map(|side| Walk::same(side, self.kernel, self.stride))
    }

    /// The output rows `rows`, normed; `held` has the input rows that they need.
    pub(super) fn apply(
        &self,
        pool: &Pool,
        [down, across]: [Walk; 2],
        held: &RowWindow,
        rows: Range<usize>,
        activation: Activation,
        out: &mut [f32],
    ) {
        let channels = self.weight.len() / (self.kernel * self.kernel);
        let window = across.window(channels);
        pool.for_each_chunk_mut(out, across.output * channels, &|row, out| {
            let y = rows.start + row;
            let input = held.rows(down.inputs(y..y + 1));
            conv::depthwise_row(
                pool.isa(),
                &window,
                &self.weight,
                input,
                down.rows_above(y),
                out,
            );
        });
        self.norm.apply(pool, out, activation);
    }
}

/// `out = gamma rms(proj · gelu(rms(dw_mid * gelu(rms(exp · rms(dw_start * x))))))`.
///
/// Source: timm `UniversalInvertedResidual`; MobileNetV4 (arXiv 2404.10518), section 3.
pub(super) struct InvertedBottleneck {
    dw_start: Option<Depthwise>,
    /// `[mid, in]`
    pw_exp: Tensor,
    pw_exp_norm: Norm,
    dw_mid: Option<Depthwise>,
    /// `[out, mid]`
    pw_proj: Tensor,
    /// Holds the layer scale too.
    pw_proj_norm: Norm,
}

impl InvertedBottleneck {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        [in_channels, mid_channels, out_channels]: [usize; 3],
        [start_kernel, mid_kernel]: [usize; 2],
        stride: usize,
    ) -> Result<Self, WeightsError> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        let depthwise = |part: &str, channels, kernel, stride| {
            let names = [name(&format!("{part}.conv")), name(&format!("{part}.bn"))];
            (kernel > 0)
                .then(|| Depthwise::load(weights, names, channels, kernel, stride))
                .transpose()
        };
        let start_stride = if mid_kernel > 0 { 1 } else { stride };
        let gamma = weights.vector(&format!("{prefix}.layer_scale.gamma"), out_channels)?;
        Ok(InvertedBottleneck {
            dw_start: depthwise("dw_start", in_channels, start_kernel, start_stride)?,
            pw_exp: weights.matrix(&name("pw_exp.conv"), mid_channels, in_channels)?,
            pw_exp_norm: Norm::load(weights, &name("pw_exp.bn"), mid_channels)?,
            dw_mid: depthwise("dw_mid", mid_channels, mid_kernel, stride)?,
            pw_proj: weights.matrix(&name("pw_proj.conv"), out_channels, mid_channels)?,
            pw_proj_norm: Norm::load(weights, &name("pw_proj.bn"), out_channels)?.scaled(&gamma),
        })
    }

    /// Rows and columns behind the expansion.
    fn expanded(&self, [height, width, _]: [usize; 3]) -> [usize; 2] {
        self.dw_start.as_ref().map_or([height, width], |depthwise| {
            depthwise.walks(height, width).map(|walk| walk.output)
        })
    }

    /// Computes the block strip by strip and hands each strip of the output, with its rows, to `emit`.
    pub(super) fn run<S: RowSource>(
        &self,
        compute: Compute<'_>,
        source: &mut S,
        mut emit: impl FnMut(&mut S, Range<usize>, &[f32]),
    ) {
        let [height, width] = self.expanded(source.shape());
        let (mid, out) = (self.pw_exp.rows, self.pw_proj.rows);
        let walks = self
            .dw_mid
            .as_ref()
            .map(|depthwise| (depthwise, depthwise.walks(height, width)));
        let [out_height, out_width] = walks
            .as_ref()
            .map_or([height, width], |(_, [down, across])| {
                [down.output, across.output]
            });
        let expanded_len = width * (mid + self.pw_exp.cols);
        let row_len = match &walks {
            Some((_, [down, _])) => out_width * (mid + out) + down.stride * expanded_len,
            None => expanded_len + out_width * out,
        };
        let strips = Strips::new(out_height, row_len);
        let expanded_rows = walks.as_ref().map_or(strips.height, |(_, [down, _])| {
            down.most_inputs(strips.height)
        });
        let mut expansion = Expansion::new(self, source.shape(), expanded_rows);
        let mut held = RowWindow::new(width * mid, if walks.is_some() { expanded_rows } else { 0 });
        let (mut mids, mut outs) = (Vec::new(), Vec::new());

        for rows in strips.iter() {
            let pixels = rows.len() * out_width;
            mids.resize(pixels * mid, 0.0);
            match &walks {
                Some((depthwise, walks)) => {
                    held.slide(walks[0].inputs(rows.clone()), |rows, to| {
                        expansion.rows(compute, source, rows, to)
                    });
                    depthwise.apply(
                        compute.pool,
                        *walks,
                        &held,
                        rows.clone(),
                        Activation::Gelu,
                        &mut mids,
                    );
                }
                None => expansion.rows(compute, source, rows.clone(), &mut mids),
            }
            outs.resize(pixels * out, 0.0);
            compute.pointwise(self.pw_proj, &mids, &mut outs);
            self.pw_proj_norm
                .apply(compute.pool, &mut outs, Activation::None);
            emit(source, rows, &outs);
        }
    }
}

/// The first half of a block, up to the activation behind the expansion, row by row.
struct Expansion<'a> {
    block: &'a InvertedBottleneck,
    /// Columns that come out.
    width: usize,
    start: Option<(&'a Depthwise, [Walk; 2], RowWindow)>,
    /// What goes into the pointwise convolution.
    input: Vec<f32>,
}

impl<'a> Expansion<'a> {
    /// Ready to give at most `most_rows` rows at a time.
    fn new(block: &'a InvertedBottleneck, shape: [usize; 3], most_rows: usize) -> Self {
        let [height, width, channels] = shape;
        let start = block.dw_start.as_ref().map(|depthwise| {
            let walks = depthwise.walks(height, width);
            let held = RowWindow::new(width * channels, walks[0].most_inputs(most_rows));
            (depthwise, walks, held)
        });
        Expansion {
            block,
            width: block.expanded(shape)[1],
            start,
            input: Vec::new(),
        }
    }

    fn rows<S: RowSource>(
        &mut self,
        compute: Compute<'_>,
        source: &mut S,
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        self.input
            .resize(rows.len() * self.width * self.block.pw_exp.cols, 0.0);
        match &mut self.start {
            Some((depthwise, walks, held)) => {
                held.slide(walks[0].inputs(rows.clone()), |rows, to| {
                    source.read(compute.pool, rows, to)
                });
                depthwise.apply(
                    compute.pool,
                    *walks,
                    held,
                    rows,
                    Activation::None,
                    &mut self.input,
                );
            }
            None => source.read(compute.pool, rows, &mut self.input),
        }
        compute.pointwise(self.block.pw_exp, &self.input, out);
        self.block
            .pw_exp_norm
            .apply(compute.pool, out, Activation::Gelu);
    }
}
