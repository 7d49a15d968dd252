//! Sixteen lanes: AVX-512 F.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::avx2::{fold, sums_of_four};
use super::{Kernel, Simd};

/// Proof that the code runs where AVX-512 F, BW, VL and DQ are enabled, and AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) ());

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.simd(Avx512(()))
}

macro_rules! avx512 {
    ($code:expr) => {{
        // SAFETY: an `Avx512` exists only inside functions that enable them, so the CPU has these instructions; a pointer that is read or
        // written is valid for all lanes (or for those that the mask names) by the contract of the method.
        unsafe { $code }
    }};
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> __m512 {
        // Not the intrinsic: some optimisation levels leave it a call.
        avx512!(from.cast::<__m512>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const bf16) -> __m512 {
        avx512!({
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        })
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, from: *const f16) -> __m512 {
        avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, from: *const i8) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            from.cast()
        ))))
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: __m512, to: *mut f32) {
        avx512!(to.cast::<__m512>().write_unaligned(v))
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, v: __m512, to: *mut f16) {
        avx512!(_mm256_storeu_si256(
            to.cast(),
            _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
        ))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        avx512!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(a))
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m512, n: __m512) -> __m512 {
        avx512!(_mm512_scalef_ps(a, n))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        avx512!({
            let four = fold(fold_16(a));
            let two = _mm_add_ps(four, _mm_movehdup_ps(four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehl_ps(two, two)))
        })
    }

    #[inline(always)]
    fn sums(self, a: [__m512; 4]) -> [f32; 4] {
        avx512!(sums_of_four([
            fold(fold_16(a[0])),
            fold(fold_16(a[1])),
            fold(fold_16(a[2])),
            fold(fold_16(a[3])),
        ]))
    }

    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        avx512!(_mm512_reduce_max_ps(a))
    }

    #[inline(always)]
    fn load_tail(self, from: &[f32], fill: f32) -> __m512 {
        let mask = first_lanes(from.len());
        avx512!(_mm512_mask_loadu_ps(
            _mm512_set1_ps(fill),
            mask,
            from.as_ptr()
        ))
    }

    #[inline(always)]
    fn store_tail(self, v: __m512, to: &mut [f32]) {
        let mask = first_lanes(to.len());
        avx512!(_mm512_mask_storeu_ps(to.as_mut_ptr(), mask, v))
    }
}

/// The first half plus the second.
///
/// # Safety
/// The CPU must have AVX-512 DQ.
#[inline(always)]
unsafe fn fold_16(a: __m512) -> __m256 {
    // SAFETY: as the caller promises; registers only.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
}

/// A mask of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    assert!(count <= 16);
    ((1u32 << count) - 1) as u16
}
