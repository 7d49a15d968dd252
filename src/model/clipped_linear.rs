//! A linear layer that cuts off what goes in and what comes out, where its checkpoint has bounds.

use std::ops::Range;

use kernels::matmul::clipped_matmul;
use kernels::{Bounds, Clip, Pool};

use super::weights::{Mapped, Tensor, WeightsError};

/// `y = clamp(W clamp(x, input_min, input_max), output_min, output_max)`, without bias.
///
/// The four bounds are numbers beside the matrix; where there are none of them, it is an ordinary linear layer.
///
/// Source: `Gemma4ClippableLinear`.
#[derive(Clone, Copy, Debug)]
pub struct ClippedLinear {
    weight: Tensor,
    clip: Clip,
}

/// The names of the bounds, in pairs of the lower and the upper one.
pub(super) const BOUNDS: [[&str; 2]; 2] =
    [["input_min", "input_max"], ["output_min", "output_max"]];

impl ClippedLinear {
    /// Finds the matrix `name` of `rows × cols` in `weights`, and its bounds: those of `X.linear.weight` and of `X.weight` are
    /// `X.input_min`, `X.input_max`, `X.output_min` and `X.output_max`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type, some of the bounds are there and others are not, or they bound nothing.
    pub fn load(
        weights: &Mapped,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<ClippedLinear, WeightsError> {
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let layer = layer.strip_suffix(".linear").unwrap_or(layer);
        Ok(ClippedLinear {
            weight: weights.matrix(name, rows, cols)?,
            clip: clip(weights, layer)?,
        })
    }

    /// Whether outputs can be computed `rows` at a time.
    pub fn has_rows(&self, rows: usize) -> bool {
        self.weight.has_rows(rows)
    }

    /// Whether it rounds what goes in to 8 bits; `weights` is the group that it was loaded from.
    pub fn rounds_inputs(&self, weights: &Mapped) -> bool {
        weights.view(self.weight).data.rounds_inputs()
    }

    /// Outputs: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.weight.rows
    }

    /// What it cuts off.
    pub fn clip(&self) -> Clip {
        self.clip
    }

    /// Writes `out` `[tokens, rows]` for `x` `[tokens, cols]`, with sums in whatever order is fastest.
    ///
    /// # Panics
    /// If a length does not fit, or `weights` is not the group that it was loaded from (programming errors).
    pub fn forward(&self, pool: &Pool, weights: &Mapped, x: &[f32], out: &mut [f32]) {
        self.forward_rows(pool, weights, 0..self.weight.rows, x, out);
    }

    /// [`ClippedLinear::forward`] for some of the outputs: `out` is `[tokens, rows]` for a range of rows, which begins at a multiple of what
    /// [`ClippedLinear::has_rows`] allows.
    ///
    /// # Panics
    /// As there, and if the range fits no rows that are stored together.
    pub fn forward_rows(
        &self,
        pool: &Pool,
        weights: &Mapped,
        rows: Range<usize>,
        x: &[f32],
        out: &mut [f32],
    ) {
        let tokens = out.len() / rows.len().max(1);
        let matrix = weights.view(self.weight).rows(rows);
        clipped_matmul(pool, matrix, self.clip, x, tokens, out);
    }
}

fn clip(weights: &Mapped, layer: &str) -> Result<Clip, WeightsError> {
    let names = BOUNDS.map(|pair| pair.map(|bound| format!("{layer}.{bound}")));
    let all = names.as_flattened();
    let Some(present) = all.iter().find(|name| weights.contains(name)) else {
        return Ok(Clip::NONE);
    };
    if let Some(absent) = all.iter().find(|name| !weights.contains(name)) {
        let reason = format!("is there, but {absent} is not: a layer has all four bounds or none");
        return Err(weights.unusable(present, reason));
    }
    let [input, output] = names;
    Ok(Clip {
        input: bounds(weights, &input)?,
        output: bounds(weights, &output)?,
    })
}

fn bounds(weights: &Mapped, [min, max]: &[String; 2]) -> Result<Bounds, WeightsError> {
    let number = |name: &str| Ok::<f32, WeightsError>(weights.vector(name, 1)?[0]);
    let (least, most) = (number(min)?, number(max)?);
    Bounds::new(least, most).ok_or_else(|| {
        let (name, reason) = match (least.is_nan(), most.is_nan()) {
            (true, _) => (min, "is not a number".to_owned()),
            (_, true) => (max, "is not a number".to_owned()),
            _ => (min, format!("is {least}, beyond {max}, which is {most}")),
        };
        weights.unusable(name, reason)
    })
}
