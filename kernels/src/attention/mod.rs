//! Attention of one token over the keys and values that it may see.
//!
//! The query heads that share a key/value head (grouped-query attention) are done together, so that keys and values are
//! read once for all of them. The caller says what is visible: a causal mask and a sliding window are simply the keys that
//! it passes, for instance the two parts of a ring and the fresh keys of the current chunk as three segments.
//!
//! Keys are taken in blocks of 32, counted from the first visible one, wherever segments end. Each block's scores become
//! weights relative to the largest score so far, and what was summed before shrinks when that grows, so one pass over the
//! keys is enough and no score is stored. For the same reason parts of the keys can be attended to by different threads
//! ([`attend_part`]) and put together in the end ([`combine`]). How many keys are in a part follows from their number
//! ([`part_keys`]), so that the result does not depend on who computes what; nor does it on the instruction set.
//!
//! Source: Vaswani et al., *Attention Is All You Need*, 2017, equation 1; Milakov and Gimelshein, *Online normalizer
//! calculation for softmax*, 2018, algorithm 3; Ainslie et al., *GQA*, 2023.

mod all;
mod blocks;
pub mod int8;
mod scalar;

use std::cell::Cell;
use std::ops::Range;

use half::{bf16, f16};

pub use self::all::attend_all;
use crate::elementwise::{scale, scale_add};
use crate::rows::Rows;
use crate::simd::{Element, Kernel, Plain, Simd, dispatch, math};
use crate::widen::Widen;
use crate::{Isa, Matrix, MatrixData};

/// Keys and values of consecutive positions of one key/value head.
#[derive(Clone, Copy, Debug)]
pub struct KvSegment<'a> {
    k: Stored<'a>,
    v: Stored<'a>,
    keys: usize,
    head_dim: usize,
}

/// Rows in one of the formats that widen in registers.
#[derive(Clone, Copy, Debug)]
enum Stored<'a> {
    F32(Rows<'a, f32>),
    Bf16(Rows<'a, bf16>),
    F16(Rows<'a, f16>),
    /// Rows of [`int8`], whose scales lie beyond the depth.
    Int8(Rows<'a, i8>),
}

impl<'a> KvSegment<'a> {
    /// `k` and `v` are both `[keys, head_dim]`, each in any float format.
    ///
    /// # Panics
    /// When their shapes differ or one is quantised.
    pub fn new(k: Matrix<'a>, v: Matrix<'a>) -> KvSegment<'a> {
        assert!(
            k.rows == v.rows && k.cols == v.cols,
            "keys {} x {} and values {} x {}",
            k.rows,
            k.cols,
            v.rows,
            v.cols
        );
        KvSegment {
            k: Stored::of(k),
            v: Stored::of(v),
            keys: k.rows,
            head_dim: k.cols,
        }
    }

    /// `k` and `v` are both `keys` rows as [`int8::quantize`] writes them.
    ///
    /// # Panics
    /// When their lengths differ or are not of whole rows.
    pub fn int8(k: &'a [i8], v: &'a [i8], head_dim: usize) -> KvSegment<'a> {
        let stride = int8::row_len(head_dim);
        assert!(
            k.len() == v.len() && k.len().is_multiple_of(stride),
            "rows of {stride} in {} and {} bytes",
            k.len(),
            v.len()
        );
        let rows = |data| {
            Stored::Int8(Rows {
                data,
                stride,
                depth: head_dim,
            })
        };
        KvSegment {
            k: rows(k),
            v: rows(v),
            keys: k.len() / stride,
            head_dim,
        }
    }

    /// How many keys it has.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The keys of a range.
    fn part(self, keys: Range<usize>) -> KvSegment<'a> {
        let (k, v) = (self.k.from(keys.start), self.v.from(keys.start));
        KvSegment {
            k,
            v,
            keys: keys.len(),
            ..self
        }
    }
}

impl<'a> Stored<'a> {
    #[track_caller]
    fn of(matrix: Matrix<'a>) -> Stored<'a> {
        let (stride, depth) = (matrix.row_stride, matrix.cols);
        match matrix.data {
            MatrixData::F32(data) => Stored::F32(Rows {
                data,
                stride,
                depth,
            }),
            MatrixData::Bf16(data) => Stored::Bf16(Rows {
                data,
                stride,
                depth,
            }),
            MatrixData::F16(data) => Stored::F16(Rows {
                data,
                stride,
                depth,
            }),
            _ => panic!("attention over quantised keys or values"),
        }
    }

    /// A row as 32-bit floats; of [`int8`] without its scale.
    #[inline(always)]
    fn widen<S: Simd>(self, s: S, row: usize, to: &mut [f32]) {
        match self {
            Stored::F32(rows) => widen(s, rows.row(row), to),
            Stored::Bf16(rows) => widen(s, rows.row(row), to),
            Stored::F16(rows) => widen(s, rows.row(row), to),
            Stored::Int8(rows) => widen(s, rows.row(row), to),
        }
    }

    fn from(self, row: usize) -> Stored<'a> {
        match self {
            Stored::F32(rows) => Stored::F32(rows.from(row)),
            Stored::Bf16(rows) => Stored::Bf16(rows.from(row)),
            Stored::F16(rows) => Stored::F16(rows.from(row)),
            Stored::Int8(rows) => Stored::Int8(rows.from(row)),
        }
    }
}

#[inline(always)]
fn widen<S: Simd, E: Element>(s: S, from: &[E], to: &mut [f32]) {
    Widen { from, to }.simd(s);
}

