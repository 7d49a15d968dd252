//! Several rows of one length, read side by side with one check.

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

    /// The columns from `at` on, at most `LANES`, of each row, filled up with 0.
    #[inline(always)]
    pub(crate) fn load_tail<S: Simd>(&self, s: S, at: usize) -> [S::V; R] {
        let mut out = [s.splat(0.0); R];
        for (out, row) in out.iter_mut().zip(&self.rows) {
            *out = E::load_tail(s, &row[at..]);
        }
        out
    }
}
