//! Integers as `vpdpbusd` wants them: without signs. Small ones are stored so; to bytes 128 is added here.

use std::arch::x86_64::__m512i;

use crate::quant::{BlockFormat, Integers};
use crate::simd::integer::Avx512Vnni;

/// 8 k of a tile, as [`Integers::avx512_octet`].
#[inline(always)]
pub(super) fn octet<F: Integers>(s: Avx512Vnni, tile: &F::Tile, octet: usize) -> [__m512i; 2] {
    let [a, b] = F::avx512_octet(s, tile, octet);
    if F::OFFSET == 0 {
        [s.plus_128(a), s.plus_128(b)]
    } else {
        [a, b]
    }
}

/// What a dot with them is to begin with, of `−8 Σ x`.
#[inline(always)]
pub(super) fn first_dot<F: BlockFormat>(minus_8_sum: i32) -> i32 {
    if F::OFFSET == 0 {
        16 * minus_8_sum
    } else {
        F::first_dot(minus_8_sum)
    }
}
