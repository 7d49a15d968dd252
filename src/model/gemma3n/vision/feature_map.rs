//! Pictures between the layers, and the strips of rows in which the layers walk over them.
//!
//! A feature map lies pixel by pixel with its channels together (`[height, width, channels]`), so that a pointwise
//! convolution is a product of matrices and a norm over channels is a norm of a row.

use std::ops::Range;

use kernels::Pool;
use kernels::conv::Window;

/// One whole feature map.
pub(super) struct FeatureMap {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// `[height, width, channels]`
    pub(super) values: Vec<f32>,
}

impl FeatureMap {
    pub(super) fn new(height: usize, width: usize, channels: usize) -> Self {
        FeatureMap {
            height,
            width,
            channels,
            values: vec![0.0; height * width * channels],
        }
    }

    pub(super) fn copy(&self) -> Self {
        FeatureMap {
            values: self.values.clone(),
            ..*self
        }
    }

    pub(super) fn rows(&self, rows: Range<usize>) -> &[f32] {
        let row = self.width * self.channels;
        &self.values[rows.start * row..rows.end * row]
    }

    pub(super) fn rows_mut(&mut self, rows: Range<usize>) -> &mut [f32] {
        let row = self.width * self.channels;
        &mut self.values[rows.start * row..rows.end * row]
    }
}

/// Where a block gets its input from: a feature map, or the stem, which computes its rows when they are asked for.
pub(super) trait RowSource {
    /// Rows, columns, channels.
    fn shape(&self) -> [usize; 3];
    /// Writes the rows of `rows` to `out`. Every row is asked for once, from top to bottom.
    fn read(&mut self, pool: &Pool, rows: Range<usize>, out: &mut [f32]);
}

impl RowSource for FeatureMap {
    fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    fn read(&mut self, _pool: &Pool, rows: Range<usize>, out: &mut [f32]) {
        out.copy_from_slice(self.rows(rows));
    }
}

/// How a convolution with TensorFlow's SAME padding walks along one axis.
///
/// Of `max((ceil(n/s) - 1) s + k - n, 0)` padding samples the smaller half comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Walk {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Samples in.
    pub(super) input: usize,
    /// Samples out.
    pub(super) output: usize,
    /// Padding in front of the first sample.
    pub(super) before: usize,
}

impl Walk {
    pub(super) fn same(input: usize, kernel: usize, stride: usize) -> Walk {
        let output = input.div_ceil(stride);
        let padding = ((output.max(1) - 1) * stride + kernel).saturating_sub(input);
        Walk {
            kernel,
            stride,
            input,
            output,
            before: padding / 2,
        }
    }

    /// The input samples that the output samples `output` look at, padding left out.
    pub(super) fn inputs(&self, output: Range<usize>) -> Range<usize> {
        let first = (output.start * self.stride).saturating_sub(self.before);
        let end = ((output.end - 1) * self.stride + self.kernel)
            .saturating_sub(self.before)
            .min(self.input);
        first.min(end)..end
    }

    /// The most input samples that `output` samples in a row look at.
    pub(super) fn most_inputs(&self, output: usize) -> usize {
        ((output.max(1) - 1) * self.stride + self.kernel).min(self.input)
    }

    /// Along the columns, as the kernels take it.
    pub(super) fn window(&self, channels: usize) -> Window {
        Window {
            kernel: self.kernel,
            stride: self.stride,
            before: self.before,
            input_width: self.input,
            output_width: self.output,
            channels,
        }
    }

    /// How many rows of the kernel lie above the first input row for output row `output`.
    pub(super) fn rows_above(&self, output: usize) -> usize {
        self.before.saturating_sub(output * self.stride)
    }
}

/// The rows of an input that the current strip needs; what the next strip needs too is kept, so each is made once.
pub(super) struct RowWindow {
    row_len: usize,
    held: Range<usize>,
    values: Vec<f32>,
}

