//! The transposed product with few rows: the sparse feed-forward's `down`, stored neuron by neuron.
//!
//! Row after row becomes floats and is added to the sums of its columns, which stay in the first-level cache.
//!
//! 49 instructions for 32 weights of 4 bit on ARM, 45 of 8 bit.

use half::f16;

use crate::pool::Pool;
use crate::quant::{BlockFormat, Bytes, GROUP, Quantized, from_row, with_block_format};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Simd};

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
        dispatch_integer(
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

/// The scale of a group.
type Scale = [u8; 2];

/// Adds one group, `y[j] = fma(q[j], a · s, y[j])`; the method must be `#[inline(always)]` for vectors.
trait AddGroup: Copy {
    fn add<F: BlockFormat>(self, q: &F::Group, s: Scale, a: f32, y: &mut [f32; GROUP]);
}

impl<R: Iterator<Item = (usize, f32)>> IntegerKernel for Columns<'_, R> {
    fn scalar(self) {
        self.each(Scalar);
    }

    each_with!(neon, avx2);
}

impl<R: Iterator<Item = (usize, f32)>> Columns<'_, R> {
    #[inline(always)]
    fn each(self, s: impl AddGroup) {
        with_block_format!(self.w.format(), F => self.each_of::<F>(s));
    }

    #[inline(always)]
    fn each_of<F: BlockFormat>(self, s: impl AddGroup) {
        let (y, y_rest) = self.y.as_chunks_mut::<GROUP>();
        let mut last = [0.0; GROUP];
        last[..y_rest.len()].copy_from_slice(y_rest);
        for (row, a) in self.rows {
            let (integers, scales) = self.w.unit(row);
            let integers = &F::Group::cut(integers)[self.first_group..];
            let scales = &Scale::cut(scales)[self.first_group..];
            for ((q, scale), y) in integers.iter().zip(scales).zip(&mut *y) {
                s.add::<F>(q, *scale, a, y);
            }
            if !y_rest.is_empty() {
                s.add::<F>(&integers[y.len()], scales[y.len()], a, &mut last);
            }
        }
        y_rest.copy_from_slice(&last[..y_rest.len()]);
    }
}

/// The reference.
#[derive(Clone, Copy)]
struct Scalar;

impl AddGroup for Scalar {
    fn add<F: BlockFormat>(self, q: &F::Group, s: Scale, a: f32, y: &mut [f32; GROUP]) {
        let scale = a * f16::from_le_bytes(s).to_f32();
        for (y, q) in y.iter_mut().zip(from_row::<F>(q.as_ref())) {
            *y = f32::from(q).mul_add(scale, *y);
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl AddGroup for Neon {
    #[inline(always)]
    fn add<F: BlockFormat>(self, q: &F::Group, s: Scale, a: f32, y: &mut [f32; GROUP]) {
        let scale = self.multiply_by(self.splat_f16(s), a);
        let [first, second] = F::neon_group(self, q);
        self.multiply_add_bytes(self.minus(first, F::OFFSET), scale, y, 0);
        self.multiply_add_bytes(self.minus(second, F::OFFSET), scale, y, 16);
    }
}

#[cfg(target_arch = "x86_64")]
impl AddGroup for Avx2 {
    #[inline(always)]
    fn add<F: BlockFormat>(self, q: &F::Group, s: Scale, a: f32, y: &mut [f32; GROUP]) {
        let scale = self.mul(self.splat_f16(s), self.splat(a));
        let q = self.minus(F::avx2_group(self, q), F::OFFSET);
        self.multiply_add_bytes(q, scale, y);
    }
}
