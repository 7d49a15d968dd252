//! Attention of every query over every key, without a mask: what towers that see pictures do.
//!
//! Queries lie in the lanes of registers: a key's element is multiplied with as many of them as fit, and largest score, weights
//! and sums are each query's own lane. So nothing is added up across lanes, every instruction set gives the same bits, and keys
//! and values are read as they lie. A task has [`QUERIES`] queries of one head and takes [`KEYS`] keys at a time, widened once:
//! no more than that of the scores ever exists.
//!
//! Source: Rabe and Staats, *Self-attention does not need O(n²) memory*, 2021; Milakov and Gimelshein, *Online normalizer
//! calculation for softmax*, 2018, algorithm 3.

use super::{SCRATCH, Stored};
use crate::pool::TileMut;
use crate::simd::{
    Kernel, MAX_LANES, Plain, Simd, add_column_products_with_lanes, add_products_with_lanes,
    dispatch, math,
};
use crate::{Matrix, Pool};

/// Queries of a task: enough that reading the keys and values costs little beside the arithmetic.
const QUERIES: usize = 128;

/// Keys of a block, which are widened together and stay in the first-level cache.
const KEYS: usize = 32;

/// Rows that meet the registers of queries at a time.
const ROWS: usize = 4;

/// Groups of registers that a task's queries fill, at most.
const GROUPS: usize = QUERIES / 16;

/// `out_ih = sum_j w_ihj v_jh`, `w_ih = softmax_j(scale q_ih · k_jh)`, for every row `i` of `q` over all rows `j` of `k` and `v`,
/// head by head.
///
/// `q` and `out` are `[queries, heads · head_dim]`, `k` and `v` `[keys, heads · head_dim]` in any float format. Without any key,
/// `out` is 0. Each thread needs less than `2 head_dim` KiB for itself, whatever the number of rows. The same bits on every
/// instruction set, for every number of threads.
///
/// # Panics
/// When a shape does not fit, or `k` or `v` is quantised.
pub fn attend_all(
    pool: &Pool,
    q: &[f32],
    k: Matrix<'_>,
    v: Matrix<'_>,
    heads: usize,
    scale: f32,
    out: &mut [f32],
) {
    let width = k.cols;
    assert!(
        k.rows == v.rows && width == v.cols && heads > 0 && width.is_multiple_of(heads),
        "keys {} x {width} and values {} x {} of {heads} heads",
        k.rows,
        v.rows,
        v.cols
    );
    assert!(
        q.len() == out.len() && width > 0 && q.len().is_multiple_of(width),
        "{} elements of queries and {} of outputs, {width} a row",
        q.len(),
        out.len()
    );
    let head_dim = width / heads;
    pool.for_each_tile_mut(out, width, QUERIES, head_dim, &|first, column, out| {
        let columns = column..column + head_dim;
        SCRATCH.with_borrow_mut(|scratch| {
            let work = AttendAll {
                q: &q[first * width + column..],
                stride: width,
                k: Stored::of(k.columns(columns.clone())),
                v: Stored::of(v.columns(columns)),
                keys: k.rows,
                head_dim,
                scale,
                out,
                scratch,
            };
            dispatch(pool.isa(), work);
        });
    });
}

/// Some queries of one head over all keys.
struct AttendAll<'a, 'y, 'm> {
    /// Rows of `head_dim` elements, `stride` apart.
    q: &'a [f32],
    stride: usize,
    k: Stored<'a>,
    v: Stored<'a>,
    keys: usize,
    head_dim: usize,
    scale: f32,
    /// `[queries, head_dim]`
    out: &'y mut TileMut<'m, f32>,
    scratch: &'y mut Vec<f32>,
}

