//! The three generations of ARM: widening products, `sdot`, `smmla`: the instructions that the integer products need, as safe
//! methods of their tokens.

use std::arch::aarch64::*;
use std::arch::asm;

use super::IntegerKernel;
use crate::simd::{Neon, Simd};

/// Proof that the code runs where `sdot` is.
#[derive(Clone, Copy)]
pub(crate) struct Dotprod(());

/// Proof that the code runs where `smmla` and `sdot` are.
#[derive(Clone, Copy)]
pub(crate) struct I8mm(());

#[target_feature(enable = "neon")]
pub(super) fn run_neon<K: IntegerKernel>(kernel: K) {
    kernel.neon(Neon(()));
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn run_dotprod<K: IntegerKernel>(kernel: K) {
    kernel.dotprod(Dotprod(()));
}

#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn run_i8mm<K: IntegerKernel>(kernel: K) {
    kernel.i8mm(I8mm(()));
}

/// Widening products. The compiler would turn `smlal2` into `ext` and `smlal` where it sees how an operand was made.
macro_rules! widening_product {
    ($(#[$doc:meta])* $name:ident, $instruction:literal, $lanes:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self, a: int8x16_t, b: int8x16_t) -> int16x8_t {
            let product;
            // SAFETY: the token proves NEON; registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {product:v}.8h, {a:v}.", $lanes, ", {b:v}.", $lanes),
                    product = lateout(vreg) product,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            product
        }
    };
    ($(#[$doc:meta])* $name:ident(sum), $instruction:literal, $lanes:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self, mut sum: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t {
            // SAFETY: the token proves NEON; registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {sum:v}.8h, {a:v}.", $lanes, ", {b:v}.", $lanes),
                    sum = inout(vreg) sum,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sum
        }
    };
}

