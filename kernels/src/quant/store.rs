//! The way into the block formats for weights that are integers already: trained ones, and those of other programs' files.

use half::f16;

use super::block_format::GROUP;
use super::format::{Format, Scaled};

/// Lays trained integers out as they are, each within [`Format::range`], with scales of their own.
///
/// | | shape |
/// |---|---|
/// | `integers` | `[rows, cols]` |
/// | `scales` | `[rows, Format::row_scales]`: one for each row, or for each layer's part of it |
/// | `out` | [`Format::matrix_bytes`] |
///
/// A long matrix may be laid out in pieces of a multiple of 16 rows: their outputs, one after the other, are the whole's.
///
/// # Panics
/// When a length does not fit, an integer does not fit the format, or the format has scales for groups.
pub fn store_rows(
    format: Format,
    integers: &[i8],
    scales: &[f32],
    rows: usize,
    cols: usize,
    out: &mut [u8],
) {
    assert!(
        format.scaled() != Scaled::Group,
        "{format:?} has scales for groups"
    );
    store(format, integers, scales, f32::to_le_bytes, rows, cols, out);
}

/// Lays integers out as they are, each within [`Format::range`], with one scale for each group.
///
/// | | shape |
/// |---|---|
/// | `integers` | `[rows, cols]` |
/// | `scales` | `[rows, cols / GROUP]`, rounded up |
/// | `out` | [`Format::matrix_bytes`] |
///
/// Pieces as in [`store_rows`].
///
/// # Panics
/// When a length does not fit, an integer does not fit the format, or the format has no scales for groups.
pub fn store_blocks(
    format: Format,
    integers: &[i8],
    scales: &[f16],
    rows: usize,
    cols: usize,
    out: &mut [u8],
) {
    assert!(
        format.scaled() == Scaled::Group,
        "{format:?} has no scales for groups"
    );
    store(format, integers, scales, f16::to_le_bytes, rows, cols, out);
}

fn store<S: Copy, const N: usize>(
    format: Format,
    integers: &[i8],
    scales: &[S],
    bytes: fn(S) -> [u8; N],
    rows: usize,
    cols: usize,
    out: &mut [u8],
) {
    let row_scales = format.row_scales(cols);
    assert_eq!(
        (integers.len(), scales.len()),
        (rows * cols, rows * row_scales),
        "integers and scales of a {rows} x {cols} matrix in {format:?}"
    );
    assert_eq!(
        Some(out.len()),
        format.matrix_bytes(rows, cols),
        "bytes of a {rows} x {cols} matrix in {format:?}"
    );
    let (least, most) = format.range();
    assert!(
        integers.iter().all(|q| (least..=most).contains(q)),
        "an integer that does not fit {format:?}"
    );
    let groups = cols.div_ceil(GROUP);
    let unit_rows = format.unit_rows();
    let Some(unit_bytes) = format.unit_bytes(cols).filter(|&bytes| bytes > 0) else {
        return;
    };
    for (unit, out) in out.chunks_mut(unit_bytes).enumerate() {
        out.fill(0);
        // What is stored with an offset is no 0 where it stands for one: rows that a tile lacks are written, too.
        for row in 0..unit_rows {
            let at = unit * unit_rows + row;
            let (integers, scales) = if at < rows {
                (
                    &integers[at * cols..][..cols],
                    &scales[at * row_scales..][..row_scales],
                )
            } else {
                Default::default()
            };
            for group in 0..groups {
                let mut q = [0; GROUP];
                if let Some(rest) = integers.get(group * GROUP..) {
                    let n = rest.len().min(GROUP);
                    q[..n].copy_from_slice(&rest[..n]);
                }
                format.store_group(out, row, group, &q);
            }
            for (i, &scale) in scales.iter().enumerate() {
                format.store_scale(out, groups, row, i, &bytes(scale));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::{Quantized, quantize};
    use super::*;
    use crate::{Isa, Pool};

    /// What was quantised, taken apart and laid out again: whole tiles and groups, and parts of them.
    #[test]
    fn integers_and_scales_give_the_bytes_that_they_came_from() {
        let pool = Pool::new(Isa::scalar(), 1);
        for format in [
            Format::Q4Tiled,
            Format::Q8Tiled,
            Format::Q4Rows,
            Format::Q8Rows,
        ] {
            for (rows, cols) in [(32, 96), (21, 40), (1, 32)] {
                let weights: Vec<f32> = (0..rows * cols).map(|k| (k as f32 * 0.7).sin()).collect();
                let mut bytes = vec![0; format.matrix_bytes(rows, cols).unwrap()];
                quantize(&pool, format, &weights, rows, cols, &mut bytes).unwrap();
                let matrix = Quantized::new(format, &bytes, rows, cols).unwrap();
                let (mut integers, mut scales) = (Vec::new(), Vec::new());
                for row in 0..rows {
                    for group in 0..matrix.groups() {
                        let mut q = [0; GROUP];
                        scales.push(f16::from_f32(matrix.group(row, group, &mut q)));
                        integers.extend(&q[..GROUP.min(cols - group * GROUP)]);
                    }
                }
                let mut again = vec![1; bytes.len()];
                store_blocks(format, &integers, &scales, rows, cols, &mut again);
                assert_eq!(again, bytes, "{format:?} {rows} x {cols}");
            }
        }
    }
}