impl Kernel for AttendAll<'_, '_, '_> {
    type Output = ();

    /// The reference: query by query, block by block, key by key.
    fn scalar(self) {
        let (head_dim, mut row) = (self.head_dim, vec![0.0; self.head_dim]);
        for i in 0..self.out.rows() {
            let q = &self.q[i * self.stride..][..head_dim];
            let out = self.out.row_mut(i);
            out.fill(0.0);
            let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
            for first in (0..self.keys).step_by(KEYS) {
                let keys = first..self.keys.min(first + KEYS);
                let mut scores = [0.0; KEYS];
                let old = max;
                for (score, key) in scores.iter_mut().zip(keys.clone()) {
                    self.k.widen(Plain, key, &mut row);
                    for (k, q) in row.iter().zip(q) {
                        *score = k.mul_add(q * self.scale, *score);
                    }
                    max = if *score > max { *score } else { max };
                }
                let shrink = math::exp(Plain, old - max);
                sum *= shrink;
                out.iter_mut().for_each(|out| *out *= shrink);
                for (score, key) in scores.iter().zip(keys) {
                    let weight = math::exp(Plain, score - max);
                    sum += weight;
                    self.v.widen(Plain, key, &mut row);
                    for (out, v) in out.iter_mut().zip(&row) {
                        *out = v.mul_add(weight, *out);
                    }
                }
            }
            if sum != 0.0 {
                out.iter_mut().for_each(|out| *out *= 1.0 / sum);
            }
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        if S::REGISTERS >= 32 {
            self.in_lanes::<S, 4>(s);
        } else {
            self.in_lanes::<S, 2>(s);
        }
    }
}

/// What a task holds beside the keys and values of a block, each `lanes` queries behind each other.
struct Group<'a, S: Simd, const C: usize> {
    /// `[head_dim, lanes]`: queries, scaled.
    q: &'a [f32],
    /// `[head_dim, lanes]`: weighted sums of values.
    out: &'a mut [f32],
    max: &'a mut [S::V; C],
    sum: &'a mut [S::V; C],
}

impl AttendAll<'_, '_, '_> {
    /// `C` registers of queries at a time.
    #[inline(always)]
    fn in_lanes<S: Simd, const C: usize>(self, s: S) {
        let (head_dim, lanes, scratch) = (self.head_dim, C * S::LANES, self.scratch);
        let queries = self.out.rows();
        let groups = queries.div_ceil(lanes);
        let group_len = head_dim * lanes;
        scratch.clear();
        let len = 2 * groups * group_len + (2 * head_dim + lanes) * KEYS;
        scratch.resize(len, 0.0);
        let (q, rest) = scratch.split_at_mut(groups * group_len);
        let (out, rest) = rest.split_at_mut(groups * group_len);
        let (k, rest) = rest.split_at_mut(KEYS * head_dim);
        let (v, weights) = rest.split_at_mut(KEYS * head_dim);
        for i in 0..queries {
            let to = &mut q[i / lanes * group_len + i % lanes..];
            let from = &self.q[i * self.stride..][..head_dim];
            for (to, from) in to.iter_mut().step_by(lanes).zip(from) {
                *to = from * self.scale;
            }
        }
        let mut max = [[s.splat(f32::NEG_INFINITY); C]; GROUPS];
        let mut sum = [[s.splat(0.0); C]; GROUPS];
        for first in (0..self.keys).step_by(KEYS) {
            let keys = KEYS.min(self.keys - first);
            for (i, row) in k.chunks_exact_mut(head_dim).take(keys).enumerate() {
                self.k.widen(s, first + i, row);
            }
            for (i, row) in v.chunks_exact_mut(head_dim).take(keys).enumerate() {
                self.v.widen(s, first + i, row);
            }
            for g in 0..groups {
                let at = g * group_len..(g + 1) * group_len;
                let group = Group::<S, C> {
                    q: &q[at.clone()],
                    out: &mut out[at],
                    max: &mut max[g],
                    sum: &mut sum[g],
                };
                group.block(s, k, v, head_dim, &mut weights[..keys * lanes]);
            }
        }
        for i in 0..queries {
            let mut sums = [0.0; 4 * MAX_LANES];
            for (c, sum) in sum[i / lanes].iter().enumerate() {
                s.store(*sum, &mut sums[c * S::LANES..]);
            }
            let sum = sums[i % lanes];
            let factor = if sum != 0.0 { 1.0 / sum } else { 1.0 };
            let from = &out[i / lanes * group_len + i % lanes..];
            let to = self.out.row_mut(i).iter_mut();
            for (to, from) in to.zip(from.iter().step_by(lanes)) {
                *to = from * factor;
            }
        }
    }
}

