//! A matrix in two planes: 4 bits of each weight, and what they leave of it in 4 bits more. Together they are as near to the
//! source as 8 bits; the first alone finds which rows can matter.

use half::bf16;
use kernels::Pool;
use kernels::quant::{Format, GROUP, NotFinite, Quantized, dequantize_row, quantize};

/// Every row of it is read.
pub(super) const FIRST_PLANE: Format = Format::Q4Tiled;
/// Single rows of it are read.
pub(super) const SECOND_PLANE: Format = Format::Q4Rows;

/// Bytes of a peak in the file.
pub(super) const PEAK_BYTES: u64 = size_of::<bf16>() as u64;

/// Leaves in `x [rows, cols]` what its first plane does not say: whole tiles, or the last rows of a matrix. `bytes` is scratch.
///
/// # Errors
/// A weight is not finite.
pub(super) fn subtract_first_plane(
    pool: &Pool,
    x: &mut [f32],
    cols: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), NotFinite> {
    let rows = x.len() / cols;
    bytes.resize(FIRST_PLANE.matrix_bytes(rows, cols).unwrap_or(0), 0);
    quantize(pool, FIRST_PLANE, x, rows, cols, bytes)?;
    let Some(plane) = Quantized::new(FIRST_PLANE, bytes, rows, cols) else {
        unreachable!("the buffer has the size of the matrix")
    };
    pool.for_each_row_mut(x, cols, &|row, x| {
        let mut first = vec![0.0; cols];
        dequantize_row(plane, row, &mut first);
        for (x, first) in x.iter_mut().zip(first) {
            *x -= first;
        }
    });
    Ok(())
}

/// The second plane of residuals `left [rows, cols]`.
///
/// # Errors
/// A weight is not finite.
pub(super) fn second_plane(
    pool: &Pool,
    left: &[f32],
    cols: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), NotFinite> {
    let rows = left.len() / cols;
    bytes.resize(SECOND_PLANE.matrix_bytes(rows, cols).unwrap_or(0), 0);
    quantize(pool, SECOND_PLANE, left, rows, cols, bytes)
}

/// For each row of `left [rows, cols]` the largest root mean square of a group, rounded up to a number that BF16 holds.
///
/// The second plane's own groups have no larger one but for rounding: their scales are those of least squared error.
pub(super) fn peaks(pool: &Pool, left: &[f32], cols: usize) -> Vec<f32> {
    let mut peaks = vec![0.0; left.len() / cols];
    pool.for_each_row_mut(&mut peaks, 1, &|row, peak| {
        let groups = left[row * cols..(row + 1) * cols].chunks(GROUP);
        let mean_square =
            |group: &[f32]| group.iter().map(|x| x * x).sum::<f32>() / group.len() as f32;
        peak[0] = round_up(groups.map(mean_square).fold(0.0, f32::max).sqrt());
    });
    peaks
}

/// The least BF16 that is not below `x`, which is not negative.
fn round_up(x: f32) -> f32 {
    let nearest = bf16::from_f32(x);
    if nearest.to_f32() < x {
        bf16::from_bits(nearest.to_bits() + 1).to_f32()
    } else {
        nearest.to_f32()
    }
}
