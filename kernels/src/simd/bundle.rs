//! Several rows of one length, read side by side with one check.

use std::ops::Range;

use super::partial_sums::{MAX_REGISTERS, WAYS, fold_all, last_step, registers};
use super::{Element, Simd};

/// `R` rows of equal length, whose columns are loaded together.
#[derive(Clone, Copy)]
pub(crate) struct Bundle<'a, E, const R: usize> {
    rows: [&'a [E]; R],
    len: usize,
}

impl<'a, E: Element, const R: usize> Bundle<'a, E, R> {
    /// `R` rows of `len` elements.
    #[inline(always)]
    pub(crate) fn new(rows: [&'a [E]; R], len: usize) -> Self {
        for row in rows {
            assert_eq!(row.len(), len);
        }
        Bundle { rows, len }
    }

    /// Columns.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The sums of products over a block of columns, for each row of `x` and each row of these, but for the lanes of a register.
    #[inline(always)]
    pub(crate) fn products<S: Simd, const T: usize>(
        self,
        s: S,
        x: Bundle<'_, f32, T>,
        columns: Range<usize>,
    ) -> [[S::V; R]; T] {
        assert!(columns.start <= columns.end && columns.end <= self.len && columns.end <= x.len);
        let mut partial = [[[s.splat(0.0); R]; T]; MAX_REGISTERS];
        let end_of_steps = columns.end - columns.len() % WAYS;
        let mut at = columns.start;
        while at < end_of_steps {
            // SAFETY: a whole step before the end of both, as just checked.
            let (w, x) = unsafe { (self.step(at), x.step(at)) };
            add_products(s, &mut partial, w, x);
            at += WAYS;
        }
        if at < columns.end {
            let (w, x) = (
                self.last_step(at..columns.end),
                x.last_step(at..columns.end),
            );
            add_products(s, &mut partial, w.each_ref(), x.each_ref());
        }
        fold_all(s, partial)
    }

    /// [`Bundle::products`], but for one register of partial sums after the other: where a step of all of them takes many
    /// registers, more rows of both sides fit at a time.
    #[inline(always)]
    pub(crate) fn products_by_register<S: Simd, const T: usize>(
        self,
        s: S,
        x: Bundle<'_, f32, T>,
        columns: Range<usize>,
    ) -> [[S::V; R]; T] {
        assert!(columns.start <= columns.end && columns.end <= self.len && columns.end <= x.len);
        let mut partial = [[[s.splat(0.0); R]; T]; MAX_REGISTERS];
        let steps = columns.start..columns.end - columns.len() % WAYS;
        for (i, partial) in partial[..registers::<S>()].iter_mut().enumerate() {
            let own = steps.start + i * S::LANES..steps.end;
            *partial = self.register_products(s, x, own, WAYS);
        }
        if steps.end < columns.end {
            let rest = steps.end..columns.end;
            let (w, x) = (self.last_step(rest.clone()), x.last_step(rest));
            add_products(s, &mut partial, w.each_ref(), x.each_ref());
        }
        fold_all(s, partial)
    }

    /// One register of sums over each `stride`th register of a range of columns, for each row of `x` and each row of these.
    #[inline(always)]
    pub(crate) fn register_products<S: Simd, const T: usize>(
        self,
        s: S,
        x: Bundle<'_, f32, T>,
        columns: Range<usize>,
        stride: usize,
    ) -> [[S::V; R]; T] {
        assert!(columns.end <= self.len && columns.end <= x.len && stride >= S::LANES);
        let mut sums = [[s.splat(0.0); R]; T];
        let mut at = columns.start;
        while at + S::LANES <= columns.end {
            let mut xs = [s.splat(0.0); T];
            for (to, row) in xs.iter_mut().zip(&x.rows) {
                // SAFETY: LANES columns from `at` on are in the range, and each row has all of it.
                *to = unsafe { s.load_ptr(row.as_ptr().add(at)) };
            }
            for (r, row) in self.rows.iter().enumerate() {
                // SAFETY: as above.
                let w = unsafe { E::load_ptr(s, row.as_ptr().add(at)) };
                for (sums, x) in sums.iter_mut().zip(xs) {
                    sums[r] = s.mul_add(w, x, sums[r]);
                }
            }
            at += stride;
        }
        sums
    }

    /// The columns of a range, fewer than `WAYS`, continued with zeros.
    #[inline(always)]
    fn last_step(&self, columns: Range<usize>) -> [[f32; WAYS]; R] {
        let mut out = [[0.0; WAYS]; R];
        for (out, row) in out.iter_mut().zip(&self.rows) {
            *out = last_step(&row[columns.clone()], 0.0);
        }
        out
    }

    /// The `WAYS` columns from `at` on.
    ///
    /// # Safety
    /// There must be as many.
    #[inline(always)]
    unsafe fn step(&self, at: usize) -> [&'a [E; WAYS]; R] {
        self.rows.map(|row| {
            // SAFETY: each row has `len` elements, of which WAYS from `at` on, as the caller promises.
            unsafe { &*row.as_ptr().add(at).cast() }
        })
    }
}

#[inline(always)]
fn add_products<S: Simd, W: Element, const R: usize, const T: usize>(
    s: S,
    partial: &mut [[[S::V; R]; T]; MAX_REGISTERS],
    w: [&[W; WAYS]; R],
    x: [&[f32; WAYS]; T],
) {
    let n = registers::<S>();
    let mut all = [[s.splat(0.0); MAX_REGISTERS]; R];
    for (to, w) in all.iter_mut().zip(w) {
        if n == MAX_REGISTERS {
            // SAFETY: all registers take `WAYS` elements.
            *to = unsafe { W::load_ptrs(s, w.as_ptr()) };
        } else {
            for (i, to) in to[..n].iter_mut().enumerate() {
                *to = W::load(s, &w[i * S::LANES..]);
            }
        }
    }
    for (i, partial) in partial[..n].iter_mut().enumerate() {
        let mut ws = [s.splat(0.0); R];
        for (to, all) in ws.iter_mut().zip(&all) {
            *to = all[i];
        }
        for (partial, x) in partial.iter_mut().zip(x) {
            let x = s.load(&x[i * S::LANES..]);
            for (partial, w) in partial.iter_mut().zip(ws) {
                *partial = s.mul_add(w, x, *partial);
            }
        }
    }
}

/// Adds to `sums [H, C registers]` the first `weights` many rows of `rows`, weighted: `sums_h += Σ_j weights_hj rows_j`, in the order of
/// the rows, which begin `stride` elements apart and of which `C` registers of columns are taken.
///
/// The sums stay in registers from the first row to the last, and an element is loaded and widened once for all `H`.
#[inline(always)]
pub(crate) fn add_weighted_rows<S: Simd, E: Element, const H: usize, const C: usize>(
    s: S,
    sums: &mut [[S::V; C]; H],
    weights: [&[f32]; H],
    rows: &[E],
    stride: usize,
) {
    let count = weights[0].len();
    if count == 0 {
        return;
    }
    assert!(weights.iter().all(|weights| weights.len() == count));
    assert!((count - 1) * stride + C * S::LANES <= rows.len());
    let mut j = 0;
    while j + 4 <= count {
        let mut fours = [[s.splat(0.0); 4]; H];
        for (four, weights) in fours.iter_mut().zip(weights) {
            // SAFETY: each has `count` weights, as just checked.
            *four = unsafe { s.splat_ptr_4(weights.as_ptr().add(j)) };
        }
        for i in 0..4 {
            // SAFETY: row j + i ends where the last one does or before, which is in `rows`, as just checked.
            let values: [S::V; C] = unsafe { E::load_ptrs(s, rows.as_ptr().add((j + i) * stride)) };
            for (sums, four) in sums.iter_mut().zip(&fours) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = s.mul_add(four[i], value, *sum);
                }
            }
        }
        j += 4;
    }
    while j < count {
        // SAFETY: as above.
        let values: [S::V; C] = unsafe { E::load_ptrs(s, rows.as_ptr().add(j * stride)) };
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = s.splat(weights[j]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = s.mul_add(weight, value, *sum);
            }
        }
        j += 1;
    }
}

