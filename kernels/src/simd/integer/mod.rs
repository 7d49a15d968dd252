//! Products of small integers, which differ too much between instruction sets to be written once.
//!
//! As with [`super::Simd`], a token proves that the code runs where its instructions are: it exists only inside a function
//! compiled for them, which only [`dispatch_integer`] enters. What is not an instruction of its own set is plain code.

/// Methods of a token, each one intrinsic that touches registers only.
macro_rules! register_instructions {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $code:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: the token proves that the CPU has the instruction, which touches registers only.
            unsafe { $code }
        }
    )*};
}

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "aarch64")]
mod walk;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::{Dotprod, I8mm};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx512Vnni;

use crate::Isa;
use crate::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;

/// An operation on small integers in one form for each instruction set that it gains by; all but `scalar` must be
/// `#[inline(always)]`. The others do what the sets that they contain do: `i8mm → dotprod → neon → scalar`,
/// `avx512vnni → avx2 → scalar`.
pub(crate) trait IntegerKernel: Sized {
    /// The reference.
    fn scalar(self);
    /// For ARMv8.0.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon(self, _: Neon) {
        self.scalar();
    }
    /// With `sdot`.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn dotprod(self, s: Dotprod) {
        self.neon(s.neon());
    }
    /// With `smmla`.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn i8mm(self, s: I8mm) {
        self.dotprod(s.dotprod());
    }
    /// With AVX2.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, _: Avx2) {
        self.scalar();
    }
    /// With `vpdpbusd` on 64 bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512vnni(self, s: Avx512Vnni) {
        self.avx2(s.avx2());
    }
}

/// The methods of an [`IntegerKernel`] for the instruction sets that are named: each is the kernel's own `each` with that token.
macro_rules! each_with {
    ($($isa:ident),*) => { $(each_with!(@$isa);)* };
    (@neon) => { each_with!("aarch64", neon, crate::simd::Neon); };
    (@dotprod) => { each_with!("aarch64", dotprod, crate::simd::integer::Dotprod); };
    (@i8mm) => { each_with!("aarch64", i8mm, crate::simd::integer::I8mm); };
    (@avx2) => { each_with!("x86_64", avx2, crate::simd::Avx2); };
    (@avx512vnni) => { each_with!("x86_64", avx512vnni, crate::simd::integer::Avx512Vnni); };
    ($arch:literal, $isa:ident, $token:ty) => {
        #[cfg(target_arch = $arch)]
        #[inline(always)]
        fn $isa(self, s: $token) {
            self.each(s);
        }
    };
}
pub(crate) use each_with;

/// Does `kernel` with the instructions of `isa`.
#[inline]
pub(crate) fn dispatch_integer<K: IntegerKernel>(isa: Isa, kernel: K) {
    match isa.level() {
        Level::Scalar => kernel.scalar(),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: an Isa of this level exists only where the CPU was seen to have NEON.
        Level::Neon => unsafe { arm::run_neon(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: an Isa of this level exists only where the CPU was seen to have NEON and dotprod.
        Level::Dotprod => unsafe { arm::run_dotprod(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: an Isa of this level exists only where the CPU was seen to have NEON, dotprod and i8mm.
        Level::I8mm => unsafe { arm::run_i8mm(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an Isa of these levels exists only where the CPU was seen to have AVX2, FMA and F16C.
        Level::Avx2 | Level::Avx512 => unsafe { x86::run_avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an Isa of this level exists only where the CPU was seen to have AVX-512 F, BW, VL, DQ and VNNI, and AVX2,
        // FMA and F16C.
        Level::Avx512Vnni => unsafe { x86::run_avx512vnni(kernel) },
    }
}
