//! The way out of the block formats.

use super::block_format::GROUP;
use super::view::Quantized;

/// Writes row `row` of `matrix` in f32: `out[k] = q[k] s`.
///
/// # Panics
/// When `row` is not a row of the matrix or `out` is not of its columns' length.
pub fn dequantize_row(matrix: Quantized, row: usize, out: &mut [f32]) {
    assert!(
        row < matrix.rows(),
        "row {row} of a matrix of {} rows",
        matrix.rows()
    );
    assert_eq!(out.len(), matrix.cols(), "output of one row");
    let mut integers = [0; GROUP];
    for (group, out) in out.chunks_mut(GROUP).enumerate() {
        let scale = matrix.group(row, group, &mut integers);
        for (k, (out, q)) in out.iter_mut().zip(integers).enumerate() {
            let own = matrix.scale_of_column(row, group * GROUP + k);
            *out = f32::from(q) * own.unwrap_or(scale);
        }
    }
}
