//! Online softmax over blocks of keys, with registers, for many query heads: those of several tokens, or the eight of one.
//!
//! The keys of a block are widened and packed once for all queries and multiplied with them as matrices are; values are widened
//! into panels of the columns that registers hold, so that each panel stays in the first-level cache until all queries had it.
//! Tokens may see different keys: a block of each is its own 32, and what is packed is what one of them has in it.

use std::ops::Range;

use super::blocks::{add_columns, next_block};
use super::segment::WithRow;
use super::{Attend, BLOCK, HEADS, Keys, Part, Queries, SPREAD};
use crate::packed_tile;
use crate::pool::TileMut;
use crate::rows::Rows;
use crate::simd::partial_sums::{self, WAYS};
use crate::simd::{Element, Kernel, MAX_LANES, Simd};
use crate::widen::Widen;

/// Keys that a block of all tokens has, at most.
const KEYS: usize = BLOCK + SPREAD;

/// What the queries of a tile meet.
struct Scratch<'a> {
    /// Queries, packed, \[tokens · heads, `packed_len`\].
    q: &'a mut [f32],
    /// Keys of a block, likewise, \[[`KEYS`], `packed_len`\].
    k: &'a mut [f32],
    /// Values of a block, \[panels, [`KEYS`], panel columns\].
    v: &'a mut [f32],
    /// Scores, then weights, \[tokens · heads, [`KEYS`]\].
    weights: &'a mut [f32],
    /// What each query's sums are multiplied with before a block is added.
    shrink: &'a mut [f32],
    packed_len: usize,
}

#[inline(always)]
pub(super) fn attend<S: Simd>(s: S, work: Attend<'_, '_, '_>) {
    if S::REGISTERS >= 32 {
        attend_by::<S, 4>(s, work);
    } else {
        attend_by::<S, 2>(s, work);
    }
}

/// With panels of `C` registers.
#[inline(always)]
fn attend_by<S: Simd, const C: usize>(s: S, mut work: Attend<'_, '_, '_>) {
    let Attend { queries, keys, .. } = work;
    let tokens = keys.ranges.len();
    let count = tokens * queries.heads;
    let packed_len = queries.head_dim.next_multiple_of(WAYS);
    let values = queries.head_dim.next_multiple_of(C * S::LANES);
    let lens = [
        packed_len * count,
        packed_len * KEYS,
        values * KEYS,
        KEYS * count,
        count,
    ];
    let mut all = std::mem::take(work.scratch);
    all.resize(all.len().max(lens.iter().sum()), 0.0);
    let (q, rest) = all.split_at_mut(lens[0]);
    let (k, rest) = rest.split_at_mut(lens[1]);
    let (v, rest) = rest.split_at_mut(lens[2]);
    let (weights, rest) = rest.split_at_mut(lens[3]);
    let mut scratch = Scratch {
        q,
        k,
        v,
        weights,
        shrink: &mut rest[..count],
        packed_len,
    };
    for (i, to) in scratch.q.chunks_exact_mut(packed_len).enumerate() {
        let (token, head) = (i / queries.heads, i % queries.heads);
        Packed(to).call(s, queries.head(token, head));
    }
    for block in 0..keys.blocks() {
        let union = keys.union(block);
        let first = union.start;
        let scales = scratch.take_in::<S, C>(s, keys, union.clone());
        scratch.score(s, count, union.len());
        for token in 0..tokens {
            let own = keys.block(token, block);
            let own = own.start.max(first) - first..own.end.max(first) - first;
            scratch.weigh(s, queries, token, own, &scales, work.part(token));
        }
        for panel in 0..values / (C * S::LANES) {
            for token in 0..tokens {
                let own = keys.block(token, block);
                let own = own.start.max(first) - first..own.end.max(first) - first;
                scratch.add::<S, C>(s, queries, token, own, panel, work.part(token).out);
            }
        }
    }
    *work.scratch = all;
}

impl Keys<'_> {
    /// The keys that a block of any token has.
    #[inline(always)]
    fn union(&self, block: usize) -> Range<usize> {
        let blocks = || (0..self.ranges.len()).map(|token| self.block(token, block));
        let blocks = || blocks().filter(|keys| !keys.is_empty());
        let start = blocks().map(|keys| keys.start).min().unwrap_or(0);
        start..blocks().map(|keys| keys.end).max().unwrap_or(start)
    }
}

/// A row, as [`packed_tile::pack`] writes it.
struct Packed<'a>(&'a mut [f32]);

impl WithRow for Packed<'_> {
    #[inline(always)]
    fn call<S: Simd, E: Element>(self, s: S, row: &[E]) {
        let blocks = row.chunks(partial_sums::BLOCK);
        for (from, to) in blocks.zip(self.0.chunks_mut(partial_sums::BLOCK)) {
            packed_tile::pack(s, from, to);
        }
    }
}

/// A row, `.1` columns to each panel of `.2` elements.
struct Panels<'a>(&'a mut [f32], usize, usize);

impl WithRow for Panels<'_> {
    #[inline(always)]
    fn call<S: Simd, E: Element>(self, s: S, row: &[E]) {
        let Panels(panels, columns, len) = self;
        for (from, to) in row.chunks(columns).zip(panels.chunks_mut(len)) {
            let to = &mut to[..from.len()];
            Widen { from, to }.simd(s);
        }
    }
}

