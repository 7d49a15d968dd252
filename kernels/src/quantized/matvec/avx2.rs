//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations. 4-bit products (15 · 127) of the whole group fit 16-bit sums;
//! 8-bit ones (127 · 127) only in pairs, and the weights' signs move to the activations, as one side must be unsigned.
//!
//! 38 GB/s of weights from the cache, of 4 as of 8 bit (`gemmad bench kernels`, two threads of a shared PC).

use std::arch::x86_64::*;

use super::*;
use crate::simd::{Avx2, Simd};

impl TileSums for Avx2 {
    type Sums = [__m256; 2];

    #[inline(always)]
    fn zero(self) -> [__m256; 2] {
        [self.splat(0.0); 2]
    }

    #[inline(always)]
    fn add<F: BlockFormat>(self, sums: &mut [__m256; 2], w: &F::Tile, sw: &Scales, x: &X) {
        let dots = if F::FITS_16_BITS {
            small_dots::<F>(self, w, x)
        } else {
            byte_dots::<F>(self, w, x)
        };
        for (half, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
            let scale = self.mul(self.load_f16(sw, half * 16), self.splat(x.scale[0]));
            *sum = self.mul_add(self.to_f32(dot), scale, *sum);
        }
    }

    #[inline(always)]
    fn rows(self, sums: [__m256; 2]) -> [f32; TILE_ROWS] {
        let mut rows = [0.0; TILE_ROWS];
        self.store_f32(sums[0], &mut rows, 0);
        self.store_f32(sums[1], &mut rows, 8);
        rows
    }
}

#[inline(always)]
fn small_dots<F: BlockFormat>(s: Avx2, w: &F::Tile, x: &X) -> [__m256i; 2] {
    let mut pairs = [s.splat_i32(0); 2];
    for octet in 0..4 {
        let xa = s.broadcast_i8x4(&x.q[0], 8 * octet);
        let xb = s.broadcast_i8x4(&x.q[0], 8 * octet + 4);
        for (half, pairs) in pairs.iter_mut().enumerate() {
            let [a, b] = F::avx2_octet(s, w, octet, half);
            let products = s.add_i16(s.multiply_u8_i8(a, xa), s.multiply_u8_i8(b, xb));
            *pairs = s.add_i16(*pairs, products);
        }
    }
    let (ones, first) = (s.splat_i16(1), s.splat_i32(F::first_dot(x.offset[0])));
    [
        s.add_i32(s.multiply_i16(pairs[0], ones), first),
        s.add_i32(s.multiply_i16(pairs[1], ones), first),
    ]
}

#[inline(always)]
fn byte_dots<F: BlockFormat>(s: Avx2, w: &F::Tile, x: &X) -> [__m256i; 2] {
    let mut dots = [s.splat_i32(0); 2];
    for octet in 0..4 {
        let xa = s.broadcast_i8x4(&x.q[0], 8 * octet);
        let xb = s.broadcast_i8x4(&x.q[0], 8 * octet + 4);
        for (half, dot) in dots.iter_mut().enumerate() {
            let [a, b] = F::avx2_octet(s, w, octet, half);
            for (w, x) in [(a, xa), (b, xb)] {
                let pairs = s.multiply_u8_i8(s.abs_i8(w), s.with_sign_i8(x, w));
                *dot = s.add_i32(*dot, s.multiply_i16(pairs, s.splat_i16(1)));
            }
        }
    }
    dots
}