/// Keys of a block, a multiple of every register's lanes: 32 values of 256 floats fill the first-level cache.
const BLOCK: usize = 32;

/// Attention over more keys than this is cut into parts.
const PART_KEYS: usize = 512;

/// Parts at most, whatever the number of keys.
pub const MAX_PARTS: usize = 32;

/// How many of `keys` keys are in one part (fewer in the last): all of them where there are few.
pub fn part_keys(keys: usize) -> usize {
    keys.div_ceil(MAX_PARTS).max(PART_KEYS)
}

thread_local! {
    /// The parts of one call of [`attend`], kept for the next.
    static PARTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Query heads that are done together: their sums fit the registers.
const HEADS: usize = 4;

/// `out_h = sum_j w_hj v_j`, `w_h = softmax_j(scale q_h · k_j)`, over all keys `j` of all segments.
///
/// `q` and `out` are `[heads, head_dim]`: the query heads of one key/value head. Without any key, `out` is 0.
///
/// # Panics
/// When a shape does not fit.
pub fn attend(
    isa: Isa,
    q: &[f32],
    head_dim: usize,
    scale_factor: f32,
    segments: &[KvSegment<'_>],
    out: &mut [f32],
) {
    let keys = check(q, head_dim, segments);
    assert_eq!(q.len(), out.len(), "an output for each query head");
    let in_part = part_keys(keys);
    if keys > in_part {
        let part_len = part_len(q.len() / head_dim, head_dim);
        let mut parts = PARTS.take();
        parts.resize(keys.div_ceil(in_part) * part_len, 0.0);
        for (i, part) in parts.chunks_exact_mut(part_len.max(1)).enumerate() {
            let keys = i * in_part..keys.min((i + 1) * in_part);
            attend_part(isa, q, head_dim, scale_factor, segments, keys, part);
        }
        combine(isa, &parts, head_dim, out);
        PARTS.set(parts);
        return;
    }
    for (q, out) in q
        .chunks(HEADS * head_dim)
        .zip(out.chunks_mut(HEADS * head_dim))
    {
        let heads = q.len() / head_dim;
        let (mut max, mut sum) = ([0.0; HEADS], [0.0; HEADS]);
        let (max, sum) = (&mut max[..heads], &mut sum[..heads]);
        let queries = Queries {
            q,
            head_dim,
            scale: scale_factor,
        };
        dispatch(
            isa,
            Attend {
                queries,
                segments,
                keys: 0..keys,
                out,
                max,
                sum,
            },
        );
        for (out, &sum) in out.chunks_exact_mut(head_dim).zip(&*sum) {
            if sum != 0.0 {
                scale(isa, out, 1.0 / sum);
            }
        }
    }
}

/// Floats that [`attend_part`] writes for `heads` query heads.
pub fn part_len(heads: usize, head_dim: usize) -> usize {
    heads * (head_dim + 2)
}

/// The part of [`attend`] that the keys of the range `keys` contribute, for [`combine`]; keys are counted through all segments.
///
/// `part` has [`part_len`] elements: the weighted sums of values, not yet divided, `[heads, head_dim]`, then for each head
/// the largest score, then for each head the sum of the weights.
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
    let all = check(q, head_dim, segments);
    assert!(
        keys.start <= keys.end && keys.end <= all,
        "keys {keys:?} of {all}"
    );
    let heads = q.len() / head_dim;
    assert_eq!(
        part.len(),
        part_len(heads, head_dim),
        "a part of {heads} heads of {head_dim}"
    );
    let (out, rest) = part.split_at_mut(heads * head_dim);
    let (max, sum) = rest.split_at_mut(heads);
    for (((q, out), max), sum) in q
        .chunks(HEADS * head_dim)
        .zip(out.chunks_mut(HEADS * head_dim))
        .zip(max.chunks_mut(HEADS))
        .zip(sum.chunks_mut(HEADS))
    {
        let queries = Queries { q, head_dim, scale };
        dispatch(
            isa,
            Attend {
                queries,
                segments,
                keys: keys.clone(),
                out,
                max,
                sum,
            },
        );
    }
}

/// Puts the parts of [`attend_part`] that cover all keys once together: `out` is what [`attend`] gives, to the bit if the
/// parts have [`part_keys`] keys, else to rounding.
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

/// How many keys there are, after checking the shapes.
#[track_caller]
fn check(q: &[f32], head_dim: usize, segments: &[KvSegment<'_>]) -> usize {
    assert!(
        head_dim > 0 && q.len().is_multiple_of(head_dim),
        "query heads of {head_dim}"
    );
    for segment in segments {
        assert_eq!(
            segment.head_dim, head_dim,
            "keys and values for heads of {head_dim}"
        );
    }
    segments.iter().map(|segment| segment.keys).sum()
}

/// At most [`HEADS`] query heads `[heads, head_dim]`, and what multiplies their scores.
#[derive(Clone, Copy)]
struct Queries<'a> {
    q: &'a [f32],
    head_dim: usize,
    scale: f32,
}

/// `out`: values weighted by `e^(score - max)`; `max`: the largest score; `sum`: the sum of the weights; each for each head.
struct Attend<'a> {
    queries: Queries<'a>,
    segments: &'a [KvSegment<'a>],
    keys: Range<usize>,
    out: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();

    fn scalar(self) {
        scalar::attend(self);
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        blocks::attend(s, self);
    }
}

impl<'a> Attend<'a> {
    /// The keys, [`BLOCK`] at a time.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.keys.end;
        self.keys
            .clone()
            .step_by(BLOCK)
            .map(move |at| at..end.min(at + BLOCK))
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
