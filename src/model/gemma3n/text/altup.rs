//! AltUp: four residual streams of which one is computed; the others are predicted and corrected.
//!
//! Source: Alternating Updates (arXiv 2301.13310); reference sections 2.3, 2.4 steps 1 and 8, 2.7.

use kernels::{Isa, Pool};

use crate::model::config::TextConfig;
use crate::model::decoder::load::LayerLoader;
use crate::model::weights::WeightsError;

/// The largest number of streams that `config.json` may ask for; the real models have 4.
const MAX_STREAMS: usize = 64;

/// Columns that are predicted together: what all streams have there fits the first cache.
const COLUMNS: usize = 64;

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

    /// Predicts every stream from all of them, in place: `q_j = h_j + Σ_i C_ji h_i` with `C = prediction_coefs · m(h_active)`.
    ///
    /// `h` is \[T, A, D\].
    pub(super) fn predict(&self, pool: &Pool, h: &mut [f32], d: usize) {
        let a = self.streams;
        pool.for_each_row_mut(h, a * d, &|_, h| {
            let m = self.modalities(pool.isa(), &h[self.active * d..(self.active + 1) * d]);
            let coefficient = |j: usize, i: usize| -> f32 {
                let row = &self.prediction[(j * a + i) * a..(j * a + i + 1) * a];
                row.iter().zip(&m).map(|(w, m)| w * m).sum()
            };
            let mut before = [[0.0; COLUMNS]; MAX_STREAMS];
            for start in (0..d).step_by(COLUMNS) {
                let n = COLUMNS.min(d - start);
                for (before, h) in before.iter_mut().zip(h.chunks_exact(d)) {
                    before[..n].copy_from_slice(&h[start..start + n]);
                }
                for (j, h) in h.chunks_exact_mut(d).enumerate() {
                    for (i, before) in before[..a].iter().enumerate() {
                        let h = &mut h[start..start + n];
                        kernels::elementwise::scale_add(
                            pool.isa(),
                            h,
                            coefficient(j, i),
                            &before[..n],
                        );
                    }
                }
            }
        });
    }

    /// Corrects every predicted stream by what the computed one turned out to be, in place: `h_i = q_i + k_i (z − q_active)` with
    /// `k = 1 + correction_coefs · m(z)`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `h` | \[T, A, D\] |
    /// | `z` | \[T, D\] |
    pub(super) fn correct(&self, pool: &Pool, z: &[f32], h: &mut [f32], d: usize) {
        let a = self.streams;
        pool.for_each_row_mut(h, a * d, &|t, h| {
            let z = &z[t * d..(t + 1) * d];
            let m = self.modalities(pool.isa(), z);
            let gain = |i: usize| {
                let row = &self.correction[i * a..(i + 1) * a];
                1.0 + row.iter().zip(&m).map(|(w, m)| w * m).sum::<f32>()
            };
            // The active stream, which the others are corrected by, comes last.
            for i in (0..a).filter(|&i| i != self.active) {
                let (h, active) = two_rows(h, d, i, self.active);
                let k = gain(i);
                for ((h, &z), &active) in h.iter_mut().zip(z).zip(&*active) {
                    *h += k * (z - active);
                }
            }
            let k = gain(self.active);
            for (h, &z) in h[self.active * d..].iter_mut().zip(z) {
                *h += k * (z - *h);
            }
        });
    }
}

/// Two different rows of `d` elements.
fn two_rows(rows: &mut [f32], d: usize, one: usize, other: usize) -> (&mut [f32], &mut [f32]) {
    let (low, high) = rows.split_at_mut(one.max(other) * d);
    let (low, high) = (&mut low[one.min(other) * d..][..d], &mut high[..d]);
    if one < other {
        (low, high)
    } else {
        (high, low)
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
