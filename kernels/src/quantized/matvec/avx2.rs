//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations. 4-bit products (15 · 127) of the whole group fit 16-bit sums;
//! 8-bit ones (127 · 127) only in pairs, and the weights' signs move to the activations, as one side must be unsigned.
//!
//! 38 GB/s of weights from the cache, of 4 as of 8 bit (`gemmad bench kernels`, two threads of a shared PC).

use std::arch::x86_64::*;

use super::*;

impl TileSums for Avx2 {
    #[inline(always)]
    fn q4(self, w: &[Q4], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
        q4(self, w, sw, x)
    }

    #[inline(always)]
    fn q8(self, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
        q8(self, w, sw, x)
    }
}

#[inline(always)]
fn q4(s: Avx2, w: &[Q4], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.splat_f32(0.0); 2];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let mut pairs = [s.splat_i32(0); 2];
        for step in 0..4 {
            let xa = s.broadcast_i8x4(&x.q[0], 8 * step);
            let xb = s.broadcast_i8x4(&x.q[0], 8 * step + 4);
            for (half, pairs) in pairs.iter_mut().enumerate() {
                let nibbles = s.load(w, step * 64 + half * 32);
                let a = s.multiply_u8_i8(s.low_nibbles(nibbles), xa);
                let b = s.multiply_u8_i8(s.high_nibbles(nibbles), xb);
                *pairs = s.add_i16(*pairs, s.add_i16(a, b));
            }
        }
        let (ones, offset) = (s.splat_i16(1), s.splat_i32(x.offset[0]));
        let dots = [
            s.add_i32(s.multiply_i16(pairs[0], ones), offset),
            s.add_i32(s.multiply_i16(pairs[1], ones), offset),
        ];
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}

#[inline(always)]
fn q8(s: Avx2, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.splat_f32(0.0); 2];
    let ones = s.splat_i16(1);
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let mut dots = [s.splat_i32(0); 2];
        for step in 0..8 {
            let x = s.broadcast_i8x4(&x.q[0], 4 * step);
            for (half, dot) in dots.iter_mut().enumerate() {
                let w = s.load(w, step * 64 + half * 32);
                let pairs = s.multiply_u8_i8(s.abs_i8(w), s.with_sign_i8(x, w));
                *dot = s.add_i32(*dot, s.multiply_i16(pairs, ones));
            }
        }
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}

/// `sum = fma(dot, s_w · s_x, sum)` of the 16 rows.
#[inline(always)]
fn add_scaled(s: Avx2, sums: &mut [__m256; 2], dots: [__m256i; 2], sw: &Scales, sx: f32) {
    for (half, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
        let scale = s.multiply(s.load_f16(sw, half * 16), s.splat_f32(sx));
        *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
    }
}

/// The sums of the 16 rows.
#[inline(always)]
fn rows(s: Avx2, sums: [__m256; 2]) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    s.store_f32(sums[0], &mut rows, 0);
    s.store_f32(sums[1], &mut rows, 8);
    rows
}
