//! Keys and values where they lie, in any of the formats that widen in registers.

use std::ops::Range;

use half::{bf16, f16};

use super::int8;
use crate::rows::Rows;
use crate::simd::{Element, Kernel, Simd};
use crate::widen::Widen;
use crate::{Matrix, MatrixData};

/// Keys and values of consecutive positions of one key/value head.
#[derive(Clone, Copy, Debug)]
pub struct KvSegment<'a> {
    pub(super) k: Stored<'a>,
    pub(super) v: Stored<'a>,
    pub(super) keys: usize,
    head_dim: usize,
}

/// Rows in one of the formats that widen in registers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stored<'a> {
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

    /// Elements of a head.
    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The keys of a range.
    pub(super) fn part(self, keys: Range<usize>) -> KvSegment<'a> {
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
    pub(super) fn of(matrix: Matrix<'a>) -> Stored<'a> {
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

    /// Calls `f` with a row, whatever its format.
    #[inline(always)]
    pub(super) fn with_row<S: Simd>(self, s: S, row: usize, f: impl WithRow) {
        match self {
            Stored::F32(rows) => f.call(s, rows.row(row)),
            Stored::Bf16(rows) => f.call(s, rows.row(row)),
            Stored::F16(rows) => f.call(s, rows.row(row)),
            Stored::Int8(rows) => f.call(s, rows.row(row)),
        }
    }

    /// A row as 32-bit floats; of [`int8`] without its scale.
    #[inline(always)]
    pub(super) fn widen<S: Simd>(self, s: S, row: usize, to: &mut [f32]) {
        self.with_row(s, row, Widened(to));
    }

    /// What a row of [`int8`] is to be multiplied with, 1 for others.
    #[inline(always)]
    pub(super) fn scale(self, row: usize) -> f32 {
        match self {
            Stored::Int8(rows) => int8::scale(rows, row),
            _ => 1.0,
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

/// What is done with a row in whatever format.
pub(super) trait WithRow {
    /// Must be `#[inline(always)]`.
    fn call<S: Simd, E: Element>(self, s: S, row: &[E]);
}

struct Widened<'a>(&'a mut [f32]);

impl WithRow for Widened<'_> {
    #[inline(always)]
    fn call<S: Simd, E: Element>(self, s: S, from: &[E]) {
        Widen { from, to: self.0 }.simd(s);
    }
}
