//! LAuReL: a low-rank residual beside attention.
//!
//! Source: Learned Augmented Residual Layer (arXiv 2411.07501), low-rank variant; reference section 2.4 step 3.

use kernels::{Inputs, Pool};

use crate::model::config::TextConfig;
use crate::model::decoder::load::LayerLoader;
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// One layer's two matrices of rank R and the norm behind them.
#[derive(Debug)]
pub(super) struct Laurel {
    left: Tensor,
    right: Tensor,
    norm: Vec<f32>,
    eps: f32,
}

impl Laurel {
    pub(super) fn load(
        loader: &LayerLoader<'_>,
        config: &TextConfig,
    ) -> Result<Laurel, WeightsError> {
        let (d, r) = (config.hidden_size, config.laurel_rank);
        Ok(Laurel {
            left: loader.matrix("laurel.linear_left.weight", r, d)?,
            right: loader.matrix("laurel.linear_right.weight", d, r)?,
            norm: loader.vector("laurel.post_laurel_norm.weight", d)?,
            eps: config.rms_norm_eps,
        })
    }

    /// `out = x + rms(right(left(x)))` for T normed rows `x`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `low` (scratch) | \[T, R\] |
    pub(super) fn forward(
        &self,
        pool: &Pool,
        weights: &Mapped,
        x: &Inputs,
        low: &mut [f32],
        out: &mut [f32],
    ) {
        let (t, d) = (x.tokens(), self.right.rows);
        kernels::matmul::matmul_of(pool, weights.view(self.left), x, low);
        kernels::matmul::matmul(pool, weights.view(self.right), low, t, out);
        pool.for_each_row_mut(out, d, &|t, out| {
            kernels::rms_norm::rms_norm_in_place(pool.isa(), out, Some(&self.norm), self.eps);
            kernels::elementwise::add(pool.isa(), out, &x.rows()[t * d..(t + 1) * d]);
        });
    }
}
