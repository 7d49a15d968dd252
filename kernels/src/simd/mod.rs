//! Vector registers behind one trait: a kernel is written once and compiled for each instruction set.
//!
//! A token (`Neon`, `Avx2`, `Avx512`) can only be made inside a function compiled for its instructions, and such a function
//! is entered only through [`dispatch`] or [`integer::dispatch_integer`], with an [`Isa`] that proves that the CPU has them. Everything between is
//! `#[inline(always)]`, so it ends up in that function and is compiled for it; a call that stays a call would be slow.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bundle;
mod element;
pub(crate) mod gemm;
pub(crate) mod integer;
mod lanes;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod partial_sums;
mod plain;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
pub(crate) use bundle::{Bundle, add_products_of_rows, add_weighted_rows};
pub(crate) use element::Element;
pub(crate) use lanes::{add_column_products_with_lanes, add_products_with_lanes};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use plain::Plain;

use half::{bf16, f16};

use crate::Isa;
use crate::isa::Level;

/// The most lanes that any implementation has.
pub(crate) const MAX_LANES: usize = 16;

/// A vector of `LANES` 32-bit floats, and what can be done with it.
///
/// Multiplications and additions round once each, `mul_add` once in all, as IEEE 754 says; nothing flushes denormals.
pub(crate) trait Simd: Copy {
    /// Floats in a register.
    const LANES: usize;
    /// Registers that a loop may fill with accumulators and operands.
    const REGISTERS: usize;
    /// The register.
    type V: Copy;

    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The `LANES` floats from `from` on.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;
    /// The `LANES` brain floats from `from` on, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_bf16_ptr(self, from: *const bf16) -> Self::V;
    /// The `LANES` half floats from `from` on, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_f16_ptr(self, from: *const f16) -> Self::V;
    /// The `LANES` integers from `from` on, as floats.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_i8_ptr(self, from: *const i8) -> Self::V;
    /// The same for four registers.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    unsafe fn load_i8_ptr_4(self, from: *const i8) -> [Self::V; 4] {
        let mut out = [self.splat(0.0); 4];
        for (i, out) in out.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *out = unsafe { self.load_i8_ptr(from.add(i * Self::LANES)) };
        }
        out
    }
    /// For each of the four floats from `from` on, every lane that one.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    unsafe fn splat_ptr_4(self, from: *const f32) -> [Self::V; 4] {
        let mut out = [self.splat(0.0); 4];
        for (i, out) in out.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *out = self.splat(unsafe { *from.add(i) });
        }
        out
    }
    /// Writes all lanes from `to` on.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store_ptr(self, v: Self::V, to: *mut f32);
    /// Rounds all lanes to half floats (to nearest, ties to even) and writes them from `to` on.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store_f16_ptr(self, v: Self::V, to: *mut f16);

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger one; `b` or NaN where `b` is NaN, unspecified where only `a` is.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` or NaN where `b` is NaN, unspecified where only `a` is.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for integral `n` in -252 ..= 254, with overflow to infinity and underflow through the denormals to zero.
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V;
    /// The sum of all lanes, as a tree: the first half and the second half, in pairs, until four are left, and of these the
    /// neighbours.
    fn sum(self, a: Self::V) -> f32;
    /// [`Simd::sum`] of each.
    fn sums(self, a: [Self::V; 4]) -> [f32; 4];
    /// The largest lane; NaN lanes may or may not be passed over.
    fn max_lane(self, a: Self::V) -> f32;

    /// The first `LANES` floats of `from`.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice has LANES floats.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Writes all lanes to the start of `to`.
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice has LANES floats.
        unsafe { self.store_ptr(v, to.as_mut_ptr()) }
    }

    /// Rounds all lanes to half floats and writes them to the start of `to`.
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [f16]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice has LANES half floats.
        unsafe { self.store_f16_ptr(v, to.as_mut_ptr()) }
    }

    /// Fills `to`, at most `LANES` half floats, with the first lanes, rounded.
    #[inline(always)]
    fn store_f16_tail(self, v: Self::V, to: &mut [f16]) {
        let mut lanes = [f16::ZERO; MAX_LANES];
        self.store_f16(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// All of `from`, at most `LANES` floats; the other lanes are `fill`.
    #[inline(always)]
    fn load_tail(self, from: &[f32], fill: f32) -> Self::V {
        let mut lanes = [fill; MAX_LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Fills `to`, at most `LANES` floats, with the first lanes.
    #[inline(always)]
    fn store_tail(self, v: Self::V, to: &mut [f32]) {
        let mut lanes = [0.0; MAX_LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}

/// An operation in two forms: the plain reference, and one for vector registers.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The reference.
    fn scalar(self) -> Self::Output;
    /// The same with vectors; must be `#[inline(always)]`.
    fn simd<S: Simd>(self, s: S) -> Self::Output;
}

/// Does `kernel` with the instructions of `isa`.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.level() {
        Level::Scalar => kernel.scalar(),
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::Dotprod | Level::I8mm => {
            // SAFETY: an Isa of this level exists only where the CPU was seen to have NEON.
            unsafe { neon::run(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: an Isa of this level exists only where the CPU was seen to have AVX2, FMA and F16C.
            unsafe { avx2::run(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Vnni => {
            // SAFETY: an Isa of these levels exists only where the CPU was seen to have AVX-512 F, BW, VL and DQ, and AVX2,
            // FMA and F16C.
            unsafe { avx512::run(kernel) }
        }
    }
}
