//! `smmla`: 2 rows × 8 k with 2 tokens × 8 k; four pairs of rows and two of tokens, eight sums of integers and eight of
//! floats in registers.

use std::arch::aarch64::*;

use super::*;

impl Products for I8mm {
    #[inline(always)]
    fn unpack_q4(self, from: &Q4, to: &mut Unpacked) {
        unpack_q4(self.neon(), from, to);
    }

    #[inline(always)]
    fn unpack_q8(self, from: &Q8, to: &mut Unpacked) {
        unpack_q8(self.neon(), from, to);
    }

    #[inline(always)]
    fn multiply_q4(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums) {
        multiply(self, w, sw, x, sums);
    }

    #[inline(always)]
    fn multiply_q8(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums) {
        multiply(self, w, sw, x, sums);
    }
}

/// Bytes of half a tile's octets of one k: four pairs of rows × 8.
const HALF_OCTET: usize = 64;

/// Writes the pairs of rows `2 i` and `2 i + 1` of octet `octet`, from two quads of 4 rows.
#[inline(always)]
fn store_octet(s: Neon, to: &mut Unpacked, octet: usize, i: usize, quads: [int8x16_t; 2]) {
    let [a, b] = quads;
    let at = i / 2 * 4 * HALF_OCTET + octet * HALF_OCTET + i % 2 * 32;
    s.store(s.zip_first_quads(a, b), to, at);
    s.store(s.zip_last_quads(a, b), to, at + 16);
}

/// Nibbles to integers, `[half][k / 8][pair][row % 2][k % 8]`.
#[inline(always)]
fn unpack_q4(s: Neon, from: &Q4, to: &mut Unpacked) {
    for octet in 0..4 {
        for i in 0..4 {
            let nibbles = s.load(from, octet * 64 + i * 16);
            let low = s.minus_8(s.low_nibbles(nibbles));
            let high = s.minus_8(s.high_nibbles(nibbles));
            store_octet(s, to, octet, i, [low, high]);
        }
    }
}

/// As [`unpack_q4`].
#[inline(always)]
fn unpack_q8(s: Neon, from: &Q8, to: &mut Unpacked) {
    for octet in 0..4 {
        for i in 0..4 {
            let a = s.load(from, octet * 128 + i * 16);
            let b = s.load(from, octet * 128 + 64 + i * 16);
            store_octet(s, to, octet, i, [a, b]);
        }
    }
}

#[inline(always)]
fn multiply(s: I8mm, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    for half in 0..2 {
        let mut sums = load(s.neon(), out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let mut dots = [[s.neon().splat_i32(0); 2]; 4];
            for (octet, x) in x.q.iter().enumerate() {
                let x = [s.neon().load_i8(x, 0), s.neon().load_i8(x, 16)];
                for (pair, dots) in dots.iter_mut().enumerate() {
                    let at = half * 4 * HALF_OCTET + octet * HALF_OCTET + pair * 16;
                    let w = s.neon().load(w, at);
                    dots[0] = s.smmla(dots[0], w, x[0]);
                    dots[1] = s.smmla(dots[1], w, x[1]);
                }
            }
            let sx = s.neon().load_f32(&x.scale, 0);
            let sx = [
                s.neon().broadcast_pair::<0>(sx),
                s.neon().broadcast_pair::<1>(sx),
            ];
            let sw = [
                s.neon().load_f32(sw, half * 8),
                s.neon().load_f32(sw, half * 8 + 4),
            ];
            for (pair, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                let sw = sw[pair / 2];
                let sw = if pair % 2 == 0 {
                    s.neon().twice_first(sw)
                } else {
                    s.neon().twice_last(sw)
                };
                for ((sum, dot), sx) in sums.iter_mut().zip(dots).zip(sx) {
                    let scale = s.neon().multiply(sw, sx);
                    *sum = s.neon().multiply_add(s.neon().to_f32(dot), scale, *sum);
                }
            }
        }
        store(s.neon(), sums, out, half);
    }
}

/// The sums of half a tile: `[pair of rows][pair of tokens]`, each `[row % 2][token % 2]`.
type HalfSums = [[float32x4_t; 2]; 4];

#[inline(always)]
fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat_f32(0.0); 2]; 4];
    for (pair, out) in out.iter_mut().enumerate() {
        let row = half * 8 + 2 * pair;
        for (out, t) in out.iter_mut().zip([0, 2]) {
            let [a, b] = [&sums[t], &sums[t + 1]];
            *out = s.load_f32(&[a[row], b[row], a[row + 1], b[row + 1]], 0);
        }
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (pair, sums) in sums.into_iter().enumerate() {
        let row = half * 8 + 2 * pair;
        for (t, sum) in [0, 2].into_iter().zip(sums) {
            let mut lanes = [0.0; 4];
            s.store_f32(sum, &mut lanes, 0);
            [
                to[t][row],
                to[t + 1][row],
                to[t][row + 1],
                to[t + 1][row + 1],
            ] = lanes;
        }
    }
}
