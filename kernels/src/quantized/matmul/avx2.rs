//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations, four tokens at a time. 4-bit products (15 · 127) of the whole
//! group fit 16-bit sums; 8-bit ones (127 · 127) only in pairs, and the weights hand their signs to the activations.
//!
//! 105 GMAC/s with 4 bit, 76 with 8, 32 tokens (`gemmad bench kernels`, two threads of a shared PC).

use std::arch::x86_64::*;

use super::*;
use crate::simd::{Avx2, Simd};

impl Products for Avx2 {
    type Group = HalfGroup<8>;

    /// Integers as they are stored.
    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, half: usize, to: &mut Self::Group) {
        for octet in 0..4 {
            let [a, b] = F::avx2_octet(self, from.integers, octet, half);
            self.store_bytes(a, &mut to.integers, octet * 64);
            self.store_bytes(b, &mut to.integers, octet * 64 + 32);
        }
        self.store_f32(self.load_f16(from.scales, half * 16), &mut to.scales, 0);
    }

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], half: usize, out: &mut Sums) {
        let mut sums = load(self, out, half);
        for (w, x) in w.iter().zip(x) {
            let dots = if F::FITS_16_BITS {
                small_dots::<F>(self, &w.integers, x)
            } else {
                byte_dots(self, &w.integers, x)
            };
            let sw = self.load_f32(&w.scales, 0);
            for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                let scale = self.mul(sw, self.splat(x.scale[t]));
                *sum = self.mul_add(self.to_f32(dot), scale, *sum);
            }
        }
        store(self, sums, out, half);
    }
}

/// The integers of 8 rows.
type Integers = [u8; TILE_ROWS / 2 * GROUP];

#[inline(always)]
fn small_dots<F: BlockFormat>(s: Avx2, w: &Integers, x: &X) -> [__m256i; PANEL] {
    let mut pairs = [s.splat_i32(0); PANEL];
    for quad in 0..8 {
        let w = s.load_bytes(w, quad * 32);
        for (pairs, x) in pairs.iter_mut().zip(&x.q) {
            let products = s.multiply_u8_i8(w, s.broadcast_i8x4(x, 4 * quad));
            *pairs = s.add_i16(*pairs, products);
        }
    }
    let mut dots = [s.splat_i32(0); PANEL];
    for ((dot, pairs), offset) in dots.iter_mut().zip(pairs).zip(x.offset) {
        let first = s.splat_i32(F::first_dot(offset));
        *dot = s.add_i32(s.multiply_i16(pairs, s.splat_i16(1)), first);
    }
    dots
}

#[inline(always)]
fn byte_dots(s: Avx2, w: &Integers, x: &X) -> [__m256i; PANEL] {
    let mut dots = [s.splat_i32(0); PANEL];
    for quad in 0..8 {
        let w = s.load_bytes(w, quad * 32);
        let magnitude = s.abs_i8(w);
        for (dot, x) in dots.iter_mut().zip(&x.q) {
            let x = s.with_sign_i8(s.broadcast_i8x4(x, 4 * quad), w);
            let pairs = s.multiply_u8_i8(magnitude, x);
            *dot = s.add_i32(*dot, s.multiply_i16(pairs, s.splat_i16(1)));
        }
    }
    dots
}

#[inline(always)]
fn load(s: Avx2, sums: &Sums, half: usize) -> [__m256; PANEL] {
    let mut out = [s.splat(0.0); PANEL];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = s.load_f32(sums, half * 8);
    }
    out
}

#[inline(always)]
fn store(s: Avx2, sums: [__m256; PANEL], to: &mut Sums, half: usize) {
    for (sum, to) in sums.into_iter().zip(to) {
        s.store_f32(sum, to, half * 8);
    }
}

impl FewTokens for Avx2 {
    const AT_ONCE: usize = 4;

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, part: &Part<F>, _: usize, sums: &mut [[f32; TILE_ROWS]]) {
        match sums.len() {
            1 => few::multiply::<F, 1, 0>(self, part, sums),
            2 => few::multiply::<F, 2, 0>(self, part, sums),
            3 => few::multiply::<F, 3, 0>(self, part, sums),
            _ => few::multiply::<F, 4, 0>(self, part, sums),
        }
    }
}

impl<const T: usize> TokenSums<T, 0> for Avx2 {
    type Sums = [[__m256; 2]; T];

    #[inline(always)]
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> [[__m256; 2]; T] {
        from.each_ref()
            .map(|from| [self.load_f32(from, 0), self.load_f32(from, 8)])
    }

    #[inline(always)]
    fn add<F: BlockFormat>(
        self,
        sums: &mut [[__m256; 2]; T],
        w: &F::Tile,
        sw: &Scales,
        [x, _]: [&X; FEW_PANELS],
    ) {
        for half in 0..2 {
            let mut dots = [self.splat_i32(0); T];
            for octet in 0..4 {
                let octets = F::avx2_octet(self, w, octet, half);
                for (quad, w) in (2 * octet..).zip(octets) {
                    for (dot, x) in dots.iter_mut().zip(&x.q) {
                        let x = self.broadcast_i8x4(x, 4 * quad);
                        *dot = if F::FITS_16_BITS {
                            self.add_i16(*dot, self.multiply_u8_i8(w, x))
                        } else {
                            let x = self.with_sign_i8(x, w);
                            let pairs = self.multiply_u8_i8(self.abs_i8(w), x);
                            self.add_i32(*dot, self.multiply_i16(pairs, self.splat_i16(1)))
                        };
                    }
                }
            }
            let sw = self.load_f16(sw, half * 16);
            for (t, (sum, mut dot)) in sums.iter_mut().zip(dots).enumerate() {
                if F::FITS_16_BITS {
                    let first = self.splat_i32(F::first_dot(x.offset[t]));
                    dot = self.add_i32(self.multiply_i16(dot, self.splat_i16(1)), first);
                }
                let scale = self.mul(sw, self.splat(x.scale[t]));
                sum[half] = self.mul_add(self.to_f32(dot), scale, sum[half]);
            }
        }
    }

    #[inline(always)]
    fn store(self, sums: [[__m256; 2]; T], to: &mut [[f32; TILE_ROWS]; T]) {
        for (sums, to) in sums.into_iter().zip(to) {
            self.store_f32(sums[0], to, 0);
            self.store_f32(sums[1], to, 8);
        }
    }
}
