//! The reference: token by token, head by head, block by block, key by key.

use super::{Attend, BLOCK, Part, Stored, int8};
use crate::simd::{Element, Plain, math, partial_sums};

pub(super) fn attend(mut work: Attend<'_, '_, '_>) {
    for token in 0..work.keys.ranges.len() {
        for head in 0..work.queries.heads {
            attend_head(&mut work, token, head);
        }
    }
}

fn attend_head(work: &mut Attend<'_, '_, '_>, token: usize, head: usize) {
    let Attend { queries, keys, .. } = *work;
    let q = queries.head(token, head);
    let Part {
        out,
        max: to_max,
        sum: to_sum,
    } = work.part(token);
    let out = &mut out[head * queries.head_dim..][..queries.head_dim];
    out.fill(0.0);
    let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
    for block in 0..keys.ranges[token].len().div_ceil(BLOCK) {
        let own = keys.block(token, block);
        let mut weights = [f32::NEG_INFINITY; BLOCK];
        let singles = || own.clone().flat_map(|key| keys.pieces(key..key + 1));
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
    (to_max[head], to_sum[head]) = (max, sum);
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
