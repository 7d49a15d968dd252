//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations, four tokens at a time. 4-bit products (15 · 127) of the whole
//! group fit 16-bit sums; 8-bit ones (127 · 127) only in pairs, and the weights hand their signs to the activations.

use std::arch::x86_64::*;

use super::*;

impl Products for Avx2 {
    #[inline(always)]
    fn unpack_q4(self, from: &Q4, to: &mut Unpacked) {
        unpack_q4(self, from, to);
    }

    #[inline(always)]
    fn unpack_q8(self, from: &Q8, to: &mut Unpacked) {
        unpack_q8(self, from, to);
    }

    #[inline(always)]
    fn multiply_q4(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums) {
        multiply_q4(self, w, sw, x, sums);
    }

    #[inline(always)]
    fn multiply_q8(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums) {
        multiply_q8(self, w, sw, x, sums);
    }
}

/// Nibbles to bytes, unsigned.
#[inline(always)]
fn unpack_q4(s: Avx2, from: &Q4, to: &mut Unpacked) {
    for step in 0..4 {
        for half in 0..2 {
            let nibbles = s.load(from, step * 64 + half * 32);
            let at = half * 8 * HALF_QUAD + 2 * step * HALF_QUAD;
            s.store(s.low_nibbles(nibbles), to, at);
            s.store(s.high_nibbles(nibbles), to, at + HALF_QUAD);
        }
    }
}

/// The two halves apart.
#[inline(always)]
fn unpack_q8(s: Avx2, from: &Q8, to: &mut Unpacked) {
    for step in 0..8 {
        for half in 0..2 {
            let at = half * 8 * HALF_QUAD + step * HALF_QUAD;
            s.store(s.load(from, step * 64 + half * 32), to, at);
        }
    }
}

#[inline(always)]
fn multiply_q4(s: Avx2, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    let ones = s.splat_i16(1);
    for half in 0..2 {
        let mut sums = load(s, out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let mut pairs = [s.splat_i32(0); PANEL];
            for quad in 0..8 {
                let w = s.load(w, half * 8 * HALF_QUAD + quad * HALF_QUAD);
                for (pairs, x) in pairs.iter_mut().zip(&x.q) {
                    let products = s.multiply_u8_i8(w, s.broadcast_i8x4(x, 4 * quad));
                    *pairs = s.add_i16(*pairs, products);
                }
            }
            let sw = s.load_f32(sw, half * 8);
            for (t, (sum, pairs)) in sums.iter_mut().zip(pairs).enumerate() {
                let dot = s.add_i32(s.multiply_i16(pairs, ones), s.splat_i32(x.offset[t]));
                let scale = s.multiply(sw, s.splat_f32(x.scale[t]));
                *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
            }
        }
        store(s, sums, out, half);
    }
}

#[inline(always)]
fn multiply_q8(s: Avx2, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    let ones = s.splat_i16(1);
    for half in 0..2 {
        let mut sums = load(s, out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let mut dots = [s.splat_i32(0); PANEL];
            for quad in 0..8 {
                let w = s.load(w, half * 8 * HALF_QUAD + quad * HALF_QUAD);
                let magnitude = s.abs_i8(w);
                for (dot, x) in dots.iter_mut().zip(&x.q) {
                    let x = s.with_sign_i8(s.broadcast_i8x4(x, 4 * quad), w);
                    let pairs = s.multiply_u8_i8(magnitude, x);
                    *dot = s.add_i32(*dot, s.multiply_i16(pairs, ones));
                }
            }
            let sw = s.load_f32(sw, half * 8);
            for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                let scale = s.multiply(sw, s.splat_f32(x.scale[t]));
                *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
            }
        }
        store(s, sums, out, half);
    }
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