/// What each key's scores and each value's weights are to be multiplied with, where they are stored as integers.
struct Scales {
    k: [f32; KEYS],
    v: [f32; KEYS],
}

impl Scratch<'_> {
    /// Takes in the keys and values of a block.
    #[inline(always)]
    fn take_in<S: Simd, const C: usize>(
        &mut self,
        s: S,
        keys: Keys<'_>,
        own: Range<usize>,
    ) -> Scales {
        let columns = C * S::LANES;
        let mut scales = Scales {
            k: [1.0; KEYS],
            v: [1.0; KEYS],
        };
        let mut at = 0;
        for piece in keys.pieces(own) {
            for key in 0..piece.keys {
                let to = &mut self.k[at * self.packed_len..][..self.packed_len];
                piece.k.with_row(s, key, Packed(to));
                let panels = Panels(&mut self.v[at * columns..], columns, KEYS * columns);
                piece.v.with_row(s, key, panels);
                (scales.k[at], scales.v[at]) = (piece.k.scale(key), piece.v.scale(key));
                at += 1;
            }
        }
        scales
    }

    /// The products of `queries` queries with `keys` keys.
    #[inline(always)]
    fn score<S: Simd>(&mut self, s: S, queries: usize, keys: usize) {
        self.weights.fill(0.0);
        if keys == 0 {
            return;
        }
        let mut all = TileMut::new(self.weights, KEYS);
        let scores = &mut all.part(0..queries, 0..keys);
        for first in (0..self.packed_len).step_by(partial_sums::BLOCK) {
            let depth = partial_sums::BLOCK.min(self.packed_len - first);
            let of = |data| Rows {
                data,
                stride: self.packed_len,
                depth,
            };
            packed_tile::multiply(s, of(&self.k[first..]), of(&self.q[first..]), scores);
        }
    }

    /// A token's scores of its own keys become weights; `keys` are counted from the first that is here.
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        s: S,
        queries: Queries<'_>,
        token: usize,
        keys: Range<usize>,
        scales: &Scales,
        part: Part<'_>,
    ) {
        if keys.is_empty() {
            return;
        }
        let (at, count) = (keys.start, keys.len());
        for (head, (max, sum)) in part.max.iter_mut().zip(part.sum).enumerate() {
            let query = token * queries.heads + head;
            let own = &mut self.weights[query * KEYS + at..][..count];
            let mut weights = [0.0; BLOCK];
            for ((weight, score), scale) in weights.iter_mut().zip(&*own).zip(&scales.k[at..]) {
                *weight = score * scale;
            }
            self.shrink[query] = next_block(s, &mut weights, queries.scale, count, max, sum);
            for ((own, weight), scale) in own.iter_mut().zip(weights).zip(&scales.v[at..]) {
                *own = weight * scale;
            }
        }
    }

    /// Adds to a token's sums `out` \[heads, head_dim\] its weighted values, for the columns of a panel; `keys` are counted from the first
    /// that is here.
    #[inline(always)]
    fn add<S: Simd, const C: usize>(
        &self,
        s: S,
        queries: Queries<'_>,
        token: usize,
        keys: Range<usize>,
        panel: usize,
        out: &mut [f32],
    ) {
        if keys.is_empty() {
            return;
        }
        let rows = &self.v[(panel * KEYS + keys.start) * C * S::LANES..];
        let mut head = 0;
        while head < queries.heads {
            let query = token * queries.heads + head;
            let weights = &self.weights[query * KEYS + keys.start..];
            let shrink = &self.shrink[query..];
            let (at, d) = (panel * C * S::LANES, queries.head_dim);
            let out = &mut out[head * d..];
            let count = keys.len();
            head += match queries.heads - head {
                HEADS.. => add_panel::<S, HEADS, C>(s, out, d, at, weights, shrink, rows, count),
                2.. => add_panel::<S, 2, C>(s, out, d, at, weights, shrink, rows, count),
                _ => add_panel::<S, 1, C>(s, out, d, at, weights, shrink, rows, count),
            };
        }
    }
}

/// The first `keys` rows of a panel, weighted, into the columns from `at` on of `H` heads; returns `H`.
#[inline(always)]
fn add_panel<S: Simd, const H: usize, const C: usize>(
    s: S,
    out: &mut [f32],
    head_dim: usize,
    at: usize,
    weights: &[f32],
    shrink: &[f32],
    rows: &[f32],
    keys: usize,
) -> usize {
    let columns = C * S::LANES;
    let mut own = [&weights[..keys]; H];
    for (own, weights) in own.iter_mut().zip(weights.chunks(KEYS)) {
        *own = &weights[..keys];
    }
    if head_dim - at >= columns {
        add_columns::<S, f32, H, C>(s, &mut out[at..], head_dim, own, shrink, rows, columns);
        return H;
    }
    // Columns that fill no panel.
    let width = head_dim - at;
    let mut some = [0.0; HEADS * 4 * MAX_LANES];
    for (some, out) in some
        .chunks_exact_mut(columns)
        .zip(out.chunks(head_dim))
        .take(H)
    {
        some[..width].copy_from_slice(&out[at..at + width]);
    }
    add_columns::<S, f32, H, C>(s, &mut some, columns, own, shrink, rows, columns);
    for (some, out) in some
        .chunks_exact(columns)
        .zip(out.chunks_mut(head_dim))
        .take(H)
    {
        out[at..at + width].copy_from_slice(&some[..width]);
    }
    H
}
