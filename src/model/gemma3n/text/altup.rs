//! AltUp: four residual streams of which one is computed; the others are predicted and corrected.
//!
//! Source: Alternating Updates (arXiv 2301.13310); reference section 2.4, steps 1, 8 and 9.

use kernels::{Isa, Pool};

use crate::model::decoder::Loader;
use crate::model::gemma3n::config::TextConfig;
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
    d: usize,
    eps: f32,
    /// Router rows times the router norm's weight: \[A, D\]. The norm's division commutes with the router's dot product.
    router: Vec<f32>,
    /// \[A·A, A\], output stream major.
    prediction: Vec<f32>,
    /// \[A, A\].
    correction: Vec<f32>,
    /// `correct_output_scale`, where the config asks for it: \[D\].
    output_scale: Option<Vec<f32>>,
}

impl AltUp {
    pub(super) fn load(loader: &Loader<'_>, config: &TextConfig) -> Result<AltUp, WeightsError> {
        let (a, d) = (config.altup_num_inputs, config.hidden_size);
        let norm = loader.vector("altup.router_norm.weight", d)?;
        let mut router = loader.vector("altup.modality_router.weight", a * d)?;
        for row in router.chunks_exact_mut(d) {
            for (weight, &scale) in row.iter_mut().zip(&norm) {
                *weight *= scale;
            }
        }
        let output_scale = config
            .altup_correct_scale
            .then(|| loader.vector("altup.correct_output_scale", d))
            .transpose()?;
        Ok(AltUp {
            streams: a,
            active: config.altup_active_idx,
            d,
            eps: config.rms_norm_eps,
            router,
            prediction: loader.vector("altup.prediction_coefs.weight", a * a * a)?,
            correction: loader.vector("altup.correction_coefs.weight", a * a)?,
            output_scale,
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
    pub(super) fn predict(&self, pool: &Pool, h: &mut [f32]) {
        let (a, d) = (self.streams, self.d);
        pool.for_each_row_mut(h, a * d, &|_, h| {
            let m = self.modalities(pool.isa(), self.active(h, 0));
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
    pub(super) fn correct(&self, pool: &Pool, z: &[f32], h: &mut [f32]) {
        let (a, d) = (self.streams, self.d);
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

    /// The stream that is computed, of token `t`: `h` is \[T, A, D\].
    pub(super) fn active<'h>(&self, h: &'h [f32], t: usize) -> &'h [f32] {
        &h[(t * self.streams + self.active) * self.d..][..self.d]
    }

    /// What the per-layer input gate reads: the active stream times `correct_output_scale`.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `h` | \[T, A, D\] |
    /// | `out` | \[T, D\] |
    pub(super) fn scaled_active(&self, h: &[f32], out: &mut [f32]) {
        for (t, out) in out.chunks_exact_mut(self.d).enumerate() {
            let active = self.active(h, t);
            match &self.output_scale {
                None => out.copy_from_slice(active),
                Some(scale) => {
                    for ((out, &h), &scale) in out.iter_mut().zip(active).zip(scale) {
                        *out = h * scale;
                    }
                }
            }
        }
    }

    /// Adds `v` \[T, D\] to every stream but the first, in place: `h` is \[T, A, D\].
    pub(super) fn add_to_others(&self, isa: Isa, v: &[f32], h: &mut [f32]) {
        let d = self.d;
        let rows = h.chunks_exact_mut(self.streams * d).zip(v.chunks_exact(d));
        for (h, v) in rows {
            for stream in h.chunks_exact_mut(d).skip(1) {
                kernels::elementwise::add(isa, stream, v);
            }
        }
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
