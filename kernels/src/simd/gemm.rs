//! The one door to the `gemm` crate: large products of 32-bit floats on the calling thread.

use crate::pool::TileMut;
use crate::rows::Rows;

/// `y += x w^T` on a tile `y [tokens, rows]` with `w [rows, depth]` and `x [tokens, depth]`.
///
/// The crate picks the best instructions of the CPU itself.
///
/// # Panics
/// When `w` or `x` is too short.
pub(crate) fn multiply_transposed(y: &mut TileMut<'_, f32>, w: Rows<'_, f32>, x: Rows<'_, f32>) {
    let (tokens, rows, depth) = (y.rows(), y.cols(), w.depth);
    assert!(rows > 0 && tokens > 0 && depth > 0);
    for (operand, count) in [(w, rows), (x, tokens)] {
        assert!(
            operand.depth == depth && operand.data.len() >= (count - 1) * operand.stride + depth,
            "{count} rows of {depth}, {} apart, in {}",
            operand.stride,
            operand.data.len()
        );
    }
    let y_stride = y.stride() as isize;
    // SAFETY: seen column-major, dst is rows x tokens with strides 1 and y_stride, the tile itself; lhs is rows x depth with
    // strides w.stride and 1, and rhs depth x tokens with strides 1 and x.stride, both long enough as just checked; dst is
    // borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            rows,
            tokens,
            depth,
            y.as_mut_ptr(),
            y_stride,
            1,
            true,
            w.data.as_ptr(),
            1,
            w.stride as isize,
            x.data.as_ptr(),
            x.stride as isize,
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
