//! Attention over the keys and values that a token may see.
//!
//! The query heads that share a key/value head (grouped-query attention) are done together, and so are consecutive tokens: keys
//! and values are read and widened once for all of them. The caller says which of the keys each token sees. A causal mask and a
//! sliding window are ranges of the keys that it passes, for instance the two parts of a ring and the fresh keys of the current
//! chunk as three segments.
//!
//! Keys are taken in blocks of 32, counted from the first that a token sees, wherever segments end. Each block's scores become
//! weights relative to the largest score so far, and what was summed before shrinks when that grows, so one pass over the
//! keys is enough and no score is stored. For the same reason parts of the keys can be attended to by different threads
//! ([`attend_tile`]) and put together in the end ([`combine`]). How many keys are in a part follows from their number
//! ([`part_keys`]), so that the result does not depend on who computes what, nor on which tokens are done together; nor does it
//! on the instruction set.
//!
//! Source: Vaswani et al., *Attention Is All You Need*, 2017, equation 1; Milakov and Gimelshein, *Online normalizer
//! calculation for softmax*, 2018, algorithm 3; Ainslie et al., *GQA*, 2023.

mod all;
mod all_int8;
mod blocks;
pub mod int8;
mod scalar;
mod segment;
mod tile;

use std::cell::{Cell, RefCell};
use std::ops::Range;

pub use self::all::attend_all;
pub use self::all_int8::{Int8Memory, attend_all_int8};
pub use self::segment::KvSegment;
use self::segment::Stored;
use crate::Isa;
use crate::elementwise::{scale, scale_add};
use crate::pool::TileMut;
use crate::simd::{Kernel, Plain, Simd, dispatch, math};

/// Keys of a block, a multiple of every register's lanes: 32 values of 256 floats fill the first-level cache.
const BLOCK: usize = 32;

/// How far apart the first keys of tokens that are done together may be.
const SPREAD: usize = 32;

/// Attention over more keys than this is cut into parts.
const PART_KEYS: usize = 512;

/// Parts at most, whatever the number of keys.
pub const MAX_PARTS: usize = 32;

/// How many of `keys` keys are in one part (fewer in the last): all of them where there are few. It doubles where there would be
/// too many parts, so that nearly all neighbours in a long context have the same ones.
pub fn part_keys(keys: usize) -> usize {
    PART_KEYS * keys.div_ceil(PART_KEYS * MAX_PARTS).next_power_of_two()
}

thread_local! {
    /// The parts of one call of [`attend`], kept for the next.
    static PARTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// What a kernel needs for itself, likewise.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Query heads that are done together: their sums fit the registers.
const HEADS: usize = 4;

/// The query heads of consecutive tokens that share a key/value head.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// A token's heads, `[heads, head_dim]`, and `stride` elements after they begin those of the next one.
    pub q: &'a [f32],
    /// Elements from a token's first head to the next one's.
    pub stride: usize,
    /// Query heads of a token.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// What multiplies the scores.
    pub scale: f32,
}

impl<'a> Queries<'a> {
    fn head(&self, token: usize, head: usize) -> &'a [f32] {
        &self.q[token * self.stride + head * self.head_dim..][..self.head_dim]
    }
}

