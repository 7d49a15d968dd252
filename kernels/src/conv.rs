//! Convolution over pixels whose channels lie together: the depthwise kernel, and the patches that turn a full
//! convolution into a product of matrices.
//!
//! Both take one output row at a time: the input rows that the kernel covers, as they lie in memory, and how many rows of
//! the kernel hang over the upper edge of the picture. What hangs over any edge counts as zero.
//!
//! Depthwise, four output pixels by up to four registers of channels stay in registers, so that a tap's weights are loaded once for
//! all four: 24 instructions for 32 products of a 5 × 5 kernel on ARM. A patch takes 133 for 32 numbers.

use crate::Isa;
use crate::simd::{Kernel, Simd, add_products_of_rows, dispatch};

/// A square kernel walking along a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the kernel.
    pub kernel: usize,
    /// Input pixels from one output pixel to the next.
    pub stride: usize,
    /// Columns of the kernel that hang over the left edge at output pixel 0.
    pub before: usize,
    /// Pixels of an input row.
    pub input_width: usize,
    /// Pixels of an output row.
    pub output_width: usize,
    /// Channels of a pixel.
    pub channels: usize,
}

impl Window {
    /// The columns of the kernel that lie on the picture for output pixel `x`, and the input pixel under the first.
    #[inline(always)]
    fn columns(&self, x: usize) -> (std::ops::Range<usize>, usize) {
        let left = x * self.stride;
        let first = self.before.saturating_sub(left);
        let end = (self.input_width + self.before)
            .saturating_sub(left)
            .min(self.kernel);
        (first.min(end)..end, left + first - self.before)
    }

    fn row_len(&self) -> usize {
        self.input_width * self.channels
    }

    /// Checks the input rows against the kernel and says how many there are.
    fn check_input(&self, input: &[f32], rows_above: usize) -> usize {
        let last_starts_inside =
            self.output_width.saturating_sub(1) * self.stride < self.input_width;
        assert!(
            self.before < self.kernel && self.stride > 0 && last_starts_inside,
            "{self:?}"
        );
        let rows = input.len() / self.row_len().max(1);
        assert_eq!(
            input.len(),
            rows * self.row_len(),
            "whole input rows of {self:?}"
        );
        assert!(
            rows_above + rows <= self.kernel,
            "{rows} rows and {rows_above} above under {self:?}"
        );
        rows
    }
}

/// One row of a depthwise convolution.
///
/// `out[x][c] = sum_{i,j} weight[i][j][c] · input[i - rows_above][x·stride + j - before][c]`, where `input` is
/// `[rows, input_width, channels]`, `weight` is `[kernel, kernel, channels]` and `out` is `[output_width, channels]`.
///
/// # Panics
/// When a length does not fit, or more rows are given than the kernel has.
pub fn depthwise_row(
    isa: Isa,
    window: &Window,
    weight: &[f32],
    input: &[f32],
    rows_above: usize,
    out: &mut [f32],
) {
    let rows = window.check_input(input, rows_above);
    assert_eq!(
        weight.len(),
        window.kernel * window.kernel * window.channels,
        "weight of {window:?}"
    );
    assert_eq!(
        out.len(),
        window.output_width * window.channels,
        "an output row of {window:?}"
    );
    dispatch(
        isa,
        Depthwise {
            window,
            weight,
            input,
            rows,
            rows_above,
            out,
        },
    );
}

/// What a full convolution sees at output pixel `x` of a row, in the order of its weights `[out, channels, kernel, kernel]`:
/// `out[c][i][j] = input[i - rows_above][x·stride + j - before][c]`.
///
/// # Panics
/// When a length does not fit, or more rows are given than the kernel has.
pub fn patch(window: &Window, input: &[f32], rows_above: usize, x: usize, out: &mut [f32]) {
    let rows = window.check_input(input, rows_above);
    let taps = window.kernel * window.kernel;
    assert_eq!(out.len(), taps * window.channels, "a patch of {window:?}");
    assert!(x < window.output_width, "pixel {x} of {window:?}");
    let (columns, first) = window.columns(x);
    if rows * columns.len() < taps {
        out.fill(0.0);
    }
    for i in 0..rows {
        let row = &input[i * window.row_len()..][..window.row_len()];
        for (pixel, j) in columns.clone().enumerate() {
            let from = &row[(first + pixel) * window.channels..][..window.channels];
            let tap = (rows_above + i) * window.kernel + j;
            for (to, from) in out.chunks_exact_mut(taps).zip(from) {
                to[tap] = *from;
            }
        }
    }
}