impl<S: Simd, const C: usize> Group<'_, S, C> {
    /// One block of keys and values, rows of `head_dim`; `weights` is `[keys, lanes]`.
    #[inline(always)]
    fn block(self, s: S, k: &[f32], v: &[f32], head_dim: usize, weights: &mut [f32]) {
        let lanes = C * S::LANES;
        let keys = weights.len() / lanes;
        let old = *self.max;
        // Scores, and the largest.
        let mut key = 0;
        while key < keys {
            let k = &k[key * head_dim..];
            let weights = &mut weights[key * lanes..];
            if keys - key >= ROWS {
                scores::<S, ROWS, C>(s, k, self.q, head_dim, weights, self.max);
                key += ROWS;
            } else {
                scores::<S, 1, C>(s, k, self.q, head_dim, weights, self.max);
                key += 1;
            }
        }
        // Weights, and their sum.
        let mut shrink = [s.splat(0.0); C];
        for c in 0..C {
            shrink[c] = math::exp(s, s.sub(old[c], self.max[c]));
            self.sum[c] = s.mul(self.sum[c], shrink[c]);
        }
        for weights in weights.chunks_exact_mut(lanes) {
            for (c, weights) in weights.chunks_exact_mut(S::LANES).enumerate() {
                let weight = math::exp(s, s.sub(s.load(weights), self.max[c]));
                self.sum[c] = s.add(self.sum[c], weight);
                s.store(weight, weights);
            }
        }
        // Values.
        let mut column = 0;
        while column < head_dim {
            let (v, out) = (&v[column..], &mut self.out[column * lanes..]);
            if head_dim - column >= ROWS {
                add_values::<S, ROWS, C>(s, v, weights, head_dim, shrink, out);
                column += ROWS;
            } else {
                add_values::<S, 1, C>(s, v, weights, head_dim, shrink, out);
                column += 1;
            }
        }
    }
}

/// The scores of the first `R` rows of `k` for the queries `q` \[head_dim, lanes\]; `max` takes them in.
#[inline(always)]
fn scores<S: Simd, const R: usize, const C: usize>(
    s: S,
    k: &[f32],
    q: &[f32],
    head_dim: usize,
    scores: &mut [f32],
    max: &mut [S::V; C],
) {
    let mut sums = [[s.splat(0.0); C]; R];
    add_products_with_lanes(s, &mut sums, k, head_dim, q, head_dim);
    for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(C * S::LANES)) {
        for (c, sum) in sums.iter().enumerate() {
            max[c] = s.max(*sum, max[c]);
            s.store(*sum, &mut scores[c * S::LANES..]);
        }
    }
}

/// `out_r = shrink out_r + sum_j v_jr weights_j` for the first `R` columns of `v`; `out` is \[columns, lanes\].
#[inline(always)]
fn add_values<S: Simd, const R: usize, const C: usize>(
    s: S,
    v: &[f32],
    weights: &[f32],
    head_dim: usize,
    shrink: [S::V; C],
    out: &mut [f32],
) {
    let lanes = C * S::LANES;
    let mut sums = [[s.splat(0.0); C]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum = s.mul(s.load(&out[r * lanes + c * S::LANES..]), shrink[c]);
        }
    }
    add_column_products_with_lanes(s, &mut sums, v, head_dim, weights, weights.len() / lanes);
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            s.store(*sum, &mut out[r * lanes + c * S::LANES..]);
        }
    }
}