/// `out_h = sum_j w_hj v_j`, `w_h = softmax_j(scale q_h · k_j)`, over all keys `j` of all segments.
///
/// `q` and `out` are `[heads, head_dim]`: the query heads of one token and key/value head. Without any key, `out` is 0.
///
/// # Panics
/// When a shape does not fit.
pub fn attend(
    isa: Isa,
    q: &[f32],
    head_dim: usize,
    scale: f32,
    segments: &[KvSegment<'_>],
    out: &mut [f32],
) {
    assert!(
        q.len() == out.len() && head_dim > 0 && q.len().is_multiple_of(head_dim),
        "heads of {head_dim} in {} elements of queries and {} of outputs",
        q.len(),
        out.len()
    );
    if q.is_empty() {
        return;
    }
    let keys = segments.iter().map(KvSegment::keys).sum();
    let (in_part, part_len) = (part_keys(keys), part_len(q.len() / head_dim, head_dim));
    let mut parts = PARTS.take();
    parts.resize(keys.div_ceil(in_part) * part_len, 0.0);
    for (i, part) in parts.chunks_exact_mut(part_len).enumerate() {
        let keys = i * in_part..keys.min((i + 1) * in_part);
        attend_part(isa, q, head_dim, scale, segments, keys, part);
    }
    combine(isa, &parts, head_dim, out);
    PARTS.set(parts);
}

/// Floats that [`attend_tile`] writes for `heads` query heads of a token.
pub fn part_len(heads: usize, head_dim: usize) -> usize {
    heads * (head_dim + 2)
}

/// [`attend_tile`] for one token: `q` is `[heads, head_dim]`, `part` has [`part_len`] elements.
///
/// # Panics
/// When a shape does not fit or there are fewer keys.
pub fn attend_part(
    isa: Isa,
    q: &[f32],
    head_dim: usize,
    scale: f32,
    segments: &[KvSegment<'_>],
    keys: Range<usize>,
    part: &mut [f32],
) {
    let queries = Queries {
        q,
        stride: q.len(),
        heads: q.len() / head_dim,
        head_dim,
        scale,
    };
    let len = part.len();
    attend_tile(
        isa,
        queries,
        segments,
        &[keys],
        &mut TileMut::new(part, len),
    );
}

/// What some of its keys contribute to the attention of each of a few tokens, for [`combine`]: the same, bit by bit, whichever
/// tokens are done together.
///
/// `keys` says for each token which keys, counted through all segments; they begin at most 32 keys apart, a later token's not
/// before an earlier one's. `parts` is \[tokens, [`part_len`]\]: for each token the weighted sums of values, not yet divided,
/// `[heads, head_dim]`, then for each head the largest score, then for each head the sum of the weights.
///
/// # Panics
/// When a shape does not fit or there are fewer keys.
pub fn attend_tile(
    isa: Isa,
    queries: Queries<'_>,
    segments: &[KvSegment<'_>],
    keys: &[Range<usize>],
    parts: &mut TileMut<'_, f32>,
) {
    check(queries, segments, keys, parts);
    let keys = Keys {
        segments,
        ranges: keys,
    };
    SCRATCH.with_borrow_mut(|scratch| {
        let work = Attend {
            queries,
            keys,
            parts,
            scratch,
        };
        dispatch(isa, work);
    });
}

#[track_caller]
fn check(
    queries: Queries<'_>,
    segments: &[KvSegment<'_>],
    keys: &[Range<usize>],
    parts: &TileMut<'_, f32>,
) {
    let (heads, head_dim) = (queries.heads, queries.head_dim);
    let (tokens, len) = (keys.len(), queries.q.len());
    assert!(
        tokens > 0
            && heads > 0
            && head_dim > 0
            && (tokens - 1) * queries.stride + heads * head_dim <= len,
        "{tokens} tokens of {heads} heads of {head_dim}, {} apart, in {len}",
        queries.stride
    );
    assert_eq!(
        [parts.rows(), parts.cols()],
        [tokens, part_len(heads, head_dim)],
        "parts of {tokens} tokens of {heads} heads of {head_dim}"
    );
    for segment in segments {
        assert_eq!(
            segment.head_dim(),
            head_dim,
            "keys and values for heads of {head_dim}"
        );
    }
    let all: usize = segments.iter().map(KvSegment::keys).sum();
    let first = keys[0].start;
    assert!(
        keys.iter()
            .all(|keys| keys.start <= keys.end && keys.end <= all)
            && keys.is_sorted_by_key(|keys| keys.start)
            && keys.iter().all(|keys| keys.start - first <= SPREAD),
        "keys {keys:?} of {all}"
    );
}

/// Puts the parts of [`attend_tile`] that cover all of a token's keys once together: `out` is what [`attend`] gives, to the bit if
/// the parts have [`part_keys`] keys, else to rounding.
///
/// `parts` is any number of parts of `out.len() / head_dim` heads, back to back.
///
/// # Panics
/// When a length does not fit.
pub fn combine(isa: Isa, parts: &[f32], head_dim: usize, out: &mut [f32]) {
    assert!(
        head_dim > 0 && out.len().is_multiple_of(head_dim),
        "heads of {head_dim}"
    );
    let heads = out.len() / head_dim;
    let part_len = part_len(heads, head_dim).max(1);
    assert!(
        parts.len().is_multiple_of(part_len),
        "parts of {heads} heads of {head_dim}"
    );
    let (max_at, sum_at) = (heads * head_dim, heads * head_dim + heads);
    for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
        if parts.len() == part_len {
            // The only one: as it is.
            out.copy_from_slice(&parts[h * head_dim..][..head_dim]);
            let sum = parts[sum_at + h];
            if sum != 0.0 {
                scale(isa, out, 1.0 / sum);
            }
            continue;
        }
        out.fill(0.0);
        let parts = || {
            parts
                .chunks_exact(part_len)
                .filter(|part| part[sum_at + h] != 0.0)
        };
        let max = parts()
            .map(|part| part[max_at + h])
            .fold(f32::NEG_INFINITY, f32::max);
        let weight = |part: &[f32]| math::exp(Plain, part[max_at + h] - max);
        let sum: f32 = parts().map(|part| part[sum_at + h] * weight(part)).sum();
        for part in parts() {
            scale_add(
                isa,
                out,
                weight(part) / sum,
                &part[h * head_dim..][..head_dim],
            );
        }
    }
}

/// Parts of the attention of some tokens.
struct Attend<'a, 'y, 'm> {
    queries: Queries<'a>,
    keys: Keys<'a>,
    parts: &'y mut TileMut<'m, f32>,
    scratch: &'y mut Vec<f32>,
}

/// What tokens see.
#[derive(Clone, Copy)]
struct Keys<'a> {
    segments: &'a [KvSegment<'a>],
    /// By token.
    ranges: &'a [Range<usize>],
}

