//! A matrix in two planes: 4 bits of each weight, and what they leave of it in 4 bits more. Together they are nearly as near to the
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
/// The second plane's own groups have no larger one but for a per cent of rounding: their scales are those of least squared error.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use kernels::Isa;

    use super::*;

    /// Numbers of variance 1; an odd power gives them heavy tails.
    fn numbers(seed: u64, power: i32) -> impl Iterator<Item = f32> {
        let next = move |state: &u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let uniform = std::iter::successors(next(&seed), next)
            .map(|state| (state >> 40) as f32 / (1 << 23) as f32 - 1.0);
        uniform.map(move |x| x.powi(power) * (2.0 * power as f32 + 1.0).sqrt())
    }

    /// What [`crate::model::decoder::Exact`] relies on: the second plane of a row, times any vector, stays within six times the row's
    /// peak times the vector's length. Also where the vector is one large number, or similar to the row.
    #[test]
    fn no_vector_reaches_further_than_the_peak_says() {
        const COLS: usize = 2048;
        const ROWS: usize = 256;
        let pool = Pool::new(Isa::best(), 2);
        for power in [1, 3, 5] {
            let weights: Vec<f32> = numbers(7, power).take(ROWS * COLS).collect();
            let mut left = weights.clone();
            let mut bytes = Vec::new();
            subtract_first_plane(&pool, &mut left, COLS, &mut bytes).unwrap();
            let peaks = peaks(&pool, &left, COLS);
            second_plane(&pool, &left, COLS, &mut bytes).unwrap();
            let second = Quantized::new(SECOND_PLANE, &bytes, ROWS, COLS).unwrap();
            let mut row = vec![0.0; COLS];
            let mut furthest = 0.0f32;
            for (at, peak) in peaks.iter().enumerate() {
                dequantize_row(second, at, &mut row);
                let own = &weights[at * COLS..(at + 1) * COLS];
                let random: Vec<f32> = numbers(at as u64, 1).take(COLS).collect();
                let heavy: Vec<f32> = numbers(at as u64, 9).take(COLS).collect();
                let mut outlier = random.clone();
                outlier[at] = 1000.0;
                for h in [&random[..], &heavy, &outlier, own] {
                    let product: f32 = row.iter().zip(h).map(|(b, h)| b * h).sum();
                    let length = h.iter().map(|h| h * h).sum::<f32>().sqrt();
                    furthest = furthest.max(product.abs() / (peak * length));
                }
            }
            println!("power {power}: {furthest} peaks");
            assert!(furthest < 5.0, "power {power}: {furthest}");
        }
    }

    #[test]
    fn peaks_are_rounded_up() {
        for x in [0.0, 1e-30, 0.001, 0.1, 1.0, 1.003_906_3, 3.0e38] {
            let up = round_up(x);
            assert!(up >= x && up <= x * 1.008, "{x} {up}");
        }
    }
}