/// Adds to `sums [P, C registers]` the products, column by column, of `count` rows with as many of each of `others`:
/// `sums_p += Σ_j rows_j others_pj`, in the order of the rows, which begin `stride` elements apart everywhere and of which `C` registers
/// of columns are taken.
#[inline(always)]
pub(crate) fn add_products_of_rows<S: Simd, const P: usize, const C: usize>(
    s: S,
    sums: &mut [[S::V; C]; P],
    rows: &[f32],
    others: [&[f32]; P],
    count: usize,
    stride: usize,
) {
    if count == 0 {
        return;
    }
    let last = (count - 1) * stride + C * S::LANES;
    assert!(last <= rows.len() && others.iter().all(|others| last <= others.len()));
    for j in 0..count {
        // SAFETY: row j ends where the last one does or before, which is in the slice, as just checked.
        let row: [S::V; C] = unsafe { f32::load_ptrs(s, rows.as_ptr().add(j * stride)) };
        for (sums, others) in sums.iter_mut().zip(others) {
            // SAFETY: as above.
            let other: [S::V; C] = unsafe { f32::load_ptrs(s, others.as_ptr().add(j * stride)) };
            for ((sum, other), row) in sums.iter_mut().zip(other).zip(row) {
                *sum = s.mul_add(other, row, *sum);
            }
        }
    }
}
