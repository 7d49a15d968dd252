//! Four lanes: Advanced SIMD of ARMv8.0.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// Proof that the code runs where NEON is enabled.
#[derive(Clone, Copy)]
pub(crate) struct Neon(pub(super) ());

#[target_feature(enable = "neon")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.simd(Neon(()))
}

macro_rules! neon {
    ($code:expr) => {{
        // SAFETY: a `Neon` exists only inside functions that enable it, so the CPU has these instructions; a pointer that is read or written is
        // valid for all lanes by the contract of the method.
        unsafe { $code }
    }};
}

impl Simd for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type V = float32x4_t;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        neon!(vdupq_n_f32(x))
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> float32x4_t {
        neon!(vld1q_f32(from))
    }

    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const bf16) -> float32x4_t {
        neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(
            from.cast()
        ))))
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, from: *const f16) -> float32x4_t {
        // The conversions belong to ARMv8.0, but their intrinsics name a type that is not stable.
        neon!({
            let halves = vld1_u16(from.cast());
            let wide: float32x4_t;
            asm!(
                "fcvtl {wide:v}.4s, {halves:v}.4h",
                wide = lateout(vreg) wide,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
            wide
        })
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, from: *const i8) -> float32x4_t {
        // Of the intrinsics the compiler makes twice as many instructions, because half of the first one's result is not used.
        neon!({
            let bytes = vld1_dup_u32(from.cast());
            let wide: float32x4_t;
            asm!(
                "sxtl {wide:v}.8h, {bytes:v}.8b",
                "sxtl {wide:v}.4s, {wide:v}.4h",
                "scvtf {wide:v}.4s, {wide:v}.4s",
                wide = lateout(vreg) wide,
                bytes = in(vreg) bytes,
                options(pure, nomem, nostack, preserves_flags),
            );
            wide
        })
    }

    #[inline(always)]
    unsafe fn load_i8_ptr_4(self, from: *const i8) -> [float32x4_t; 4] {
        neon!({
            let bytes = vld1q_s8(from);
            let (first, second) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(first))),
                vcvtq_f32_s32(vmovl_high_s16(first)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(second))),
                vcvtq_f32_s32(vmovl_high_s16(second)),
            ]
        })
    }

    #[inline(always)]
    unsafe fn splat_ptr_4(self, from: *const f32) -> [float32x4_t; 4] {
        // One load: products take a lane as it is.
        neon!({
            let four = vld1q_f32(from);
            [
                vdupq_laneq_f32::<0>(four),
                vdupq_laneq_f32::<1>(four),
                vdupq_laneq_f32::<2>(four),
                vdupq_laneq_f32::<3>(four),
            ]
        })
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: float32x4_t, to: *mut f32) {
        neon!(vst1q_f32(to, v))
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, v: float32x4_t, to: *mut f16) {
        neon!({
            let halves: uint16x4_t;
            asm!(
                "fcvtn {halves:v}.4h, {wide:v}.4s",
                halves = lateout(vreg) halves,
                wide = in(vreg) v,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1_u16(to.cast(), halves);
        })
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        neon!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmaxq_f32(a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vminq_f32(a, b))
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        neon!(vrndnq_f32(a))
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        // In two steps, so that each power is a normal number and the last product rounds.
        neon!({
            let n = vcvtq_s32_f32(n);
            let first = vshrq_n_s32::<1>(n);
            let second = vsubq_s32(n, first);
            let bias = vdupq_n_s32(127);
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, bias)));
            vmulq_f32(vmulq_f32(a, power(first)), power(second))
        })
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        neon!(vaddvq_f32(a))
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        self.store(
            neon!(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))),
            &mut sums,
        );
        sums
    }

    #[inline(always)]
    fn max_lane(self, a: float32x4_t) -> f32 {
        neon!(vmaxvq_f32(a))
    }
}
