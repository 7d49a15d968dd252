//! AVX2 and AVX-512 VNNI: the instructions that the integer products need, as safe methods of their tokens.

use std::arch::x86_64::*;

use super::IntegerKernel;
use crate::simd::avx512::Avx512;
use crate::simd::{Avx2, Simd};

/// Proof that the code runs where AVX-512 F, BW, VL, DQ and VNNI are, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni(());

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run_avx2<K: IntegerKernel>(kernel: K) {
    kernel.avx2(Avx2(()));
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn run_avx512vnni<K: IntegerKernel>(kernel: K) {
    kernel.avx512vnni(Avx512Vnni(()));
}

impl Avx2 {
    register_instructions! {
        /// Every lane `x`.
        fn splat_i32(x: i32) -> __m256i = _mm256_set1_epi32(x);
        /// Every lane `x`.
        fn splat_i16(x: i16) -> __m256i = _mm256_set1_epi16(x);
        /// Every byte's low nibble.
        fn low_nibbles(v: __m256i) -> __m256i = _mm256_and_si256(v, _mm256_set1_epi8(15));
        /// Every byte's high nibble.
        fn high_nibbles(v: __m256i) -> __m256i = _mm256_and_si256(_mm256_srli_epi16::<4>(v), _mm256_set1_epi8(15));
        /// 16 bytes of nibbles: the 16 low ones, then the 16 high ones.
        fn split_nibbles(v: __m128i) -> __m256i =
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(v), v), _mm256_set1_epi8(15));
        /// Adds products of unsigned and signed bytes in pairs: `a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]`, in 16 bit.
        fn multiply_u8_i8(a: __m256i, b: __m256i) -> __m256i = _mm256_maddubs_epi16(a, b);
        /// Adds products in pairs: `a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]`, in 32 bit.
        fn multiply_i16(a: __m256i, b: __m256i) -> __m256i = _mm256_madd_epi16(a, b);
        /// `a + b` in 16 bit.
        fn add_i16(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
        /// `a + b` in 32 bit.
        fn add_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        /// Sums of neighbours in 32 bit, of `a` and of `b`, in each half.
        fn add_neighbours_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_hadd_epi32(a, b);
        /// `low half + high half` in 32 bit.
        fn add_halves_i32(a: __m256i) -> __m128i =
            _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        /// `a + b` in 32 bit.
        fn add4_i32(a: __m128i, b: __m128i) -> __m128i = _mm_add_epi32(a, b);
        /// `|a|` of bytes.
        fn abs_i8(a: __m256i) -> __m256i = _mm256_abs_epi8(a);
        /// `a` with the signs of `b`, of bytes.
        fn with_sign_i8(a: __m256i, b: __m256i) -> __m256i = _mm256_sign_epi8(a, b);
        /// Integers as floats.
        fn to_f32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        /// Integers as floats.
        fn to4_f32(a: __m128i) -> __m128 = _mm_cvtepi32_ps(a);
        /// `a b`
        fn multiply4(a: __m128, b: __m128) -> __m128 = _mm_mul_ps(a, b);
        /// `a b + c`, rounded once.
        fn multiply_add4(a: __m128, b: __m128, c: __m128) -> __m128 = _mm_fmadd_ps(a, b, c);
        /// `a - b`, of bytes.
        fn minus(a: __m256i, b: i8) -> __m256i = _mm256_sub_epi8(a, _mm256_set1_epi8(b));
        /// The bits of `|a|`.
        fn magnitude_bits(a: __m256) -> __m256i =
            _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(i32::MAX));
        /// The larger one.
        fn larger_u32(a: __m256i, b: __m256i) -> __m256i = _mm256_max_epu32(a, b);
        /// The largest lane.
        fn largest_u32(a: __m256i) -> u32 = {
            let a = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epu32(a, _mm_shuffle_epi32::<0b00_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_max_epu32(a, _mm_shuffle_epi32::<1>(a))) as u32
        };
        /// The nearest integers, ties to even.
        fn round_to_i32(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        /// 32 integers as bytes.
        fn narrow(a: [__m256i; 4]) -> __m256i = {
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a[0], a[1]), _mm256_packs_epi32(a[2], a[3]));
            // Packing works on halves: bring their quads back into order.
            _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
        };
        /// The sum of all lanes.
        fn sum_i8(a: __m256i) -> i32 = {
            let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), a), _mm256_set1_epi16(1));
            let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b00_00_11_10>(sums));
            _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums)))
        };
        /// Bytes as floats, eight by eight.
        fn bytes_to_f32(a: __m256i) -> [__m256; 4] = {
            let (low, high) = (_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(low))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(high))),
            ]
        };
        /// 32 bytes with signs, widened to 16 bit.
        fn widen_bytes(a: __m256i) -> [__m256i; 2] = [
            _mm256_cvtepi8_epi16(_mm256_castsi256_si128(a)),
            _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(a)),
        ];
        /// `seen`, with all bits of lanes in which `a` is NaN.
        fn or_nan(seen: __m256, a: __m256) -> __m256 =
            _mm256_or_ps(seen, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        /// Whether a lane's highest bit is set.
        fn any_sign(a: __m256) -> bool = _mm256_movemask_ps(a) != 0;
        /// Every lane the half float of these bytes, widened.
        fn splat_f16(bytes: [u8; 2]) -> __m256 =
            _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(bytes)));
        /// Four lanes.
        fn four_f32(x: [f32; 4]) -> __m128 = _mm_set_ps(x[3], x[2], x[1], x[0]);
        /// Four lanes.
        fn four_i32(x: [i32; 4]) -> __m128i = _mm_set_epi32(x[3], x[2], x[1], x[0]);
        /// The lanes.
        fn lanes(v: __m128) -> [f32; 4] = std::mem::transmute(v);
    }

    /// The two bits of every byte from bit `SHIFT` on.
    #[inline(always)]
    pub(crate) fn crumbs<const SHIFT: i32>(self, v: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2; registers only.
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(v), _mm256_set1_epi8(3)) }
    }

    /// The 8 integers from `at` on.
    #[inline(always)]
    pub(crate) fn load_i32<const N: usize>(self, from: &[i32; N], at: usize) -> __m256i {
        assert!(at + 8 <= N);
        // SAFETY: 8 integers from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_loadu_si256(from.as_ptr().add(at).cast()) }
    }

    /// Writes 8 integers from `at` on.
    #[inline(always)]
    pub(crate) fn store_i32<const N: usize>(self, v: __m256i, to: &mut [i32; N], at: usize) {
        assert!(at + 8 <= N);
        // SAFETY: 8 integers from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(at).cast(), v) }
    }

    /// The 32 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn load_bytes<const N: usize>(self, from: &[u8; N], at: usize) -> __m256i {
        assert!(at + 32 <= N);
        // SAFETY: 32 bytes from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_loadu_si256(from.as_ptr().add(at).cast()) }
    }

    /// 32 integers.
    #[inline(always)]
    pub(crate) fn load_i8(self, from: &[i8; 32]) -> __m256i {
        // SAFETY: the array has 32 bytes; the token proves AVX2.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    /// The 4 integers from `at` on, in every 32-bit lane.
    #[inline(always)]
    pub(crate) fn broadcast_i8x4<const N: usize>(self, from: &[i8; N], at: usize) -> __m256i {
        assert!(at + 4 <= N);
        let quad = [from[at], from[at + 1], from[at + 2], from[at + 3]];
        self.splat_i32(i32::from_le_bytes(quad.map(|x| x as u8)))
    }

    /// The 16 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn load16<const N: usize>(self, from: &[u8; N], at: usize) -> __m128i {
        assert!(at + 16 <= N);
        // SAFETY: 16 bytes from `at` on are in the array; the token proves AVX2.
        unsafe { _mm_loadu_si128(from.as_ptr().add(at).cast()) }
    }

    /// Writes 32 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn store_bytes<const N: usize>(self, v: __m256i, to: &mut [u8; N], at: usize) {
        assert!(at + 32 <= N);
        // SAFETY: 32 bytes from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(at).cast(), v) }
    }

    /// The 8 half floats whose 16 bytes begin at `at`, widened.
    #[inline(always)]
    pub(crate) fn load_f16<const N: usize>(self, from: &[u8; N], at: usize) -> __m256 {
        let halves = self.load16(from, at);
        // SAFETY: the token proves F16C; registers only.
        unsafe { _mm256_cvtph_ps(halves) }
    }

    /// Writes 32 integers.
    #[inline(always)]
    pub(crate) fn store_i8(self, v: __m256i, to: &mut [i8; 32]) {
        // SAFETY: the array has 32 bytes; the token proves AVX2.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
    }

    /// `y[i] = q[i] scale + y[i]` for 32 bytes, each rounded once.
    #[inline(always)]
    pub(crate) fn multiply_add_bytes(self, q: __m256i, scale: __m256, y: &mut [f32; 32]) {
        for (i, q) in self.bytes_to_f32(q).into_iter().enumerate() {
            let sum = self.mul_add(q, scale, self.load_f32(y, 8 * i));
            self.store_f32(sum, y, 8 * i);
        }
    }

    /// 4 half floats, widened.
    #[inline(always)]
    pub(crate) fn load4_f16(self, from: &[u8; 8]) -> __m128 {
        // SAFETY: the token proves F16C; registers only.
        unsafe { _mm_cvtph_ps(_mm_cvtsi64_si128(i64::from_le_bytes(*from))) }
    }

    /// The 8 floats from `at` on.
    #[inline(always)]
    pub(crate) fn load_f32<const N: usize>(self, from: &[f32; N], at: usize) -> __m256 {
        assert!(at + 8 <= N);
        // SAFETY: 8 floats from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_loadu_ps(from.as_ptr().add(at)) }
    }

    /// Writes 8 floats from `at` on.
    #[inline(always)]
    pub(crate) fn store_f32<const N: usize>(self, v: __m256, to: &mut [f32; N], at: usize) {
        assert!(at + 8 <= N);
        // SAFETY: 8 floats from `at` on are in the array; the token proves AVX2.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(at), v) }
    }
}