/// A token's part, for each head: values weighted by `e^(score - max)`, the largest score, the sum of the weights.
struct Part<'a> {
    out: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Kernel for Attend<'_, '_, '_> {
    type Output = ();

    fn scalar(self) {
        scalar::attend(self);
    }

    #[inline(always)]
    fn simd<S: Simd>(mut self, s: S) {
        for token in 0..self.keys.ranges.len() {
            self.part(token).clear();
        }
        if self.keys.ranges.len() == 1 && self.queries.heads <= HEADS {
            blocks::attend(s, self);
        } else {
            tile::attend(s, self);
        }
    }
}

impl Attend<'_, '_, '_> {
    fn part(&mut self, token: usize) -> Part<'_> {
        let heads = self.queries.heads;
        let (out, rest) = self
            .parts
            .row_mut(token)
            .split_at_mut(heads * self.queries.head_dim);
        let (max, sum) = rest.split_at_mut(heads);
        Part { out, max, sum }
    }
}

impl<'a> Keys<'a> {
    /// A token's keys of block `block`; none where it has fewer.
    fn block(&self, token: usize, block: usize) -> Range<usize> {
        let keys = &self.ranges[token];
        let at = |block: usize| keys.end.min(keys.start + block * BLOCK);
        at(block)..at(block + 1)
    }

    /// Blocks of the token that has most of them.
    fn blocks(&self) -> usize {
        let most = self.ranges.iter().map(Range::len).max();
        most.unwrap_or(0).div_ceil(BLOCK)
    }

    /// Some of the keys, as the pieces of the segments where they are.
    fn pieces(&self, keys: Range<usize>) -> impl Iterator<Item = KvSegment<'a>> + use<'a> {
        let mut before = 0;
        self.segments.iter().filter_map(move |segment| {
            let first = before;
            before += segment.keys;
            let from = keys.start.clamp(first, before) - first;
            let to = keys.end.clamp(first, before) - first;
            (from < to).then(|| segment.part(from..to))
        })
    }
}

impl Part<'_> {
    fn clear(&mut self) {
        self.out.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
    }
}
