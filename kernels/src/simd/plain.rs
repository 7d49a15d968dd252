//! One lane: plain Rust, which runs anywhere. What is defined as a sequence of roundings, such as the exponential, has its
//! scalar form from here, so that it is the same sequence.

use half::{bf16, f16};

use super::{Element, Simd};

/// A register of one float.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Simd for Plain {
    const LANES: usize = 1;
    const REGISTERS: usize = 16;
    type V = f32;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const bf16) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *from }.widen()
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, from: *const f16) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *from }.widen()
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, from: *const i8) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *from }.widen()
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: f32, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { *to = v }
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, v: f32, to: *mut f16) {
        // SAFETY: as the caller promises.
        unsafe { *to = f16::from_f32(v) }
    }

    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }

    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }

    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: f32, n: f32) -> f32 {
        // In two steps, so that each power is a normal number and the last product rounds. A NaN becomes 0 and is in `a`.
        let n = n as i32;
        let first = n >> 1;
        let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
        a * power(first) * power(n - first)
    }

    #[inline(always)]
    fn sum(self, a: f32) -> f32 {
        a
    }

    #[inline(always)]
    fn sums(self, a: [f32; 4]) -> [f32; 4] {
        a
    }

    #[inline(always)]
    fn max_lane(self, a: f32) -> f32 {
        a
    }
}
