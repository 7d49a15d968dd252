//! The way into the block formats: the scale of each group is searched for least squared error.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::block_format::with_block_format;
use super::{BlockFormat, Format, GROUP};
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
/// When `source` is not `rows × cols` long or `out` not [`Format::matrix_bytes`].
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
            format.store_group::<F>(out, groups, row, group, &integers, scale);
        }
    }
}

/// The weight of largest magnitude, with its sign.
pub(super) fn peak(x: &[f32; GROUP]) -> f32 {
    x.iter().fold(
        0.0,
        |peak: f32, &w| if w.abs() > peak.abs() { w } else { peak },
    )
}

/// Rounds to the nearest integer, for magnitudes below 2²²; in this form it becomes SIMD on any machine.
fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: the sum's last bit is worth one
    (v + MAGIC) - MAGIC
}

/// Fixes the integers `q = round(inverse x)` and solves for the scale: `s = Σ x q / Σ q²`.
/// Returns by how much that lowers the squared error, `(Σ x q)² / Σ q²`, and `s`.
pub(super) fn least_squares(x: &[f32; GROUP], inverse: f32, low: f32, high: f32) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0f32; 8], [0.0f32; 8]);
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let q = round(x[lane] * inverse).clamp(low, high);
            xq[lane] += x[lane] * q;
            qq[lane] += q * q;
        }
    }
    let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
    if qq == 0.0 {
        (f32::NEG_INFINITY, 0.0)
    } else {
        (xq * (xq / qq), xq / qq)
    }
}

/// Rounds the scale to f16 and each weight to its nearest multiple of it.
pub(super) fn round_to(x: &[f32; GROUP], scale: f32, low: f32, high: f32) -> ([i8; GROUP], f16) {
    let scale = f16::from_f32(scale.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()));
    if scale == f16::ZERO {
        return ([0; GROUP], f16::ZERO);
    }
    let inverse = 1.0 / scale.to_f32();
    (
        x.map(|w| round((w * inverse).clamp(low, high)) as i8),
        scale,
    )
}
