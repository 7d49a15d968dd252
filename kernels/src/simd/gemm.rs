//! The one door to the `gemm` crate: large products of 32-bit floats on the calling thread.

use crate::pool::TileMut;

/// `y (+)= x w^T` on a tile `y [tokens, rows]` with `w [rows, depth]` and `x [tokens, depth]`; adds to `y` if `accumulate`.
///
/// Rows of `w` begin `w_stride` elements apart, those of `x` `x_stride`. The crate picks the best instructions of the CPU
/// itself.
///
/// # Panics
/// When `w` or `x` is too short.
pub(crate) fn multiply_transposed(
    y: &mut TileMut<'_, f32>,
    accumulate: bool,
    w: &[f32],
    w_stride: usize,
    x: &[f32],
    x_stride: usize,
    depth: usize,
) {
    let (tokens, rows) = (y.rows(), y.cols());
    assert!(rows > 0 && tokens > 0 && depth > 0);
    assert!(w.len() >= (rows - 1) * w_stride + depth, "w is too short");
    assert!(x.len() >= (tokens - 1) * x_stride + depth, "x is too short");
    let y_stride = y.stride() as isize;
    // SAFETY: seen column-major, dst is rows x tokens with strides 1 and y_stride, the tile itself; lhs is rows x depth with
    // strides w_stride and 1, and rhs depth x tokens with strides 1 and x_stride, both long enough as just checked; dst is
    // borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            rows,
            tokens,
            depth,
            y.as_mut_ptr(),
            y_stride,
            1,
            accumulate,
            w.as_ptr(),
            1,
            w_stride as isize,
            x.as_ptr(),
            x_stride as isize,
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