impl RowWindow {
    /// A window that never grows beyond `most_rows`, so that it lies still in memory.
    pub(super) fn new(row_len: usize, most_rows: usize) -> Self {
        RowWindow {
            row_len,
            held: 0..0,
            values: Vec::with_capacity(most_rows * row_len),
        }
    }

    /// Forgets the rows before `needed`, and has those that are not there yet written by `make`.
    pub(super) fn slide(
        &mut self,
        needed: Range<usize>,
        make: impl FnOnce(Range<usize>, &mut [f32]),
    ) {
        let keep_from = needed.start.clamp(self.held.start, self.held.end);
        let kept = (keep_from - self.held.start) * self.row_len..self.held.len() * self.row_len;
        let kept_len = kept.len();
        self.values.copy_within(kept, 0);
        let start = if kept_len == 0 {
            needed.start
        } else {
            keep_from
        };
        let new = needed.start.max(self.held.end)..needed.end.max(self.held.end);
        self.held = start..new.end;
        self.values.resize(self.held.len() * self.row_len, 0.0);
        if !new.is_empty() {
            make(new, &mut self.values[kept_len..]);
        }
    }

    /// The rows of `rows`, all of which must be held.
    pub(super) fn rows(&self, rows: Range<usize>) -> &[f32] {
        let at = (rows.start - self.held.start) * self.row_len;
        &self.values[at..at + rows.len() * self.row_len]
    }
}

/// Working memory that a strip may take. Large enough for products of matrices to run at full speed, small beside the
/// largest feature map (18.9 MB at 768 x 768).
const STRIP_BYTES: usize = 8 << 20;

/// The strips of a picture, from top to bottom; the first is the tallest, so that what is sized for it fits the others.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    rows: usize,
    /// Rows of the first strip.
    pub(super) height: usize,
}

impl Strips {
    /// Cuts `rows` into strips of nearly equal height, each of which takes at most [`STRIP_BYTES`] if a row takes `row_len`
    /// floats of working memory.
    pub(super) fn new(rows: usize, row_len: usize) -> Self {
        let most = (STRIP_BYTES / (row_len * size_of::<f32>()).max(1)).max(1);
        let count = rows.div_ceil(most).max(1);
        Strips {
            rows,
            height: rows.div_ceil(count).max(1),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.rows)
            .step_by(self.height)
            .map(move |first| first..(first + self.height).min(self.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_that_of_tensorflow() {
        // The specification's own examples: stride 2 on even sizes pads (0, 1) for k = 3 and (1, 2) for k = 5.
        assert_eq!(Walk::same(96, 3, 2).before, 0);
        assert_eq!(Walk::same(96, 5, 2).before, 1);
        assert_eq!(Walk::same(96, 5, 1).before, 2);
        assert_eq!(
            Walk::same(97, 3, 2),
            Walk {
                kernel: 3,
                stride: 2,
                input: 97,
                output: 49,
                before: 1
            }
        );
        assert_eq!(Walk::same(96, 5, 2).inputs(0..48), 0..96);
        assert_eq!(Walk::same(96, 5, 2).inputs(10..12), 19..26);
        assert_eq!(Walk::same(96, 5, 2).rows_above(0), 1);
    }

    #[test]
    fn a_window_makes_every_row_once() {
        for (height, kernel, stride) in [(17, 5, 1), (16, 5, 2), (9, 3, 2), (4, 3, 4), (3, 7, 1)] {
            let walk = Walk::same(height, kernel, stride);
            let mut made = vec![0; height];
            let mut window = RowWindow::new(1, height);
            for strip in [0..1, 1..walk.output.min(3), walk.output.min(3)..walk.output] {
                if strip.is_empty() {
                    continue;
                }
                let needed = walk.inputs(strip);
                window.slide(needed.clone(), |rows, out| {
                    for (row, out) in rows.zip(out) {
                        made[row] += 1;
                        *out = row as f32;
                    }
                });
                let want: Vec<f32> = needed.clone().map(|row| row as f32).collect();
                assert_eq!(window.rows(needed), want);
            }
            assert!(made.iter().all(|&times| times <= 1), "{made:?}");
        }
    }
}