struct Depthwise<'a> {
    window: &'a Window,
    weight: &'a [f32],
    input: &'a [f32],
    rows: usize,
    rows_above: usize,
    out: &'a mut [f32],
}

impl Kernel for Depthwise<'_> {
    type Output = ();

    fn scalar(self) {
        let Window {
            kernel, channels, ..
        } = *self.window;
        for (x, out) in self.out.chunks_exact_mut(channels).enumerate() {
            out.fill(0.0);
            let (columns, first) = self.window.columns(x);
            for i in 0..self.rows {
                let row = &self.input[i * self.window.row_len()..][..self.window.row_len()];
                for (pixel, j) in columns.clone().enumerate() {
                    let tap = (self.rows_above + i) * kernel + j;
                    let input = &row[(first + pixel) * channels..][..channels];
                    let weight = &self.weight[tap * channels..][..channels];
                    for ((out, input), weight) in out.iter_mut().zip(input).zip(weight) {
                        *out = input.mul_add(*weight, *out);
                    }
                }
            }
        }
    }

    /// A block of channels at a time goes along the whole row, so that its weights stay in the first-level cache.
    #[inline(always)]
    fn simd<S: Simd>(mut self, s: S) {
        let channels = self.window.channels;
        let mut c = 0;
        while S::REGISTERS >= 32 && channels - c >= 4 * S::LANES {
            self.block::<S, 4>(s, c);
            c += 4 * S::LANES;
        }
        while channels - c >= 2 * S::LANES {
            self.block::<S, 2>(s, c);
            c += 2 * S::LANES;
        }
        while channels - c >= S::LANES {
            self.block::<S, 1>(s, c);
            c += S::LANES;
        }
        if c < channels {
            self.tail(s, c);
        }
    }
}

/// Output pixels that share what was loaded of the kernel.
const PIXELS: usize = 4;

impl Depthwise<'_> {
    /// `B` registers of channels from channel `c` on.
    #[inline(always)]
    fn block<S: Simd, const B: usize>(&mut self, s: S, c: usize) {
        let width = self.window.output_width;
        let is_whole = |x: usize| self.window.columns(x).0.len() == self.window.kernel;
        let mut x = 0;
        while x < width {
            let end = x + PIXELS;
            x += if end <= width && is_whole(x) && is_whole(end - 1) {
                self.pixels::<S, PIXELS, B>(s, c, x)
            } else {
                self.pixels::<S, 1, B>(s, c, x)
            };
        }
    }

    /// The same of `P` output pixels from `x` on, which have as many columns of the kernel on the picture; returns `P`.
    #[inline(always)]
    fn pixels<S: Simd, const P: usize, const B: usize>(
        &mut self,
        s: S,
        c: usize,
        x: usize,
    ) -> usize {
        let Window {
            kernel,
            stride,
            channels,
            ..
        } = *self.window;
        let (columns, first) = self.window.columns(x);
        let mut sums = [[s.splat(0.0); B]; P];
        for i in 0..self.rows {
            let row = &self.input[i * self.window.row_len()..][..self.window.row_len()];
            let tap = (self.rows_above + i) * kernel + columns.start;
            let weights = &self.weight[tap * channels + c..];
            let inputs = std::array::from_fn(|p| &row[(first + p * stride) * channels + c..]);
            add_products_of_rows(s, &mut sums, weights, inputs, columns.len(), channels);
        }
        for (p, sums) in sums.into_iter().enumerate() {
            let out = &mut self.out[(x + p) * channels + c..];
            for (b, sum) in sums.into_iter().enumerate() {
                s.store(sum, &mut out[b * S::LANES..]);
            }
        }
        P
    }

    /// The last channels, fewer than a register.
    #[inline(always)]
    fn tail<S: Simd>(&mut self, s: S, c: usize) {
        let Window {
            kernel, channels, ..
        } = *self.window;
        for x in 0..self.window.output_width {
            let mut sum = s.splat(0.0);
            let (columns, first) = self.window.columns(x);
            for i in 0..self.rows {
                for (pixel, j) in columns.clone().enumerate() {
                    let at = i * self.window.row_len() + (first + pixel) * channels;
                    let tap = ((self.rows_above + i) * kernel + j) * channels;
                    let input = s.load_tail(&self.input[at + c..at + channels], 0.0);
                    let weight = s.load_tail(&self.weight[tap + c..tap + channels], 0.0);
                    sum = s.mul_add(input, weight, sum);
                }
            }
            s.store_tail(sum, &mut self.out[x * channels + c..(x + 1) * channels]);
        }
    }
}