impl Neon {
    widening_product!(
        /// Products of the first 8 lanes.
        multiply_first, "smull", "8b"
    );
    widening_product!(
        /// Products of the last 8 lanes.
        multiply_last, "smull2", "16b"
    );
    widening_product!(
        /// `sum` plus the products of the first 8 lanes.
        multiply_add_first(sum), "smlal", "8b"
    );
    widening_product!(
        /// `sum` plus the products of the last 8 lanes.
        multiply_add_last(sum), "smlal2", "16b"
    );
    register_instructions! {
        /// Every lane `x`.
        fn splat_i16(x: i16) -> int16x8_t = vdupq_n_s16(x);
        /// Every lane `x`.
        fn splat_i8(x: i8) -> int8x16_t = vdupq_n_s8(x);
        /// Every lane `x`.
        fn splat_i32(x: i32) -> int32x4_t = vdupq_n_s32(x);
        /// `x` and three zeros.
        fn one_lane_i32(x: i32) -> int32x4_t = vsetq_lane_s32::<0>(x, vdupq_n_s32(0));
        /// Every byte's low nibble.
        fn low_nibbles(v: int8x16_t) -> int8x16_t = vandq_s8(v, vdupq_n_s8(15));
        /// Every byte's high nibble.
        fn high_nibbles(v: int8x16_t) -> int8x16_t =
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(v)));
        /// The bits of every byte that `mask` has.
        fn and(v: int8x16_t, mask: i8) -> int8x16_t = vandq_s8(v, vdupq_n_s8(mask));
        /// `a - b`, of bytes.
        fn minus(a: int8x16_t, b: i8) -> int8x16_t = vsubq_s8(a, vdupq_n_s8(b));
        /// Sums of neighbours, of `a` and then of `b`.
        fn add_neighbours_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t = vpaddq_s16(a, b);
        /// Sums of neighbours, of `a` and then of `b`.
        fn add_neighbours_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vpaddq_s32(a, b);
        /// Sums of neighbours, in 32 bit.
        fn widen_neighbours(a: int16x8_t) -> int32x4_t = vpaddlq_s16(a);
        /// `sum` plus sums of neighbours, in 32 bit.
        fn add_widened_neighbours(sum: int32x4_t, a: int16x8_t) -> int32x4_t = vpadalq_s16(sum, a);
        /// `a + b`
        fn add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        /// Integers as floats.
        fn to_f32(a: int32x4_t) -> float32x4_t = vcvtq_f32_s32(a);
        /// `a b`
        fn multiply_by(a: float32x4_t, b: f32) -> float32x4_t = vmulq_n_f32(a, b);
        /// The bits of `|a|`.
        fn magnitude_bits(a: float32x4_t) -> uint32x4_t = vreinterpretq_u32_f32(vabsq_f32(a));
        /// The larger one.
        fn larger_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vmaxq_u32(a, b);
        /// The largest lane.
        fn largest_u32(a: uint32x4_t) -> u32 = vmaxvq_u32(a);
        /// The nearest integers, ties to even.
        fn round_to_i32(a: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(a);
        /// The low bytes of 16 integers.
        fn narrow(a: [int32x4_t; 4]) -> int8x16_t = vuzp1q_s8(
            vreinterpretq_s8_s16(vuzp1q_s16(vreinterpretq_s16_s32(a[0]), vreinterpretq_s16_s32(a[1]))),
            vreinterpretq_s8_s16(vuzp1q_s16(vreinterpretq_s16_s32(a[2]), vreinterpretq_s16_s32(a[3]))),
        );
        /// 16 integers as bytes, each the nearest to it.
        fn narrow_saturated(a: [int32x4_t; 4]) -> int8x16_t = vqmovn_high_s16(
            vqmovn_s16(vqmovn_high_s32(vqmovn_s32(a[0]), a[1])),
            vqmovn_high_s32(vqmovn_s32(a[2]), a[3]),
        );
        /// The larger one, NaN where one of them is.
        fn larger_or_nan(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        /// Whether a lane is NaN.
        fn has_nan(a: float32x4_t) -> bool = vminvq_u32(vceqq_f32(a, a)) == 0;
        /// Even lanes of `a`, then of `b`.
        fn even_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vuzp1q_s32(a, b);
        /// Odd lanes of `a`, then of `b`.
        fn odd_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vuzp2q_s32(a, b);
        /// The sum of all lanes.
        fn sum_i8(a: int8x16_t) -> i32 = i32::from(vaddlvq_s8(a));
        /// Bytes as floats, four by four.
        fn bytes_to_f32(a: int8x16_t) -> [float32x4_t; 4] = {
            let (low, high) = (vmovl_s8(vget_low_s8(a)), vmovl_high_s8(a));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        };
        /// Every lane the half float of these bytes, widened.
        fn splat_f16(bytes: [u8; 2]) -> float32x4_t =
            vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(u16::from_le_bytes(bytes))));
        /// The first two quads of bytes of `a` and `b` in turn.
        fn zip_first_quads(a: int8x16_t, b: int8x16_t) -> int8x16_t =
            vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
        /// The last two quads of bytes of `a` and `b` in turn.
        fn zip_last_quads(a: int8x16_t, b: int8x16_t) -> int8x16_t =
            vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
        /// Even lanes of `a`, then of `b`.
        fn even(a: float32x4_t, b: float32x4_t) -> float32x4_t = vuzp1q_f32(a, b);
        /// Odd lanes of `a`, then of `b`.
        fn odd(a: float32x4_t, b: float32x4_t) -> float32x4_t = vuzp2q_f32(a, b);
        /// The first two lanes of `a` and `b` in turn.
        fn zip_first(a: float32x4_t, b: float32x4_t) -> float32x4_t = vzip1q_f32(a, b);
        /// The last two lanes of `a` and `b` in turn.
        fn zip_last(a: float32x4_t, b: float32x4_t) -> float32x4_t = vzip2q_f32(a, b);
        /// The first two lanes, each twice.
        fn twice_first(a: float32x4_t) -> float32x4_t = vzip1q_f32(a, a);
        /// The last two lanes, each twice.
        fn twice_last(a: float32x4_t) -> float32x4_t = vzip2q_f32(a, a);
    }

    /// The two bits of every byte from bit `SHIFT` on, which is not 0.
    #[inline(always)]
    pub(crate) fn crumbs<const SHIFT: i32>(self, v: int8x16_t) -> int8x16_t {
        // SAFETY: the token proves NEON; registers only.
        unsafe {
            self.and(
                vreinterpretq_s8_u8(vshrq_n_u8::<SHIFT>(vreinterpretq_u8_s8(v))),
                3,
            )
        }
    }

    /// Lane `LANE` in all lanes.
    #[inline(always)]
    pub(crate) fn broadcast_i32<const LANE: i32>(self, v: int32x4_t) -> int32x4_t {
        // SAFETY: the token proves NEON; registers only.
        unsafe { vdupq_laneq_s32::<LANE>(v) }
    }

    /// Quad `LANE` of bytes in all lanes.
    #[inline(always)]
    pub(crate) fn broadcast_quad<const LANE: i32>(self, v: int8x16_t) -> int8x16_t {
        // SAFETY: the token proves NEON; registers only.
        unsafe { vreinterpretq_s8_s32(vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(v))) }
    }

    /// The eight quads of 32 bytes, each in all lanes of a register.
    #[inline(always)]
    pub(crate) fn quads(self, x: &[i8; 32]) -> [int8x16_t; 8] {
        let x = [self.load_i8(x, 0), self.load_i8(x, 16)];
        [
            self.broadcast_quad::<0>(x[0]),
            self.broadcast_quad::<1>(x[0]),
            self.broadcast_quad::<2>(x[0]),
            self.broadcast_quad::<3>(x[0]),
            self.broadcast_quad::<0>(x[1]),
            self.broadcast_quad::<1>(x[1]),
            self.broadcast_quad::<2>(x[1]),
            self.broadcast_quad::<3>(x[1]),
        ]
    }

    /// `a` times lane `LANE` of `b`.
    #[inline(always)]
    pub(crate) fn multiply_lane<const LANE: i32>(
        self,
        a: float32x4_t,
        b: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: the token proves NEON; registers only.
        unsafe { vmulq_laneq_f32::<LANE>(a, b) }
    }

    /// The 16 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn load_bytes<const N: usize>(self, from: &[u8; N], at: usize) -> int8x16_t {
        assert!(at + 16 <= N);
        // SAFETY: 16 bytes from `at` on are in the array.
        unsafe { vld1q_s8(from.as_ptr().add(at).cast()) }
    }

    /// The 16 integers from `at` on.
    #[inline(always)]
    pub(crate) fn load_i8<const N: usize>(self, from: &[i8; N], at: usize) -> int8x16_t {
        assert!(at + 16 <= N);
        // SAFETY: 16 integers from `at` on are in the array.
        unsafe { vld1q_s8(from.as_ptr().add(at)) }
    }

    /// `y[at + i] = q[i] scale + y[at + i]` for 16 bytes, each rounded once.
    #[inline(always)]
    pub(crate) fn multiply_add_bytes<const N: usize>(
        self,
        q: int8x16_t,
        scale: float32x4_t,
        y: &mut [f32; N],
        at: usize,
    ) {
        for (i, q) in self.bytes_to_f32(q).into_iter().enumerate() {
            let at = at + 4 * i;
            self.store_f32(self.mul_add(q, scale, self.load_f32(y, at)), y, at);
        }
    }

    /// Writes 16 integers from `at` on.
    #[inline(always)]
    pub(crate) fn store_i8<const N: usize>(self, v: int8x16_t, to: &mut [i8; N], at: usize) {
        assert!(at + 16 <= N);
        // SAFETY: 16 integers from `at` on are in the array.
        unsafe { vst1q_s8(to.as_mut_ptr().add(at), v) }
    }

    /// Writes 16 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn store_bytes<const N: usize>(self, v: int8x16_t, to: &mut [u8; N], at: usize) {
        assert!(at + 16 <= N);
        // SAFETY: 16 bytes from `at` on are in the array.
        unsafe { vst1q_s8(to.as_mut_ptr().add(at).cast(), v) }
    }

    /// The 4 floats from `at` on.
    #[inline(always)]
    pub(crate) fn load_f32<const N: usize>(self, from: &[f32; N], at: usize) -> float32x4_t {
        assert!(at + 4 <= N);
        // SAFETY: 4 floats from `at` on are in the array.
        unsafe { vld1q_f32(from.as_ptr().add(at)) }
    }

    /// Writes 4 floats from `at` on.
    #[inline(always)]
    pub(crate) fn store_f32<const N: usize>(self, v: float32x4_t, to: &mut [f32; N], at: usize) {
        assert!(at + 4 <= N);
        // SAFETY: 4 floats from `at` on are in the array.
        unsafe { vst1q_f32(to.as_mut_ptr().add(at), v) }
    }

    /// The 4 integers from `at` on.
    #[inline(always)]
    pub(crate) fn load_i32<const N: usize>(self, from: &[i32; N], at: usize) -> int32x4_t {
        assert!(at + 4 <= N);
        // SAFETY: 4 integers from `at` on are in the array.
        unsafe { vld1q_s32(from.as_ptr().add(at)) }
    }

    /// Writes 4 integers from `at` on.
    #[inline(always)]
    pub(crate) fn store_i32<const N: usize>(self, v: int32x4_t, to: &mut [i32; N], at: usize) {
        assert!(at + 4 <= N);
        // SAFETY: 4 integers from `at` on are in the array.
        unsafe { vst1q_s32(to.as_mut_ptr().add(at), v) }
    }

    /// The 8 half floats whose 16 bytes begin at `at`, widened.
    #[inline(always)]
    pub(crate) fn load_f16<const N: usize>(self, from: &[u8; N], at: usize) -> [float32x4_t; 2] {
        let bytes = self.load_bytes(from, at);
        // SAFETY: the token proves NEON; registers only.
        unsafe {
            let halves = vreinterpretq_f16_s8(bytes);
            [
                vcvt_f32_f16(vget_low_f16(halves)),
                vcvt_high_f32_f16(halves),
            ]
        }
    }

    /// 4 half floats, widened.
    #[inline(always)]
    pub(crate) fn load4_f16(self, from: &[u8; 8]) -> float32x4_t {
        // SAFETY: the token proves NEON; registers only.
        unsafe { vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(u64::from_le_bytes(*from)))) }
    }

    /// Four lanes.
    #[inline(always)]
    pub(crate) fn four_i32(self, from: [i32; 4]) -> int32x4_t {
        // SAFETY: the array has 4 integers.
        unsafe { vld1q_s32(from.as_ptr()) }
    }
}

