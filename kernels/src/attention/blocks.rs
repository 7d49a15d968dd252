//! Online softmax over blocks of keys, with registers, for the heads of one token: keys and values are widened where they are
//! multiplied.
//!
//! On ARM 334 instructions for a key of 256 half floats with its value and a head, where 4 heads share them; 398 for one in 8 bits.

use super::{Attend, BLOCK, HEADS, Part, Queries, Stored, int8};
use crate::dot_tile::DotTile;
use crate::pool::TileMut;
use crate::rows::Rows;
use crate::simd::partial_sums::{self, MAX_REGISTERS, WAYS, registers};
use crate::simd::{Element, Kernel, Plain, Simd, add_weighted_rows, math};

/// For each head the scores, then the weights, of a block; beyond the block's keys the weights are 0.
type Weights = [[f32; BLOCK]; HEADS];

/// For the only token, which has at most [`HEADS`] heads.
#[inline(always)]
pub(super) fn attend<S: Simd>(s: S, mut work: Attend<'_, '_, '_>) {
    let Attend { queries, keys, .. } = work;
    let Part { out, max, sum } = work.part(0);
    let heads = queries.heads;
    for block in 0..keys.blocks() {
        let own = keys.block(0, block);
        let mut weights: Weights = [[0.0; BLOCK]; HEADS];
        let mut at = 0;
        for piece in keys.pieces(own.clone()) {
            let mut all = TileMut::new(weights.as_flattened_mut(), BLOCK);
            let scores = &mut all.part(0..heads, at..at + piece.keys);
            match piece.k {
                Stored::F32(k) => products(s, queries, k, scores),
                Stored::Bf16(k) => products(s, queries, k, scores),
                Stored::F16(k) => products(s, queries, k, scores),
                Stored::Int8(k) => {
                    products(s, queries, k, scores);
                    for key in 0..piece.keys {
                        let scale = int8::scale(k, key);
                        (0..heads).for_each(|h| scores.row_mut(h)[key] *= scale);
                    }
                }
            }
            at += piece.keys;
        }
        let mut shrink = [1.0; HEADS];
        for h in 0..heads {
            let scale = queries.scale;
            shrink[h] = next_block(s, &mut weights[h], scale, at, &mut max[h], &mut sum[h]);
        }
        let mut at = 0;
        for piece in keys.pieces(own) {
            let keys = piece.keys;
            let mut own: Weights = [[0.0; BLOCK]; HEADS];
            for (own, weights) in own.iter_mut().zip(&weights) {
                own[..keys].copy_from_slice(&weights[at..at + keys]);
            }
            match piece.v {
                Stored::F32(v) => add(s, out, &own, &shrink, v, keys),
                Stored::Bf16(v) => add(s, out, &own, &shrink, v, keys),
                Stored::F16(v) => add(s, out, &own, &shrink, v, keys),
                Stored::Int8(v) => {
                    for key in 0..keys {
                        let scale = int8::scale(v, key);
                        own.iter_mut().for_each(|weights| weights[key] *= scale);
                    }
                    add(s, out, &own, &shrink, v, keys);
                }
            }
            shrink = [1.0; HEADS];
            at += keys;
        }
    }
}

/// `q_h · k_j` for each head and key of a piece; `scores` is 0 before.
#[inline(always)]
fn products<S: Simd, E: Element>(
    s: S,
    queries: Queries<'_>,
    k: Rows<'_, E>,
    scores: &mut TileMut<'_, f32>,
) {
    let x = Rows {
        data: queries.q,
        stride: queries.head_dim,
        depth: queries.head_dim,
    };
    DotTile { w: k, x, y: scores }.simd(s);
}

/// Turns a head's `keys` scores of its next block into weights, and takes them into its largest score and its sum; what was
/// summed before is to be multiplied with what is returned.
#[inline(always)]
pub(super) fn next_block<S: Simd>(
    s: S,
    weights: &mut [f32; BLOCK],
    scale: f32,
    keys: usize,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let old = *max;
    let (new, added) = to_weights(s, weights, scale, keys, old);
    // The first block: nothing was summed before.
    let shrink = if old == f32::NEG_INFINITY {
        0.0
    } else {
        math::exp(Plain, old - new)
    };
    *max = new;
    *sum = *sum * shrink + added;
    shrink
}

