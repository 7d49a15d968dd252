//! What every part computes with.

use kernels::{Inputs, Isa, Pool};

use crate::model::weights::{Mapped, Tensor};

/// The threads and the weights of a text model.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) weights: &'a Mapped,
}

impl Compute<'_> {
    pub(crate) fn isa(self) -> Isa {
        self.pool.isa()
    }

    /// `out = matrix · x` for each of `t` rows.
    pub(crate) fn matmul(self, matrix: Tensor, x: &[f32], t: usize, out: &mut [f32]) {
        kernels::matmul::matmul(self.pool, self.weights.view(matrix), x, t, out);
    }

    /// `out = matrix · x` for normed rows.
    pub(crate) fn matmul_of(self, matrix: Tensor, x: &Inputs, out: &mut [f32]) {
        kernels::matmul::matmul_of(self.pool, self.weights.view(matrix), x, out);
    }
}
