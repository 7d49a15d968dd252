//! The reference: head by head, block by block, key by key.

use super::{Attend, BLOCK, Stored, int8};
use crate::simd::{Element, Plain, math, partial_sums};

pub(super) fn attend(mut work: Attend<'_>) {
    let queries = work.queries;
    let outs = std::mem::take(&mut work.out).chunks_exact_mut(queries.head_dim);
    let heads = queries.q.chunks_exact(queries.head_dim).zip(outs);
    for (h, (q, out)) in heads.enumerate() {
        out.fill(0.0);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
        for keys in work.blocks() {
            let mut weights = [f32::NEG_INFINITY; BLOCK];
            let singles = || keys.clone().flat_map(|key| work.pieces(key..key + 1));
            for (weight, key) in weights.iter_mut().zip(singles()) {
                *weight = score(key.k, q) * queries.scale;
            }
            let old = max;
            max = weights.iter().copied().fold(old, f32::max);
            weights = weights.map(|score| math::exp(Plain, score - max));
            let shrink = if old == f32::NEG_INFINITY {
                0.0
            } else {
                math::exp(Plain, old - max)
            };
            sum = sum * shrink + partial_sums::plain(BLOCK, |sum, k| sum + weights[k]);
            out.iter_mut().for_each(|out| *out *= shrink);
            for (weight, key) in weights.into_iter().zip(singles()) {
                add(out, weight, key.v);
            }
        }
        (work.max[h], work.sum[h]) = (max, sum);
    }
}

/// `q · k` for the only row of `k`.
fn score(k: Stored<'_>, q: &[f32]) -> f32 {
    match k {
        Stored::F32(k) => partial_sums::plain_dot(k.row(0), q),
        Stored::Bf16(k) => partial_sums::plain_dot(k.row(0), q),
        Stored::F16(k) => partial_sums::plain_dot(k.row(0), q),
        Stored::Int8(k) => partial_sums::plain_dot(k.row(0), q) * int8::scale(k, 0),
    }
}

/// `out += weight v` for the only row of `v`.
fn add(out: &mut [f32], weight: f32, v: Stored<'_>) {
    match v {
        Stored::F32(v) => add_row(out, weight, v.row(0)),
        Stored::Bf16(v) => add_row(out, weight, v.row(0)),
        Stored::F16(v) => add_row(out, weight, v.row(0)),
        Stored::Int8(v) => add_row(out, weight * int8::scale(v, 0), v.row(0)),
    }
}

fn add_row<E: Element>(out: &mut [f32], weight: f32, v: &[E]) {
    for (out, v) in out.iter_mut().zip(v) {
        *out = weight.mul_add(v.widen(), *out);
    }
}