impl Dotprod {
    /// What NEON can do, this can.
    #[inline(always)]
    pub(crate) fn neon(self) -> Neon {
        Neon(())
    }

    /// `sum[i] += w[4 i ..][..4] · x[4 LANE ..][..4]`
    #[inline(always)]
    pub(crate) fn sdot_lane<const LANE: i32>(
        self,
        mut sum: int32x4_t,
        w: int8x16_t,
        x: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instruction; it touches registers only.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
                sum = inout(vreg) sum,
                w = in(vreg) w,
                x = in(vreg) x,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    /// `sum[i] += w[4 i ..][..4] · x[4 i ..][..4]`
    #[inline(always)]
    pub(crate) fn sdot(self, mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instruction; it touches registers only.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

impl I8mm {
    /// What NEON can do, this can.
    #[inline(always)]
    pub(crate) fn neon(self) -> Neon {
        Neon(())
    }

    /// What dotprod can do, this can.
    #[inline(always)]
    pub(crate) fn dotprod(self) -> Dotprod {
        Dotprod(())
    }

    /// `sum[2 i + j] += w[8 i ..][..8] · x[8 j ..][..8]`
    #[inline(always)]
    pub(crate) fn smmla(self, mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instruction; it touches registers only.
        unsafe {
            asm!(
                "smmla {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}
