//! The transposed product with few rows: the sparse feed-forward's `down`, stored neuron by neuron.

use crate::pool::Pool;
use crate::quant::{GROUP, Quantized};
use crate::simd::{Kernel, Simd, dispatch};

/// Groups of columns that a task accumulates at least: whole cache lines of weights, and few tasks.
const TASK_GROUPS: usize = 8;

/// Adds a few rows of `w`, weighted: `y[j] += Σ_i a[i] w[rows[i], j]`, in the order of `rows`, in f32.
///
/// | | shape |
/// |---|---|
/// | `w` | `[neurons, y.len()]`, row by row |
/// | `rows`, `a` | `[active]` |
///
/// Each term is `y = fma(q, a · s, y)`; a row whose `a` is 0 changes nothing, so leaving it out is exact.
///
/// # Panics
/// When lengths do not agree, `rows` names a row that `w` lacks, or `w` is tiled.
pub fn accumulate_rows(pool: &Pool, w: Quantized, rows: &[u32], a: &[f32], y: &mut [f32]) {
    assert_eq!(rows.len(), a.len(), "one factor a row");
    let rows = rows.iter().map(|&row| row as usize).zip(a.iter().copied());
    by_columns(pool, w, rows, y);
}

/// Adds all rows of `w`, weighted: `y[j] += Σ_i a[i] w[i, j]`, as [`accumulate_rows`].
pub(crate) fn accumulate_all_rows(pool: &Pool, w: Quantized, a: &[f32], y: &mut [f32]) {
    assert_eq!(a.len(), w.rows(), "one factor a row");
    by_columns(pool, w, a.iter().copied().enumerate(), y);
}

fn by_columns(
    pool: &Pool,
    w: Quantized,
    rows: impl Iterator<Item = (usize, f32)> + Clone + Sync,
    y: &mut [f32],
) {
    assert_eq!(y.len(), w.cols(), "one output a column");
    assert!(
        !w.format().is_tiled(),
        "rows of a tiled matrix cannot be picked"
    );
    let groups = w
        .groups()
        .div_ceil(pool.threads())
        .next_multiple_of(TASK_GROUPS);
    pool.for_each_chunk_mut(y, groups * GROUP, &|chunk, y| {
        dispatch(
            pool.isa(),
            Columns {
                w,
                rows: rows.clone(),
                first_group: chunk * groups,
                y,
            },
        );
    });
}

/// The outputs `y`, from group `first_group` on.
struct Columns<'a, R> {
    w: Quantized<'a>,
    rows: R,
    first_group: usize,
    y: &'a mut [f32],
}

impl<R: Iterator<Item = (usize, f32)>> Kernel for Columns<'_, R> {
    type Output = ();

    #[inline(always)]
    fn scalar(self) {
        for (row, a) in self.rows {
            let (integers, scales) = self.w.unit(row);
            let scales = scales.as_chunks::<2>().0[self.first_group..]
                .iter()
                .map(|&s| a * half::f16::from_le_bytes(s).to_f32());
            if self.w.format().is_q4() {
                let integers = &integers.as_chunks::<{ GROUP / 2 }>().0[self.first_group..];
                for ((integers, scale), y) in
                    integers.iter().zip(scales).zip(self.y.chunks_mut(GROUP))
                {
                    let mut q = [0; GROUP];
                    for (j, &byte) in integers.iter().enumerate() {
                        q[j] = (byte & 15) as i8 - 8;
                        q[j + GROUP / 2] = (byte >> 4) as i8 - 8;
                    }
                    accumulate(q, scale, y);
                }
            } else {
                let integers = &integers.as_chunks::<GROUP>().0[self.first_group..];
                for ((integers, scale), y) in
                    integers.iter().zip(scales).zip(self.y.chunks_mut(GROUP))
                {
                    accumulate(integers.map(|byte| byte as i8), scale, y);
                }
            }
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, _: S) {
        // The same code: the compiler makes vectors of its loops of 32.
        self.scalar();
    }
}

#[inline(always)]
fn accumulate(q: [i8; GROUP], scale: f32, y: &mut [f32]) {
    if let Some(y) = y.first_chunk_mut::<GROUP>() {
        for (y, q) in y.iter_mut().zip(q) {
            *y = f32::from(q).mul_add(scale, *y);
        }
    } else {
        for (y, q) in y.iter_mut().zip(q) {
            *y = f32::from(q).mul_add(scale, *y);
        }
    }
}
