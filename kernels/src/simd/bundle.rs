//! Several rows of one length, read side by side with one check.

use super::partial_sums::{WAYS, last_step};
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

    /// `LANES` columns from column `at` on, of each row.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S, at: usize) -> [S::V; R] {
        assert!(at <= self.len && self.len - at >= S::LANES);
        let mut out = [s.splat(0.0); R];
        for (out, row) in out.iter_mut().zip(&self.rows) {
            // SAFETY: each row has `len` elements, of which LANES from `at` on, as just checked.
            *out = unsafe { E::load_ptr(s, row.as_ptr().add(at)) };
        }
        out
    }

    /// `WAYS` columns from column `at` on, of each row.
    #[inline(always)]
    pub(crate) fn columns(&self, at: usize) -> [&'a [E; WAYS]; R] {
        assert!(at <= self.len && self.len - at >= WAYS);
        self.rows.map(|row| {
            // SAFETY: each row has `len` elements, of which WAYS from `at` on, as just checked.
            unsafe { &*row.as_ptr().add(at).cast() }
        })
    }

    /// The columns from `at` on, fewer than `WAYS`, of each row, widened and continued with 0.
    #[inline(always)]
    pub(crate) fn last_columns(&self, at: usize) -> [[f32; WAYS]; R] {
        self.rows.map(|row| last_step(&row[at..], 0.0))
    }
}
