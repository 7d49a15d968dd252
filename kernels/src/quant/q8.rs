//! 8 bit, each a signed byte.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use half::f16;

use super::block_format::{BlockFormat, GROUP, Integers, PAIR_SCALES, TILE_ROWS, TOGETHER};
use super::rounding::{least_squares, peak, round_to};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::integer::Avx512Vnni;

/// Integers from −127 to 127; those of others from −128 on.
pub(crate) struct Q8;

impl Integers for Q8 {
    const BITS: usize = 8;
    const OFFSET: i8 = 0;
    type Group = [u8; GROUP];
    type Tile = [u8; TILE_ROWS * GROUP];

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2] {
        let at = octet * 128 + i * 16;
        [s.load_bytes(tile, at), s.load_bytes(tile, at + 64)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2_octet(s: Avx2, tile: &Self::Tile, octet: usize, half: usize) -> [__m256i; 2] {
        let at = octet * 128 + half * 32;
        [s.load_bytes(tile, at), s.load_bytes(tile, at + 64)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2] {
        let at = octet * 128;
        [s.load_bytes(tile, at), s.load_bytes(tile, at + 64)]
    }
}

impl BlockFormat for Q8 {
    const FITS_16_BITS: bool = false;
    type Pair = [u8; PAIR_SCALES + TOGETHER * TILE_ROWS * GROUP];

    /// The rounding of 255 steps leaves nothing to search for, only the scale to refine.
    fn quantize(x: &[f32; GROUP]) -> ([i8; GROUP], f16) {
        let peak = peak(x).abs();
        if peak == 0.0 {
            return ([0; GROUP], f16::ZERO);
        }
        let (_, scale) = least_squares(x, 127.0 / peak, -127.0, 127.0);
        round_to(x, scale, -127.0, 127.0)
    }

    #[inline(always)]
    fn first_dot(_: i32) -> i32 {
        0
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_group(s: Neon, group: &Self::Group) -> [int8x16_t; 2] {
        [s.load_bytes(group, 0), s.load_bytes(group, 16)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2_group(s: Avx2, group: &Self::Group) -> __m256i {
        s.load_bytes(group, 0)
    }
}
