//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations, four tokens at a time. 4-bit products (15 · 127) of the whole
//! group fit 16-bit sums; 8-bit ones (127 · 127) only in pairs, and the weights hand their signs to the activations.
//!
//! 105 GMAC/s with 4 bit, 76 with 8, 32 tokens (`gemmad bench kernels`, two threads of a shared PC).

use std::arch::x86_64::*;

use super::*;

impl Products for Avx2 {
    type Group = HalfGroup<8>;
    const EMPTY: Self::Group = HalfGroup::EMPTY;
    const PARTS: usize = 2;

    #[inline(always)]
    fn unpack_q4(self, from: &Q4, scales: &Scales, part: usize, to: &mut Self::Group) {
        unpack_q4(self, from, scales, part, to);
    }

    #[inline(always)]
    fn unpack_q8(self, from: &Q8, scales: &Scales, part: usize, to: &mut Self::Group) {
        unpack_q8(self, from, scales, part, to);
    }

    #[inline(always)]
    fn multiply_q4(self, w: &[Self::Group], x: &[X], part: usize, sums: &mut Sums) {
        multiply_q4(self, w, x, part, sums);
    }

    #[inline(always)]
    fn multiply_q8(self, w: &[Self::Group], x: &[X], part: usize, sums: &mut Sums) {
        multiply_q8(self, w, x, part, sums);
    }
}

/// Nibbles to bytes, unsigned.
#[inline(always)]
fn unpack_q4(s: Avx2, from: &Q4, scales: &Scales, half: usize, to: &mut HalfGroup<8>) {
    for step in 0..4 {
        let nibbles = s.load(from, step * 64 + half * 32);
        s.store(s.low_nibbles(nibbles), &mut to.integers, step * 64);
        s.store(s.high_nibbles(nibbles), &mut to.integers, step * 64 + 32);
    }
    s.store_f32(s.load_f16(scales, half * 16), &mut to.scales, 0);
}

#[inline(always)]
fn unpack_q8(s: Avx2, from: &Q8, scales: &Scales, half: usize, to: &mut HalfGroup<8>) {
    for step in 0..8 {
        let w = s.load(from, step * 64 + half * 32);
        s.store(w, &mut to.integers, step * 32);
    }
    s.store_f32(s.load_f16(scales, half * 16), &mut to.scales, 0);
}

#[inline(always)]
fn multiply_q4(s: Avx2, w: &[HalfGroup<8>], x: &[X], half: usize, out: &mut Sums) {
    let ones = s.splat_i16(1);
    let mut sums = load(s, out, half);
    for (w, x) in w.iter().zip(x) {
        let (w, sw) = (&w.integers, &w.scales);
        let mut pairs = [s.splat_i32(0); PANEL];
        for quad in 0..8 {
            let w = s.load(w, quad * 32);
            for (pairs, x) in pairs.iter_mut().zip(&x.q) {
                let products = s.multiply_u8_i8(w, s.broadcast_i8x4(x, 4 * quad));
                *pairs = s.add_i16(*pairs, products);
            }
        }
        let sw = s.load_f32(sw, 0);
        for (t, (sum, pairs)) in sums.iter_mut().zip(pairs).enumerate() {
            let dot = s.add_i32(s.multiply_i16(pairs, ones), s.splat_i32(x.offset[t]));
            let scale = s.multiply(sw, s.splat_f32(x.scale[t]));
            *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
        }
    }
    store(s, sums, out, half);
}

#[inline(always)]
fn multiply_q8(s: Avx2, w: &[HalfGroup<8>], x: &[X], half: usize, out: &mut Sums) {
    let ones = s.splat_i16(1);
    let mut sums = load(s, out, half);
    for (w, x) in w.iter().zip(x) {
        let (w, sw) = (&w.integers, &w.scales);
        let mut dots = [s.splat_i32(0); PANEL];
        for quad in 0..8 {
            let w = s.load(w, quad * 32);
            let magnitude = s.abs_i8(w);
            for (dot, x) in dots.iter_mut().zip(&x.q) {
                let x = s.with_sign_i8(s.broadcast_i8x4(x, 4 * quad), w);
                let pairs = s.multiply_u8_i8(magnitude, x);
                *dot = s.add_i32(*dot, s.multiply_i16(pairs, ones));
            }
        }
        let sw = s.load_f32(sw, 0);
        for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
            let scale = s.multiply(sw, s.splat_f32(x.scale[t]));
            *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
        }
    }
    store(s, sums, out, half);
}

#[inline(always)]
fn load(s: Avx2, sums: &Sums, half: usize) -> [__m256; PANEL] {
    let mut out = [s.splat_f32(0.0); PANEL];
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
