//! 2 bit, as crumbs `q + 2`: four of them lie in one byte.
//!
//! Nothing is rounded to so few steps after training: these weights were trained as what they are.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use super::block_format::{GROUP, Integers, TILE_ROWS};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::integer::Avx512Vnni;

/// Integers from −2 to 1.
pub(crate) struct Q2;

impl Integers for Q2 {
    const BITS: usize = 2;
    const OFFSET: i8 = 2;
    const SHIFTS: [u32; 4] = [0, 2, 4, 0];
    type Group = [u8; GROUP / 4];
    type Tile = [u8; TILE_ROWS * GROUP / 4];

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2] {
        let crumbs = s.load_bytes(tile, octet / 2 * 64 + i * 16);
        if octet.is_multiple_of(2) {
            [s.and(crumbs, 0b11), s.crumbs::<2>(crumbs)]
        } else {
            [s.crumbs::<4>(crumbs), s.crumbs::<6>(crumbs)]
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_shifted_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2] {
        let crumbs = s.load_bytes(tile, octet / 2 * 64 + i * 16);
        if octet.is_multiple_of(2) {
            [s.and(crumbs, 0b11), s.and(crumbs, 0b1100)]
        } else {
            [s.and(crumbs, 0b11_0000), s.crumbs::<6>(crumbs)]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2_octet(s: Avx2, tile: &Self::Tile, octet: usize, half: usize) -> [__m256i; 2] {
        let crumbs = s.load_bytes(tile, octet / 2 * 64 + half * 32);
        if octet.is_multiple_of(2) {
            [s.crumbs::<0>(crumbs), s.crumbs::<2>(crumbs)]
        } else {
            [s.crumbs::<4>(crumbs), s.crumbs::<6>(crumbs)]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2] {
        let crumbs = s.load_bytes(tile, octet / 2 * 64);
        if octet.is_multiple_of(2) {
            [s.crumbs::<0>(crumbs), s.crumbs::<2>(crumbs)]
        } else {
            [s.crumbs::<4>(crumbs), s.crumbs::<6>(crumbs)]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512_shifted_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2] {
        let crumbs = s.load_bytes(tile, octet / 2 * 64);
        if octet.is_multiple_of(2) {
            [s.and(crumbs, 0b11), s.and(crumbs, 0b1100)]
        } else {
            [s.and(crumbs, 0b11_0000), s.crumbs::<6>(crumbs)]
        }
    }
}
