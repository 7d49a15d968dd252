//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations, eight of them for the 16 rows of a tile.
//! 4-bit products (15 · 127) of the whole group fit 16-bit sums, 8-bit ones (127 · 127) only in pairs.
//!
//! 9.5 instructions for 32 weights of 4 bit, 9.8 of 8 bit.

use std::arch::aarch64::*;

use super::dotprod::{add_scaled, rows};
use super::*;
use crate::simd::{Neon, Simd};

impl TileSums for Neon {
    type Sums = [float32x4_t; 4];

    #[inline(always)]
    fn zero(self) -> [float32x4_t; 4] {
        [self.splat(0.0); 4]
    }

    #[inline(always)]
    fn add<F: BlockFormat>(self, sums: &mut [float32x4_t; 4], w: &F::Tile, sw: &Scales, x: &X) {
        let quads = self.quads(&x.q[0]);
        let first = self.splat_i32(F::first_dot(x.offset[0]));
        let dots = [
            dots::<F, 0>(self, w, quads, first),
            dots::<F, 1>(self, w, quads, first),
            dots::<F, 2>(self, w, quads, first),
            dots::<F, 3>(self, w, quads, first),
        ];
        add_scaled(self, sums, dots, sw, x.scale[0]);
    }

    #[inline(always)]
    fn add_pair<F: BlockFormat>(self, sums: &mut Self::Sums, pair: &F::Pair, x: &[X; TOGETHER]) {
        let (scales, integers) = F::split(pair);
        if F::FITS_16_BITS {
            TileSums::add::<F>(self, sums, &integers[0], &scales[0], &x[0]);
            return TileSums::add::<F>(self, sums, &integers[1], &scales[1], &x[1]);
        }
        // A loop that stays one: side by side the two groups take more registers than there are.
        for at in 0..TOGETHER {
            TileSums::add::<F>(self, sums, &integers[at], &scales[at], &x[at]);
        }
    }

    #[inline(always)]
    fn rows(self, sums: [float32x4_t; 4]) -> [f32; TILE_ROWS] {
        rows(self, sums)
    }
}

/// The dots of rows `4 I` on. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn dots<F: BlockFormat, const I: usize>(
    s: Neon,
    w: &F::Tile,
    x: [int8x16_t; 8],
    first: int32x4_t,
) -> int32x4_t {
    if F::FITS_16_BITS {
        small_dots::<F, I>(s, w, x, first)
    } else {
        byte_dots::<F, I>(s, w, x)
    }
}

#[inline(always)]
fn small_dots<F: BlockFormat, const I: usize>(
    s: Neon,
    w: &F::Tile,
    x: [int8x16_t; 8],
    first: int32x4_t,
) -> int32x4_t {
    let sums = octet::<F, I, 0>(s, w, x);
    let sums = add_octet::<F, I, 1>(s, w, x, sums);
    let sums = add_octet::<F, I, 2>(s, w, x, sums);
    let [a, b] = add_octet::<F, I, 3>(s, w, x, sums);
    s.add_widened_neighbours(first, s.add_neighbours_i16(a, b))
}

#[inline(always)]
fn byte_dots<F: BlockFormat, const I: usize>(s: Neon, w: &F::Tile, x: [int8x16_t; 8]) -> int32x4_t {
    let [a, b] = octet::<F, I, 0>(s, w, x);
    let sums = [s.widen_neighbours(a), s.widen_neighbours(b)];
    let sums = add_widened(s, sums, octet::<F, I, 1>(s, w, x));
    let sums = add_widened(s, sums, octet::<F, I, 2>(s, w, x));
    let [a, b] = add_widened(s, sums, octet::<F, I, 3>(s, w, x));
    s.add_neighbours_i32(a, b)
}

/// The products of octet `OCTET`, of two rows and of the next two.
#[inline(always)]
fn octet<F: BlockFormat, const I: usize, const OCTET: usize>(
    s: Neon,
    w: &F::Tile,
    x: [int8x16_t; 8],
) -> [int16x8_t; 2] {
    let [a, b] = F::neon_octet(s, w, OCTET, I);
    let (xa, xb) = (x[2 * OCTET], x[2 * OCTET + 1]);
    [
        s.multiply_add_first(s.multiply_first(a, xa), b, xb),
        s.multiply_add_last(s.multiply_last(a, xa), b, xb),
    ]
}

/// Adds the products of octet `OCTET` in 16 bits.
#[inline(always)]
fn add_octet<F: BlockFormat, const I: usize, const OCTET: usize>(
    s: Neon,
    w: &F::Tile,
    x: [int8x16_t; 8],
    [first, last]: [int16x8_t; 2],
) -> [int16x8_t; 2] {
    let [a, b] = F::neon_octet(s, w, OCTET, I);
    let (xa, xb) = (x[2 * OCTET], x[2 * OCTET + 1]);
    [
        s.multiply_add_first(s.multiply_add_first(first, a, xa), b, xb),
        s.multiply_add_last(s.multiply_add_last(last, a, xa), b, xb),
    ]
}

/// Adds neighbours in 32 bits.
#[inline(always)]
fn add_widened(s: Neon, sums: [int32x4_t; 2], products: [int16x8_t; 2]) -> [int32x4_t; 2] {
    [
        s.add_widened_neighbours(sums[0], products[0]),
        s.add_widened_neighbours(sums[1], products[1]),
    ]
}
