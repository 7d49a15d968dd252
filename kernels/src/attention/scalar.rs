//! The reference: for each head a pass for the largest score and a pass for the sums, key by key.

use super::{Attend, Floats};
use crate::dot_tile::scalar_dot;
use crate::simd::Element;

pub(super) fn attend(work: Attend<'_>) {
    let queries = work.queries;
    work.out.fill(0.0);
    for (h, q) in queries.q.chunks_exact(queries.head_dim).enumerate() {
        let score = |k| f64::from(score(k, q) * queries.scale);
        let max = work
            .pieces(1)
            .map(|key| score(key.k))
            .fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        let keys = work.pieces(1);
        let out = &mut work.out[h * queries.head_dim..][..queries.head_dim];
        for key in keys {
            let weight = (score(key.k) - max).exp();
            sum += weight;
            add(out, weight, key.v);
        }
        (work.max[h], work.sum[h]) = (max as f32, sum as f32);
    }
}

/// `q · k` for the only row of `k`.
fn score(k: Floats<'_>, q: &[f32]) -> f32 {
    match k {
        Floats::F32(k) => scalar_dot(k.row(0), q),
        Floats::Bf16(k) => scalar_dot(k.row(0), q),
        Floats::F16(k) => scalar_dot(k.row(0), q),
    }
}

/// `out += weight v` for the only row of `v`.
fn add(out: &mut [f32], weight: f64, v: Floats<'_>) {
    match v {
        Floats::F32(v) => add_row(out, weight, v.row(0)),
        Floats::Bf16(v) => add_row(out, weight, v.row(0)),
        Floats::F16(v) => add_row(out, weight, v.row(0)),
    }
}

fn add_row<E: Element>(out: &mut [f32], weight: f64, v: &[E]) {
    for (out, v) in out.iter_mut().zip(v) {
        *out = (f64::from(*out) + weight * f64::from(v.widen())) as f32;
    }
}
