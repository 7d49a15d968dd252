//! The way into the block formats: the scale of each group is searched for least squared error.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::block_format::{BlockFormat, GROUP};
use super::format::{Format, with_block_format};
use crate::pool::Pool;

/// A weight that is infinite or not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the weight in row {row}, column {col} is not finite, so it cannot be quantised")]
pub struct NotFinite {
    /// Its row.
    pub row: usize,
    /// Its column.
    pub col: usize,
}

/// Quantises `source [rows, cols]` into `out`, rows shared out over the pool.
///
/// A long matrix may be quantised in pieces of a multiple of 16 rows: their outputs, one after the other, are the whole's.
///
/// # Errors
/// [`NotFinite`] names the first weight that is not finite; `out` is then unspecified.
///
/// # Panics
/// When `source` is not `rows × cols` long or `out` not [`Format::matrix_bytes`], or where the format has no scales for groups: such
/// weights are trained, and [`store_rows`](super::store_rows) takes them as they are.
pub fn quantize(
    pool: &Pool,
    format: Format,
    source: &[f32],
    rows: usize,
    cols: usize,
    out: &mut [u8],
) -> Result<(), NotFinite> {
    assert_eq!(
        source.len(),
        rows * cols,
        "source of a {rows} x {cols} matrix"
    );
    assert_eq!(
        Some(out.len()),
        format.matrix_bytes(rows, cols),
        "bytes of a {rows} x {cols} matrix in {format:?}"
    );
    if source.is_empty() {
        return Ok(());
    }
    let first_bad = AtomicUsize::new(usize::MAX);
    let unit_rows = format.unit_rows();
    let unit_bytes = out.len() / rows.div_ceil(unit_rows);
    pool.for_each_chunk_mut(out, unit_bytes, &|unit, out: &mut [u8]| {
        let first = unit * unit_rows * cols;
        let source = &source[first..(first + unit_rows * cols).min(source.len())];
        if let Some(at) = source.iter().position(|w| !w.is_finite()) {
            first_bad.fetch_min(first + at, Ordering::Relaxed);
            return;
        }
        with_block_format!(format, F => quantize_unit::<F>(format, source, cols, out));
    });
    match first_bad.into_inner() {
        usize::MAX => Ok(()),
        at => Err(NotFinite {
            row: at / cols,
            col: at % cols,
        }),
    }
}

/// Quantises the rows of one tile, or one row; missing rows of a tile and missing columns of a group become zeros.
fn quantize_unit<F: BlockFormat>(format: Format, source: &[f32], cols: usize, out: &mut [u8]) {
    out.fill(0);
    let groups = cols.div_ceil(GROUP);
    for row in 0..format.unit_rows() {
        let weights = source.get(row * cols..(row + 1) * cols).unwrap_or_default();
        for group in 0..groups {
            let mut x = [0.0; GROUP];
            if let Some(weights) = weights.get(group * GROUP..) {
                let n = weights.len().min(GROUP);
                x[..n].copy_from_slice(&weights[..n]);
            }
            let (integers, scale) = F::quantize(&x);
            format.store_group(out, row, group, &integers);
            format.store_scale(out, groups, row, group, &scale.to_le_bytes());
        }
    }
}
