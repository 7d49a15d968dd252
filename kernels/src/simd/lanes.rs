//! Products of single numbers with whole registers, whose lanes are the columns of a matrix: nothing is added up across lanes.

use super::Simd;

/// Adds to `sums [R, C registers]` the products of the first `R` rows of `rows`, `stride` apart and `depth` long, with a matrix
/// `lanes` \[depth, C registers\]: `sums_r += Σ_j rows_rj lanes_j`, in the order of `j`.
#[inline(always)]
pub(crate) fn add_products_with_lanes<S: Simd, const R: usize, const C: usize>(
    s: S,
    sums: &mut [[S::V; C]; R],
    rows: &[f32],
    stride: usize,
    lanes: &[f32],
    depth: usize,
) {
    assert!((R - 1) * stride + depth <= rows.len() && depth * C * S::LANES <= lanes.len());
    let mut j = 0;
    while j + 4 <= depth {
        let mut fours = [[s.splat(0.0); 4]; R];
        for (r, four) in fours.iter_mut().enumerate() {
            // SAFETY: row r has four more elements, as just checked.
            *four = unsafe { s.splat_ptr_4(rows.as_ptr().add(r * stride + j)) };
        }
        for i in 0..4 {
            // SAFETY: `lanes` has `depth` rows, as just checked.
            let lanes = unsafe { load_row::<S, C>(s, lanes, j + i) };
            for (sums, four) in sums.iter_mut().zip(&fours) {
                for (sum, lane) in sums.iter_mut().zip(lanes) {
                    *sum = s.mul_add(four[i], lane, *sum);
                }
            }
        }
        j += 4;
    }
    while j < depth {
        // SAFETY: `lanes` has `depth` rows, as checked above.
        let lanes = unsafe { load_row::<S, C>(s, lanes, j) };
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = s.splat(rows[r * stride + j]);
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                *sum = s.mul_add(x, lane, *sum);
            }
        }
        j += 1;
    }
}

/// The same for the first `R` columns of `rows` instead, which are `depth` rows: `sums_r += Σ_j rows_jr lanes_j`.
#[inline(always)]
pub(crate) fn add_column_products_with_lanes<S: Simd, const R: usize, const C: usize>(
    s: S,
    sums: &mut [[S::V; C]; R],
    rows: &[f32],
    stride: usize,
    lanes: &[f32],
    depth: usize,
) {
    if depth == 0 {
        return;
    }
    assert!((depth - 1) * stride + R <= rows.len() && depth * C * S::LANES <= lanes.len());
    for j in 0..depth {
        // SAFETY: `lanes` has `depth` rows, as just checked.
        let lanes = unsafe { load_row::<S, C>(s, lanes, j) };
        let mut columns = [s.splat(0.0); R];
        for (fours, at) in columns.chunks_mut(4).zip((0..R).step_by(4)) {
            // SAFETY: row j has `R` columns, as just checked.
            unsafe {
                let from = rows.as_ptr().add(j * stride + at);
                if let Some(four) = fours.as_mut_array() {
                    *four = s.splat_ptr_4(from);
                } else {
                    for (i, to) in fours.iter_mut().enumerate() {
                        *to = s.splat(*from.add(i));
                    }
                }
            }
        }
        for (sums, x) in sums.iter_mut().zip(columns) {
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                *sum = s.mul_add(x, lane, *sum);
            }
        }
    }
}

/// Row `row` of a matrix of `C` registers a row.
///
/// # Safety
/// There must be such a row.
#[inline(always)]
unsafe fn load_row<S: Simd, const C: usize>(s: S, lanes: &[f32], row: usize) -> [S::V; C] {
    let mut out = [s.splat(0.0); C];
    for (c, out) in out.iter_mut().enumerate() {
        // SAFETY: as the caller promises.
        *out = unsafe { s.load_ptr(lanes.as_ptr().add((row * C + c) * S::LANES)) };
    }
    out
}
