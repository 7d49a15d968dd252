//! Stored numbers as 32-bit floats, and back to half floats.
//!
//! 67 instructions for 32 half floats on ARM, 48 back.

use half::f16;

use crate::quant::dequantize_row;
use crate::simd::{Element, Kernel, Simd, dispatch};
use crate::{Isa, Matrix, MatrixData};

/// `out = w[row]`, widened (exactly) to 32-bit floats; `out` has `w.cols` elements.
///
/// # Panics
/// When there is no such row, `out` has another length, or `w` is quantised column by column.
pub fn row(isa: Isa, w: Matrix<'_>, row: usize, out: &mut [f32]) {
    assert_eq!(
        out.len(),
        w.cols,
        "one row of a matrix with {} columns",
        w.cols
    );
    if let MatrixData::Quantized(w) = w.data {
        return dequantize_row(w, row, out);
    }
    let w = w.rows(row..row + 1);
    match w.data {
        MatrixData::F32(data) => out.copy_from_slice(&data[..w.cols]),
        MatrixData::Bf16(data) => dispatch(
            isa,
            Widen {
                from: &data[..w.cols],
                to: out,
            },
        ),
        MatrixData::F16(data) => dispatch(
            isa,
            Widen {
                from: &data[..w.cols],
                to: out,
            },
        ),
        MatrixData::Quantized(_) | MatrixData::QuantizedColumns(_) => {
            unreachable!("no part of such a matrix's rows is a matrix")
        }
    }
}

/// `to = from`, rounded to half floats: to nearest, ties to even; beyond 65504 (rounded) to infinity.
///
/// # Panics
/// When the lengths differ.
pub fn to_f16(isa: Isa, from: &[f32], to: &mut [f16]) {
    assert_eq!(from.len(), to.len(), "as many half floats as floats");
    dispatch(isa, ToF16 { from, to });
}

/// `to = from` for slices of one length.
pub(crate) struct Widen<'a, E> {
    pub(crate) from: &'a [E],
    pub(crate) to: &'a mut [f32],
}

impl<E: Element> Kernel for Widen<'_, E> {
    type Output = ();

    fn scalar(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = from.widen();
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let mut from = self.from.chunks_exact(S::LANES);
        let mut to = self.to.chunks_exact_mut(S::LANES);
        for (from, to) in (&mut from).zip(&mut to) {
            s.store(E::load(s, from), to);
        }
        s.store_tail(E::load_tail(s, from.remainder()), to.into_remainder());
    }
}

struct ToF16<'a> {
    from: &'a [f32],
    to: &'a mut [f16],
}

impl Kernel for ToF16<'_> {
    type Output = ();

    fn scalar(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = f16::from_f32(*from);
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let mut from = self.from.chunks_exact(S::LANES);
        let mut to = self.to.chunks_exact_mut(S::LANES);
        for (from, to) in (&mut from).zip(&mut to) {
            s.store_f16(s.load(from), to);
        }
        s.store_f16_tail(s.load_tail(from.remainder(), 0.0), to.into_remainder());
    }
}