/// How far ahead memory is asked for weights: some groups of a tile of 8 bits.
const AHEAD: usize = 2048;

impl Avx512Vnni {
    /// Asks memory for as much as `from` is, [`AHEAD`] bytes further on, where the weights after it lie, or nothing that is looked at.
    #[inline(always)]
    pub(crate) fn ask_ahead<T>(self, from: &T) {
        let from = std::ptr::from_ref(from).cast::<i8>();
        for line in (0..size_of::<T>()).step_by(64) {
            // SAFETY: a hint, for which any address will do; the token proves SSE.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line)) };
        }
    }

    /// What AVX2 can do, this can.
    #[inline(always)]
    pub(crate) fn avx2(self) -> Avx2 {
        Avx2(())
    }

    /// What AVX-512 can do, this can.
    #[inline(always)]
    pub(crate) fn avx512(self) -> Avx512 {
        Avx512(())
    }

    register_instructions! {
        /// Every lane `x`.
        fn splat_i32(x: i32) -> __m512i = _mm512_set1_epi32(x);
        /// Every byte's low nibble.
        fn low_nibbles(v: __m512i) -> __m512i = _mm512_and_si512(v, _mm512_set1_epi8(15));
        /// Every byte's high nibble.
        fn high_nibbles(v: __m512i) -> __m512i = _mm512_and_si512(_mm512_srli_epi16::<4>(v), _mm512_set1_epi8(15));
        /// Signed bytes plus 128, as unsigned ones.
        fn plus_128(v: __m512i) -> __m512i = _mm512_xor_si512(v, _mm512_set1_epi8(-128));
        /// `sum[i] += w[4 i ..][..4] · x[4 i ..][..4]`, `w` unsigned, `x` signed.
        fn dot_u8_i8(sum: __m512i, w: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(sum, w, x);
        /// The bits of every byte that `mask` has.
        fn and(v: __m512i, mask: i8) -> __m512i = _mm512_and_si512(v, _mm512_set1_epi8(mask));
        /// `a + b` in 32 bit.
        fn add_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        /// Integers as floats.
        fn to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        /// 16 half floats, widened.
        fn widen_f16(halves: __m256i) -> __m512 = _mm512_cvtph_ps(halves);
    }

    /// The two bits of every byte from bit `SHIFT` on.
    #[inline(always)]
    pub(crate) fn crumbs<const SHIFT: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512; registers only.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<SHIFT>(v), _mm512_set1_epi8(3)) }
    }

    /// 16 integers.
    #[inline(always)]
    pub(crate) fn load_i32(self, from: &[i32; 16]) -> __m512i {
        // SAFETY: the array has 64 bytes; the token proves AVX-512.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// Writes 16 integers.
    #[inline(always)]
    pub(crate) fn store_i32(self, v: __m512i, to: &mut [i32; 16]) {
        // SAFETY: the array has 64 bytes; the token proves AVX-512.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
    }

    /// The 64 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn load_bytes<const N: usize>(self, from: &[u8; N], at: usize) -> __m512i {
        assert!(at + 64 <= N);
        // SAFETY: 64 bytes from `at` on are in the array; the token proves AVX-512.
        unsafe { _mm512_loadu_si512(from.as_ptr().add(at).cast()) }
    }

    /// The 4 integers from `at` on, in every 32-bit lane.
    #[inline(always)]
    pub(crate) fn broadcast_i8x4<const N: usize>(self, from: &[i8; N], at: usize) -> __m512i {
        assert!(at + 4 <= N);
        let quad = [from[at], from[at + 1], from[at + 2], from[at + 3]];
        self.splat_i32(i32::from_le_bytes(quad.map(|x| x as u8)))
    }

    /// Writes 64 bytes from `at` on.
    #[inline(always)]
    pub(crate) fn store_bytes<const N: usize>(self, v: __m512i, to: &mut [u8; N], at: usize) {
        assert!(at + 64 <= N);
        // SAFETY: 64 bytes from `at` on are in the array; the token proves AVX-512.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(at).cast(), v) }
    }
}
