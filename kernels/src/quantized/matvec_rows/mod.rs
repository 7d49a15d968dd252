//! `y = W x` with a matrix stored row by row and one token: all rows, or a few picked ones (the sparse feed-forward's `up`).

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use crate::pool::Pool;
use crate::quant::{
    ActivationGroup, BlockFormat, Bytes, Q8Activations, Quantized, with_block_format,
};
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// Groups that a kernel takes at a time: one for each of the four sums.
const FOUR: usize = 4;
/// The scales of four groups of a row.
type Scales = [u8; FOUR * 2];
/// Four groups of a row as they are stored.
struct Stored<'a, F: BlockFormat> {
    integers: &'a [F::Group; FOUR],
    scales: &'a Scales,
}
/// The four sums of a row.
type Sums = [f32; FOUR];
/// The activations of four groups.
type X = [ActivationGroup<1>; FOUR];

/// Rows that a task takes at least.
const TASK_ROWS: usize = 16;

/// Multiplies picked rows with one token: `y[i] = Σ_k w[rows[i], k] x[k]`.
///
/// Group `g` is added, as [`crate::quantized`] says, to the `g mod 4`-th of four sums; `y = (s0 + s1) + (s2 + s3)`.
///
/// # Panics
/// When shapes do not agree, `rows` names a row that `w` lacks, `w` is tiled, or `x` is not one token quantised for the
/// pool's instruction set.
pub fn matvec_rows(pool: &Pool, w: Quantized, rows: &[u32], x: &Q8Activations, y: &mut [f32]) {
    assert_eq!(y.len(), rows.len(), "one output a row");
    each_task(pool, w, x, y, &|first, y| {
        compute(
            pool,
            w,
            rows[first..][..y.len()].iter().map(|&r| r as usize),
            x,
            y,
        )
    });
}

/// Multiplies all rows: `y[r] = Σ_k w[r, k] x[k]`, as [`matvec_rows`].
pub(super) fn matvec_all_rows(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    assert_eq!(y.len(), w.rows(), "one output a row");
    each_task(pool, w, x, y, &|first, y| {
        compute(pool, w, first..first + y.len(), x, y)
    });
}

fn each_task(
    pool: &Pool,
    w: Quantized,
    x: &Q8Activations,
    y: &mut [f32],
    task: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    assert!(
        !w.format().is_tiled(),
        "rows of a tiled matrix cannot be picked"
    );
    assert_eq!(
        (x.isa, x.tokens, x.cols),
        (pool.isa(), 1, w.cols()),
        "instruction set, tokens and columns of x"
    );
    let rows = y
        .len()
        .div_ceil(pool.threads() * crate::pool::TASKS_PER_THREAD)
        .max(TASK_ROWS);
    pool.for_each_chunk_mut(y, rows, &|chunk, y| task(chunk * rows, y));
}

fn compute(
    pool: &Pool,
    w: Quantized,
    rows: impl Iterator<Item = usize>,
    x: &Q8Activations,
    y: &mut [f32],
) {
    let x = &x.single;
    dispatch_integer(pool.isa(), Rows { w, rows, x, y });
}

/// One output of `y` for each of `rows`.
struct Rows<'a, R> {
    w: Quantized<'a>,
    rows: R,
    x: &'a [ActivationGroup<1>],
    y: &'a mut [f32],
}

impl<R: Iterator<Item = usize>> IntegerKernel for Rows<'_, R> {
    fn scalar(self) {
        scalar::rows(self);
    }

    each_with!(neon, dotprod, avx2);
}

/// What an instruction set does with four groups of a row; the method must be `#[inline(always)]`.
trait FourGroups: Copy {
    /// The four sums with the products of one group each.
    fn add<F: BlockFormat>(self, sums: Sums, w: Stored<F>, x: &X) -> Sums;
}

impl<R: Iterator<Item = usize>> Rows<'_, R> {
    #[inline(always)]
    fn each(self, s: impl FourGroups) {
        with_block_format!(self.w.format(), F => self.each_of::<F>(s));
    }

    /// Multiplies row after row. Groups beyond the last are zeros, which add nothing.
    #[inline(always)]
    fn each_of<F: BlockFormat>(self, s: impl FourGroups) {
        let (x, x_rest) = self.x.as_chunks();
        let mut x_last = [ActivationGroup::ZERO; FOUR];
        x_last[..x_rest.len()].copy_from_slice(x_rest);
        for (row, y) in self.rows.zip(self.y) {
            let (integers, scales) = self.w.unit(row);
            let (integers, rest) = F::Group::cut(integers).as_chunks();
            let (scales, scales_rest) = scales.as_chunks();
            let mut sums = [0.0; FOUR];
            for ((integers, scales), x) in integers.iter().zip(scales).zip(x) {
                sums = s.add::<F>(sums, Stored { integers, scales }, x);
            }
            if !rest.is_empty() {
                let (mut integers, mut scales) = ([F::Group::ZERO; FOUR], Scales::ZERO);
                integers[..rest.len()].copy_from_slice(rest);
                scales[..scales_rest.len()].copy_from_slice(scales_rest);
                let (integers, scales) = (&integers, &scales);
                sums = s.add::<F>(sums, Stored { integers, scales }, &x_last);
            }
            *y = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
}
