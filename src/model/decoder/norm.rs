//! Root mean square norms: `rms(x; w) = x / sqrt(mean(x²) + eps) · w`.
//!
//! Source: reference section 2. Weights multiply as they are, not as `1 + w`.

use kernels::{Inputs, Isa, Pool};

/// One norm's weight, or none, and its epsilon.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Option<Vec<f32>>,
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(weight: Vec<f32>, eps: f32) -> RmsNorm {
        RmsNorm {
            weight: Some(weight),
            eps,
        }
    }

    pub(crate) fn without_weight(eps: f32) -> RmsNorm {
        RmsNorm { weight: None, eps }
    }

    /// One row, in place.
    pub(crate) fn row(&self, isa: Isa, row: &mut [f32]) {
        kernels::rms_norm::rms_norm_in_place(isa, row, self.weight.as_deref(), self.eps);
    }

    /// One row into another.
    pub(crate) fn row_into(&self, isa: Isa, row: &[f32], out: &mut [f32]) {
        kernels::rms_norm::rms_norm(isa, row, self.weight.as_deref(), self.eps, out);
    }

    /// Rows of `width` elements, in place.
    pub(crate) fn rows(&self, pool: &Pool, rows: &mut [f32], width: usize) {
        pool.for_each_row_mut(rows, width, &|_, row| self.row(pool.isa(), row));
    }

    /// `sum += rms(rows)`, row by row of `width` elements; `rows` are normed in place.
    pub(crate) fn add_rows(&self, pool: &Pool, rows: &mut [f32], width: usize, sum: &mut [f32]) {
        self.rows(pool, rows, width);
        let rows = &*rows;
        pool.for_each_row_mut(sum, width, &|t, sum| {
            kernels::elementwise::add(pool.isa(), sum, &rows[t * width..(t + 1) * width]);
        });
    }

    /// `t` rows, number i being `row(i)`, as what linear layers read; with `quantize` for quantised weights.
    pub(crate) fn inputs<'r>(
        &self,
        pool: &Pool,
        t: usize,
        row: &(dyn Fn(usize) -> &'r [f32] + Sync),
        quantize: bool,
        out: &mut Inputs,
    ) {
        let weight = self.weight.as_deref().unwrap_or(&[]);
        out.norm(pool, t, row, weight, self.eps, quantize);
    }
}
