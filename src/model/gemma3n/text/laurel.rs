//! LAuReL: a low-rank residual beside attention.
//!
//! Source: Learned Augmented Residual Layer (arXiv 2411.07501), low-rank variant; reference section 2.4 step 3.

use kernels::Inputs;

use crate::model::decoder::{Compute, Loader, RmsNorm};
use crate::model::weights::{Tensor, WeightsError};

/// One layer's two matrices of rank R and the norm behind them.
#[derive(Debug)]
pub(super) struct Laurel {
    left: Tensor,
    right: Tensor,
    norm: RmsNorm,
}

impl Laurel {
    pub(super) fn load(loader: &Loader<'_>, rank: usize, d: usize) -> Result<Laurel, WeightsError> {
        Ok(Laurel {
            left: loader.matrix("laurel.linear_left.weight", rank, d)?,
            right: loader.matrix("laurel.linear_right.weight", d, rank)?,
            norm: loader.norm("laurel.post_laurel_norm.weight", d)?,
        })
    }

    /// `out = x + rms(right(left(x)))` for T normed rows `x`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | at least \[T, R\] |
    pub(super) fn forward(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let (t, d) = (x.tokens(), self.right.rows);
        let low_rank = &mut scratch[..t * self.left.rows];
        compute.matmul_of(self.left, x, low_rank);
        compute.matmul(self.right, low_rank, t, out);
        compute.pool.for_each_row_mut(out, d, &|t, out| {
            self.norm.row(compute.isa(), out);
            kernels::elementwise::add(compute.isa(), out, &x.rows()[t * d..(t + 1) * d]);
        });
    }
}
