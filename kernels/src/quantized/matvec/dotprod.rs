//! `sdot` by a broadcast quad of activations: a register of weights is 4 rows × 4 k, four registers the 16 rows of a tile.
//! Nibbles go in unsigned; the sums begin with −8 Σ x instead.
//!
//! 6.5 instructions for 32 weights of 4 bit, 4.8 of 8 bit.

use std::arch::aarch64::*;

use super::*;
use crate::simd::integer::Dotprod;
use crate::simd::{Neon, Simd};

impl TileSums for Dotprod {
    type Sums = [float32x4_t; 4];

    #[inline(always)]
    fn zero(self) -> [float32x4_t; 4] {
        [self.neon().splat(0.0); 4]
    }

    #[inline(always)]
    fn add<F: BlockFormat>(self, sums: &mut [float32x4_t; 4], w: &F::Tile, sw: &Scales, x: &X) {
        add_scaled(self.neon(), sums, dots::<F>(self, w, x), sw, x.scale[0]);
    }

    #[inline(always)]
    fn rows(self, sums: [float32x4_t; 4]) -> [f32; TILE_ROWS] {
        rows(self.neon(), sums)
    }
}

#[inline(always)]
fn dots<F: BlockFormat>(s: Dotprod, w: &F::Tile, x: &X) -> [int32x4_t; 4] {
    let mut dots = [s.neon().splat_i32(F::first_dot(x.offset[0])); 4];
    let xs = s.neon().load_i8(&x.q[0], 0);
    add_octet::<F, 0, 1>(s, &mut dots, w, 0, xs);
    add_octet::<F, 2, 3>(s, &mut dots, w, 1, xs);
    let xs = s.neon().load_i8(&x.q[0], 16);
    add_octet::<F, 0, 1>(s, &mut dots, w, 2, xs);
    add_octet::<F, 2, 3>(s, &mut dots, w, 3, xs);
    dots
}

/// Adds the products of an octet with quads `A` and `B` of `x`.
#[inline(always)]
fn add_octet<F: BlockFormat, const A: i32, const B: i32>(
    s: Dotprod,
    dots: &mut [int32x4_t; 4],
    w: &F::Tile,
    octet: usize,
    x: int8x16_t,
) {
    for (i, dot) in dots.iter_mut().enumerate() {
        let [a, b] = F::neon_octet(s.neon(), w, octet, i);
        *dot = s.sdot_lane::<B>(s.sdot_lane::<A>(*dot, a, x), b, x);
    }
}

/// `sum = fma(dot, s_w · s_x, sum)` of the 16 rows.
#[inline(always)]
pub(super) fn add_scaled(
    s: Neon,
    sums: &mut [float32x4_t; 4],
    dots: [int32x4_t; 4],
    sw: &Scales,
    sx: f32,
) {
    let [sw0, sw1] = s.load_f16(sw, 0);
    let [sw2, sw3] = s.load_f16(sw, 16);
    for ((sum, dot), sw) in sums.iter_mut().zip(dots).zip([sw0, sw1, sw2, sw3]) {
        *sum = s.mul_add(s.to_f32(dot), s.multiply_by(sw, sx), *sum);
    }
}

/// The sums of the 16 rows.
#[inline(always)]
pub(super) fn rows(s: Neon, sums: [float32x4_t; 4]) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    for (i, sum) in sums.into_iter().enumerate() {
        s.store_f32(sum, &mut rows, 4 * i);
    }
    rows
}
