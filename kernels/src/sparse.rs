//! Products with a few rows or columns of a matrix: a feed-forward network most of whose activations are zero.
//!
//! Columns of a row-major matrix take 518 instructions for 32 weights of 16 bit on ARM; a pack stores them so that they take 45 to 49.

use crate::clip::Bounds;
use crate::quantized::{self, accumulate_rows, with_activations};
use crate::rows::Rows;
use crate::simd::partial_sums::{self, BLOCK, WAYS};
use crate::simd::{Element, Kernel, Simd, dispatch};
use crate::{Matrix, MatrixData, Pool};

/// Selected rows, or output rows, that one task computes: some 10,000 multiplications.
const ROWS_PER_TASK: usize = 16;

/// `y[i] = w[rows[i]] · x`: `w` is `[n, cols]`, `x` has `cols` elements, `y` as many as `rows`. Each is what
/// [`matvec`](crate::matvec::matvec) gives.
///
/// # Panics
/// When a length does not fit, there is no such row, or `w` is quantised in tiles, column by column or without scales for groups.
pub fn matvec_rows(pool: &Pool, w: Matrix<'_>, rows: &[u32], x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), w.cols, "x of a matrix with {} columns", w.cols);
    assert_eq!(y.len(), rows.len(), "one result for each selected row");
    assert!(
        rows.iter().all(|&row| (row as usize) < w.rows),
        "a row beyond {}",
        w.rows
    );
    pool.count_weights(w.bytes() / w.rows.max(1) * rows.len());
    match w.data {
        MatrixData::F32(data) => by_selected_rows(pool, w, data, rows, x, y),
        MatrixData::Bf16(data) => by_selected_rows(pool, w, data, rows, x, y),
        MatrixData::F16(data) => by_selected_rows(pool, w, data, rows, x, y),
        MatrixData::Quantized(data) => with_activations(pool, x, 1, w.cols, Bounds::NONE, |x| {
            quantized::matvec_rows::matvec_rows(pool, data, rows, x, y);
        }),
        MatrixData::QuantizedColumns(_) => panic!("rows of a matrix quantised column by column"),
    }
}

fn by_selected_rows<W: Element>(
    pool: &Pool,
    w: Matrix<'_>,
    data: &[W],
    rows: &[u32],
    x: &[f32],
    y: &mut [f32],
) {
    let w = w.float_rows(data);
    pool.for_each_chunk_mut(y, ROWS_PER_TASK, &|chunk, y| {
        let rows = &rows[chunk * ROWS_PER_TASK..][..y.len()];
        dispatch(pool.isa(), DotSelected { w, rows, x, y });
    });
}

struct DotSelected<'a, W> {
    w: Rows<'a, W>,
    rows: &'a [u32],
    x: &'a [f32],
    y: &'a mut [f32],
}

impl<W: Element> Kernel for DotSelected<'_, W> {
    type Output = ();

    fn scalar(self) {
        for (y, &row) in self.y.iter_mut().zip(self.rows) {
            *y = partial_sums::plain_dot(self.w.row(row as usize), self.x);
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        for (y, &row) in self.y.iter_mut().zip(self.rows) {
            *y = partial_sums::dot(s, self.w.row(row as usize), self.x);
        }
    }
}

/// `y[r] = Σ_i values[i] · w[r][cols[i]]`: `w` is `[rows, n]`, `y` has `rows` elements. If `cols` ascend, it is what
/// [`matvec`](crate::matvec::matvec) gives for a vector that is 0 in the other columns.
///
/// The columns of a row-major matrix lie far apart, so this reads one element at a time; packs store such a matrix by
/// column instead.
///
/// # Panics
/// When a length does not fit, there is no such column, or `w` is quantised row by row.
pub fn matvec_columns(pool: &Pool, w: Matrix<'_>, cols: &[u32], values: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), w.rows, "y of a matrix with {} rows", w.rows);
    assert_eq!(
        values.len(),
        cols.len(),
        "one value for each selected column"
    );
    assert!(
        cols.iter().all(|&col| (col as usize) < w.cols),
        "a column beyond {}",
        w.cols
    );
    pool.count_weights(w.bytes() / w.cols.max(1) * cols.len());
    match w.data {
        MatrixData::F32(data) => by_selected_columns(pool, w, data, cols, values, y),
        MatrixData::Bf16(data) => by_selected_columns(pool, w, data, cols, values, y),
        MatrixData::F16(data) => by_selected_columns(pool, w, data, cols, values, y),
        MatrixData::Quantized(_) => panic!("columns of a matrix quantised row by row"),
        MatrixData::QuantizedColumns(data) => {
            y.fill(0.0);
            accumulate_rows(pool, data, cols, values, y);
        }
    }
}

fn by_selected_columns<W: Element>(
    pool: &Pool,
    w: Matrix<'_>,
    data: &[W],
    cols: &[u32],
    values: &[f32],
    y: &mut [f32],
) {
    let w = w.float_rows(data);
    pool.for_each_chunk_mut(y, ROWS_PER_TASK, &|chunk, y| {
        let w = w.from(chunk * ROWS_PER_TASK);
        dispatch(pool.isa(), DotColumns { w, cols, values, y });
    });
}

struct DotColumns<'a, W> {
    w: Rows<'a, W>,
    cols: &'a [u32],
    values: &'a [f32],
    y: &'a mut [f32],
}

impl<W: Element> Kernel for DotColumns<'_, W> {
    type Output = ();

    fn scalar(self) {
        self.each();
    }

    /// Nothing to load side by side, but `mul_add` is one instruction here.
    #[inline(always)]
    fn simd<S: Simd>(self, _: S) {
        self.each();
    }
}

impl<W: Element> DotColumns<'_, W> {
    /// As [`partial_sums`] defines a sum, without its terms of zero.
    #[inline(always)]
    fn each(self) {
        for (i, y) in self.y.iter_mut().enumerate() {
            let row = self.w.row(i);
            let (mut sum, mut partial, mut block) = (0.0, [0.0; WAYS], 0);
            for (&col, &value) in self.cols.iter().zip(self.values) {
                let col = col as usize;
                if col / BLOCK != block {
                    sum += partial_sums::tree(partial);
                    (partial, block) = ([0.0; WAYS], col / BLOCK);
                }
                let way = &mut partial[col % WAYS];
                *way = row[col].widen().mul_add(value, *way);
            }
            *y = sum + partial_sums::tree(partial);
        }
    }
}
