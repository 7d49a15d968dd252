//! Eight lanes: AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// Proof that the code runs where AVX2, FMA and F16C are enabled.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(super) ());

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.simd(Avx2(()))
}

macro_rules! avx2 {
    ($code:expr) => {{
        // SAFETY: an `Avx2` exists only inside functions that enable them, so the CPU has these instructions; a pointer that is read or written
        // is valid for all lanes by the contract of the method.
        unsafe { $code }
    }};
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> __m256 {
        // Not the intrinsic: some optimisation levels leave it a call.
        avx2!(from.cast::<__m256>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const bf16) -> __m256 {
        avx2!({
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        })
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, from: *const f16) -> __m256 {
        avx2!(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, from: *const i8) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(
            from.cast()
        ))))
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: __m256, to: *mut f32) {
        avx2!(to.cast::<__m256>().write_unaligned(v))
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, v: __m256, to: *mut f16) {
        avx2!(_mm_storeu_si128(
            to.cast(),
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
        ))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        avx2!(_mm256_round_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(a))
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m256, n: __m256) -> __m256 {
        // In two steps, so that each power is a normal number and the last product rounds.
        avx2!({
            let n = _mm256_cvtps_epi32(n);
            let first = _mm256_srai_epi32::<1>(n);
            let second = _mm256_sub_epi32(n, first);
            let bias = _mm256_set1_epi32(127);
            let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, power(first)), power(second))
        })
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        avx2!({
            let four = fold(a);
            let two = _mm_add_ps(four, _mm_movehdup_ps(four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehl_ps(two, two)))
        })
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        avx2!(sums_of_four([fold(a), fold(b), fold(c), fold(d)]))
    }

    #[inline(always)]
    fn max_lane(self, a: __m256) -> f32 {
        avx2!({
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }
}

/// The first half plus the second.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn fold(a: __m256) -> __m128 {
    // SAFETY: as the caller promises; registers only.
    unsafe { _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)) }
}

/// For each register the sum of its neighbours' sums.
///
/// # Safety
/// The CPU must have SSE3.
#[inline(always)]
pub(super) unsafe fn sums_of_four([a, b, c, d]: [__m128; 4]) -> [f32; 4] {
    let mut sums = [0.0; 4];
    // SAFETY: as the caller promises; four floats are written to an array of four.
    unsafe {
        let neighbours = _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
        _mm_storeu_ps(sums.as_mut_ptr(), neighbours);
    }
    sums
}
