//! `vpdpbusd` of all 16 rows × 4 k with a quad of activations, four tokens at a time. Weights go in unsigned: nibbles as
//! they are, bytes plus 128; the sums begin with −8 Σ x or −128 Σ x instead.

use super::*;

impl Products for Avx512Vnni {
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
        multiply::<1>(self, w, sw, x, sums);
    }

    #[inline(always)]
    fn multiply_q8(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums) {
        multiply::<16>(self, w, sw, x, sums);
    }
}

/// Nibbles to bytes, unsigned: `[k / 4][row][k % 4]`.
#[inline(always)]
fn unpack_q4(s: Avx512Vnni, from: &Q4, to: &mut Unpacked) {
    for step in 0..4 {
        let nibbles = s.load(from, step * 64);
        s.store(s.low_nibbles(nibbles), to, step * 128);
        s.store(s.high_nibbles(nibbles), to, step * 128 + 64);
    }
}

/// The same order, plus 128.
#[inline(always)]
fn unpack_q8(s: Avx512Vnni, from: &Q8, to: &mut Unpacked) {
    for step in 0..8 {
        s.store(s.plus_128(s.load(from, step * 64)), to, step * 64);
    }
}

/// `OFFSETS` times −8 Σ x undoes the weights' offset.
#[inline(always)]
fn multiply<const OFFSETS: i32>(
    s: Avx512Vnni,
    w: &[Unpacked],
    sw: &[Scales],
    x: &[X],
    out: &mut Sums,
) {
    let mut sums = [s.splat_f32(0.0); PANEL];
    for (sum, from) in sums.iter_mut().zip(&*out) {
        *sum = s.load_f32(from);
    }
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let mut dots = [s.splat_i32(0); PANEL];
        for (dot, offset) in dots.iter_mut().zip(x.offset) {
            *dot = s.splat_i32(OFFSETS * offset);
        }
        for quad in 0..8 {
            let w = s.load(w, quad * 64);
            for (dot, x) in dots.iter_mut().zip(&x.q) {
                *dot = s.dot_u8_i8(*dot, w, s.broadcast_i8x4(x, 4 * quad));
            }
        }
        let sw = s.load_f32(sw);
        for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
            let scale = s.multiply(sw, s.splat_f32(x.scale[t]));
            *sum = s.multiply_add(s.to_f32(dot), scale, *sum);
        }
    }
    for (sum, to) in sums.into_iter().zip(out) {
        s.store_f32(sum, to);
    }
}
