//! AltUp: four residual streams of which one is computed; the others are predicted and corrected.
//!
//! Source: Alternating Updates (arXiv 2301.13310); reference sections 2.3, 2.4 steps 1 and 8, 2.7.

use kernels::{Isa, Pool};

use super::load::LayerLoader;
use crate::model::config::TextConfig;
use crate::model::weights::WeightsError;

/// The largest number of streams that `config.json` may ask for; the real models have 4.
const MAX_STREAMS: usize = 64;

/// The router and coefficients of one layer, A streams of width D.
#[derive(Debug)]
pub(super) struct AltUp {
    streams: usize,
    active: usize,
    eps: f32,
    /// Router rows times the router norm's weight: \[A, D\]. The norm's division commutes with the router's dot product.
    router: Vec<f32>,
    /// \[A·A, A\], output stream major.
    prediction: Vec<f32>,
    /// \[A, A\].
    correction: Vec<f32>,
}

impl AltUp {
    pub(super) fn load(
        loader: &LayerLoader<'_>,
        config: &TextConfig,
    ) -> Result<AltUp, WeightsError> {
        let (a, d) = (config.altup_num_inputs, config.hidden_size);
        let norm = loader.vector("altup.router_norm.weight", d)?;
        let mut router = loader.vector("altup.modality_router.weight", a * d)?;
        for row in router.chunks_exact_mut(d) {
            for (weight, &scale) in row.iter_mut().zip(&norm) {
                *weight *= scale;
            }
        }
        Ok(AltUp {
            streams: a,
            active: config.altup_active_idx,
            eps: config.rms_norm_eps,
            router,
            prediction: loader.vector("altup.prediction_coefs.weight", a * a * a)?,
            correction: loader.vector("altup.correction_coefs.weight", a * a)?,
        })
    }

    /// `tanh(router(rms(x) / D))`, one value per stream.
    fn modalities(&self, isa: Isa, x: &[f32]) -> [f32; MAX_STREAMS] {
        let d = x.len();
        let mean_square = kernels::elementwise::dot(isa, x, x) / d as f32;
        let scale = 1.0 / (mean_square + self.eps).sqrt() / d as f32;
        let mut m = [0.0; MAX_STREAMS];
        for (m, row) in m.iter_mut().zip(self.router.chunks_exact(d)) {
            *m = kernels::elementwise::dot(isa, row, x) * scale;
        }
        kernels::elementwise::tanh(isa, &mut m[..self.streams]);
        m
    }

    /// Predicts every stream from all of them: `q_j = h_j + Σ_i C_ji h_i` with `C = prediction_coefs · m(h_active)`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `h`, `q` | \[T, A, D\] |
    pub(super) fn predict(&self, pool: &Pool, h: &[f32], q: &mut [f32], d: usize) {
        let a = self.streams;
        pool.for_each_row_mut(q, a * d, &|t, q| {
            let h = &h[t * a * d..(t + 1) * a * d];
            let m = self.modalities(pool.isa(), &h[self.active * d..(self.active + 1) * d]);
            for (j, q) in q.chunks_exact_mut(d).enumerate() {
                q.copy_from_slice(&h[j * d..(j + 1) * d]);
                for (i, h) in h.chunks_exact(d).enumerate() {
                    let row = &self.prediction[(j * a + i) * a..(j * a + i + 1) * a];
                    let c: f32 = row.iter().zip(&m).map(|(w, m)| w * m).sum();
                    kernels::elementwise::scale_add(pool.isa(), q, c, h);
                }
            }
        });
    }

    /// Corrects every stream by what the computed one turned out to be: `h_i = q_i + k_i (z − q_active)` with
    /// `k = 1 + correction_coefs · m(z)`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `q`, `h` | \[T, A, D\] |
    /// | `z` | \[T, D\] |
    pub(super) fn correct(&self, pool: &Pool, q: &[f32], z: &[f32], h: &mut [f32], d: usize) {
        let a = self.streams;
        pool.for_each_row_mut(h, a * d, &|t, h| {
            let q = &q[t * a * d..(t + 1) * a * d];
            let z = &z[t * d..(t + 1) * d];
            let m = self.modalities(pool.isa(), z);
            let q_active = &q[self.active * d..(self.active + 1) * d];
            for (i, h) in h.chunks_exact_mut(d).enumerate() {
                let row = &self.correction[i * a..(i + 1) * a];
                let k = 1.0 + row.iter().zip(&m).map(|(w, m)| w * m).sum::<f32>();
                let q_i = &q[i * d..(i + 1) * d];
                for (((h, &q_i), &z), &q_active) in h.iter_mut().zip(q_i).zip(z).zip(q_active) {
                    *h = q_i + k * (z - q_active);
                }
            }
        });
    }
}

/// Floor of the mean square of a projected stream, as in the reference.
const MAGNITUDE_FLOOR: f32 = 1e-5;

/// Scales `u` to the root mean square of `target`: `u · m / n`, `m = sqrt(mean(target²))`,
/// `n = sqrt(max(mean(u²), 1e-5))`.
pub(super) fn match_magnitude(isa: Isa, target: &[f32], u: &mut [f32]) {
    let d = u.len() as f32;
    let wanted = (kernels::elementwise::dot(isa, target, target) / d).sqrt();
    let found = (kernels::elementwise::dot(isa, u, u) / d)
        .max(MAGNITUDE_FLOOR)
        .sqrt();
    let scale = wanted / found;
    for u in u {
        *u *= scale;
    }
}
