//! 4 bit, as nibbles `q + 8`: low ones and high ones lie in one byte.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use half::f16;

use super::block_format::{BlockFormat, GROUP, Integers, PAIR_SCALES, TILE_ROWS};
use super::rounding::{least_squares, peak, round_to};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::integer::Avx512Vnni;

/// Integers from −8 to 7.
pub(crate) struct Q4;

/// How far, in tenths of a step, the search for a scale goes to each side of the one that the largest weight gives.
/// Beyond one step of sixteen nothing is gained on normal or heavy-tailed weights.
const SEARCH_TENTHS: i8 = 9;

impl Integers for Q4 {
    const BITS: usize = 4;
    const OFFSET: i8 = 8;
    type Group = [u8; GROUP / 2];
    type Tile = [u8; TILE_ROWS * GROUP / 2];

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2] {
        let nibbles = s.load_bytes(tile, octet * 64 + i * 16);
        [s.low_nibbles(nibbles), s.high_nibbles(nibbles)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2_octet(s: Avx2, tile: &Self::Tile, octet: usize, half: usize) -> [__m256i; 2] {
        let nibbles = s.load_bytes(tile, octet * 64 + half * 32);
        [s.low_nibbles(nibbles), s.high_nibbles(nibbles)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2] {
        let nibbles = s.load_bytes(tile, octet * 64);
        [s.low_nibbles(nibbles), s.high_nibbles(nibbles)]
    }
}

impl BlockFormat for Q4 {
    /// 15 · 127 · 16: a lane sums half a group at the most.
    const FITS_16_BITS: bool = true;
    type Pair = [u8; PAIR_SCALES + TILE_ROWS * GROUP];

    /// The largest weight, whatever its sign, is laid near −8, so that all sixteen integers are used.
    fn quantize(x: &[f32; GROUP]) -> ([i8; GROUP], f16) {
        let peak = peak(x);
        if peak == 0.0 {
            return ([0; GROUP], f16::ZERO);
        }
        let mut best = (f32::NEG_INFINITY, 0.0);
        for tenths in -SEARCH_TENTHS..=SEARCH_TENTHS {
            let candidate = least_squares(x, (f32::from(tenths) * 0.1 - 8.0) / peak, -8.0, 7.0);
            if candidate.0 > best.0 {
                best = candidate;
            }
        }
        round_to(x, best.1, -8.0, 7.0)
    }

    #[inline(always)]
    fn first_dot(minus_8_sum: i32) -> i32 {
        minus_8_sum
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_group(s: Neon, group: &Self::Group) -> [int8x16_t; 2] {
        let nibbles = s.load_bytes(group, 0);
        [s.low_nibbles(nibbles), s.high_nibbles(nibbles)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2_group(s: Avx2, group: &Self::Group) -> __m256i {
        s.split_nibbles(s.load16(group, 0))
    }
}