/// Turns `keys` scores into weights `e^(scale score - max)`; returns the largest scaled score, `old` included, and their sum.
#[inline(always)]
fn to_weights<S: Simd>(
    s: S,
    scores: &mut [f32; BLOCK],
    scale: f32,
    keys: usize,
    old: f32,
) -> (f32, f32) {
    scores[..keys].iter_mut().for_each(|score| *score *= scale);
    scores[keys..].fill(f32::NEG_INFINITY);
    let mut max = s.splat(old);
    for x in scores.chunks_exact(S::LANES) {
        max = s.max(max, s.load(x));
    }
    let max = s.max_lane(max);
    let mut partial = [s.splat(0.0); MAX_REGISTERS];
    for x in scores.as_chunks_mut::<WAYS>().0 {
        for (i, partial) in partial[..registers::<S>()].iter_mut().enumerate() {
            let x = &mut x[i * S::LANES..];
            let e = math::exp(s, s.sub(s.load(x), s.splat(max)));
            *partial = s.add(*partial, e);
            s.store(e, x);
        }
    }
    (max, partial_sums::total(s, partial))
}

/// `out_h = shrink_h out_h + sum_j weight_hj v_j` for each head.
#[inline(always)]
fn add<S: Simd, E: Element>(
    s: S,
    out: &mut [f32],
    weights: &Weights,
    shrink: &[f32; HEADS],
    v: Rows<'_, E>,
    keys: usize,
) {
    let heads = out.len() / v.depth;
    let mut h = 0;
    while h < heads {
        let (weights, shrink) = (&weights[h..], &shrink[h..]);
        let rest = &mut out[h * v.depth..];
        h += match heads - h {
            4.. => add_heads::<S, E, 4>(s, rest, weights, shrink, v, keys),
            2.. => add_heads::<S, E, 2>(s, rest, weights, shrink, v, keys),
            _ => add_heads::<S, E, 1>(s, rest, weights, shrink, v, keys),
        };
    }
}

/// [`add`] for the first `H` heads; returns `H`.
#[inline(always)]
fn add_heads<S: Simd, E: Element, const H: usize>(
    s: S,
    out: &mut [f32],
    weights: &[[f32; BLOCK]],
    shrink: &[f32],
    v: Rows<'_, E>,
    keys: usize,
) -> usize {
    let depth = v.depth;
    let mut own = [&weights[0][..keys]; H];
    for (own, weights) in own.iter_mut().zip(weights) {
        *own = &weights[..keys];
    }
    let mut at = 0;
    if S::REGISTERS >= 32 {
        while depth - at >= 4 * S::LANES {
            let (out, rows) = (&mut out[at..], &v.data[at..]);
            add_columns::<S, E, H, 4>(s, out, depth, own, shrink, rows, v.stride);
            at += 4 * S::LANES;
        }
    }
    while depth - at >= 2 * S::LANES {
        let (out, rows) = (&mut out[at..], &v.data[at..]);
        add_columns::<S, E, H, 2>(s, out, depth, own, shrink, rows, v.stride);
        at += 2 * S::LANES;
    }
    while at < depth {
        let width = S::LANES.min(depth - at);
        for h in 0..H {
            let out = &mut out[h * depth + at..][..width];
            let mut sum = s.mul(s.load_tail(out, 0.0), s.splat(shrink[h]));
            for (j, &weight) in weights[h][..keys].iter().enumerate() {
                let value = E::load_tail(s, &v.row(j)[at..at + width]);
                sum = s.mul_add(s.splat(weight), value, sum);
            }
            s.store_tail(sum, out);
        }
        at += width;
    }
    H
}

/// For each of `H` heads, whose sums lie `head_dim` apart, `C` registers of columns:
/// `out_h = shrink_h out_h + sum_j weights_hj rows_j`, with `rows` `stride` apart.
#[inline(always)]
pub(super) fn add_columns<S: Simd, E: Element, const H: usize, const C: usize>(
    s: S,
    out: &mut [f32],
    head_dim: usize,
    weights: [&[f32]; H],
    shrink: &[f32],
    rows: &[E],
    stride: usize,
) {
    let mut sums = [[s.splat(0.0); C]; H];
    for (h, sums) in sums.iter_mut().enumerate() {
        for (c, sum) in sums.iter_mut().enumerate() {
            let old = s.load(&out[h * head_dim + c * S::LANES..]);
            *sum = s.mul(old, s.splat(shrink[h]));
        }
    }
    add_weighted_rows(s, &mut sums, weights, rows, stride);
    for (h, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            s.store(*sum, &mut out[h * head_dim + c * S::LANES..]);
        }
    }
}
