//! Keys and values in 8 bits: each row of a head with one scale, half of what half floats take.
//!
//! A row lies as `head_dim` integers and behind them its scale, a 32-bit float in the machine's byte order: one run of bytes,
//! which is read from memory as one. Keys and values are normed, so no element stands far out of its row, and one scale for all is
//! as good as several: the error is at most 1/254 of the row's largest element.
//!
//! Quantising takes 61 instructions for 32 numbers on ARM.

use crate::rows::Rows;

/// Bytes of the scale.
const SCALE: usize = 4;

/// Bytes of one row of `head_dim` elements.
pub const fn row_len(head_dim: usize) -> usize {
    head_dim + SCALE
}

/// `to = from / scale`, rounded to nearest, ties to even, with the scale that makes the largest one 127. A row with a NaN has a NaN for
/// its scale; one whose largest is below 10⁻³⁶ or infinite has integers of 0.
///
/// # Panics
/// When `to` does not have [`row_len`] elements for those of `from`.
pub fn quantize(from: &[f32], to: &mut [i8]) {
    assert_eq!(to.len(), row_len(from.len()), "a row and its scale");
    let (integers, scale) = to.split_at_mut(from.len());
    let largest = largest(from);
    round(from, steps(largest), integers);
    for (to, byte) in scale.iter_mut().zip((largest / STEPS).to_ne_bytes()) {
        *to = byte.cast_signed();
    }
}

/// The largest integer.
pub(super) const STEPS: f32 = 127.0;

/// The largest magnitude; NaN where one is.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    // The bits of magnitudes are ordered as they are, and those of NaN above all.
    f32::from_bits(row.iter().map(|x| x.abs().to_bits()).fold(0, u32::max))
}

/// What a row is to be multiplied with, so that its largest magnitude becomes [`STEPS`]; 0 where nothing does that.
#[inline(always)]
pub(super) fn steps(largest: f32) -> f32 {
    let steps = STEPS / largest;
    if steps.is_finite() { steps } else { 0.0 }
}

/// `to = from steps`, which is at most [`STEPS`], rounded to nearest, ties to even; 0 for what is not a number.
#[inline(always)]
pub(super) fn round(from: &[f32], steps: f32, to: &mut [i8]) {
    // Where this is added the low byte is the integer: the same rounding on every machine, without a call.
    const INTEGERS_ONLY: f32 = 12_582_912.0;
    for (to, &from) in to.iter_mut().zip(from) {
        *to = (from * steps + INTEGERS_ONLY).to_bits() as i8;
    }
}

/// The scale of row `row`.
#[inline(always)]
pub(super) fn scale(rows: Rows<'_, i8>, row: usize) -> f32 {
    let mut bytes = [0; SCALE];
    let scale = &rows.data[row * rows.stride + rows.depth..][..SCALE];
    for (to, byte) in bytes.iter_mut().zip(scale) {
        *to = byte.cast_unsigned();
    }
    f32::from_ne_bytes(bytes)
}
