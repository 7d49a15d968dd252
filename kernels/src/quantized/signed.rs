//! Integers as they are: where they are stored with an offset, it is taken away.

use std::arch::aarch64::int8x16_t;

use crate::quant::BlockFormat;
use crate::simd::Neon;

/// 8 k of the rows `4 i ..` of a tile, as [`BlockFormat::neon_octet`].
#[inline(always)]
pub(super) fn octet<F: BlockFormat>(
    s: Neon,
    tile: &F::Tile,
    octet: usize,
    i: usize,
) -> [int8x16_t; 2] {
    let [a, b] = F::neon_octet(s, tile, octet, i);
    [s.minus(a, F::OFFSET), s.minus(b, F::OFFSET)]
}
