//! `sdot` by a broadcast quad of activations: 8 rows × 4 tokens, eight sums of integers and eight of floats in registers.

use std::arch::aarch64::*;

use super::*;

impl Products for Dotprod {
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

/// Nibbles to integers.
#[inline(always)]
pub(super) fn unpack_q4(s: Neon, from: &Q4, to: &mut Unpacked) {
    for step in 0..4 {
        for i in 0..4 {
            let nibbles = s.load(from, step * 64 + i * 16);
            let at = i / 2 * 8 * HALF_QUAD + 2 * step * HALF_QUAD + i % 2 * 16;
            s.store(s.minus_8(s.low_nibbles(nibbles)), to, at);
            s.store(s.minus_8(s.high_nibbles(nibbles)), to, at + HALF_QUAD);
        }
    }
}

/// The two halves apart.
#[inline(always)]
pub(super) fn unpack_q8(s: Neon, from: &Q8, to: &mut Unpacked) {
    for step in 0..8 {
        for i in 0..4 {
            let at = i / 2 * 8 * HALF_QUAD + step * HALF_QUAD + i % 2 * 16;
            s.store(s.load(from, step * 64 + i * 16), to, at);
        }
    }
}

/// The products of one quad (number `$quad`, lane `$lane` of the activations) of 8 rows and 4 tokens.
macro_rules! quad {
    ($s:ident, $dots:ident, $w:ident, $half:ident, $x:expr, $quad:literal, $lane:literal) => {
        for i in 0..2 {
            let w = $s
                .neon()
                .load($w, $half * 8 * HALF_QUAD + $quad * HALF_QUAD + i * 16);
            for (dots, x) in $dots.iter_mut().zip($x) {
                dots[i] = $s.sdot_lane::<$lane>(dots[i], w, x);
            }
        }
    };
}

#[inline(always)]
fn multiply(s: Dotprod, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    for half in 0..2 {
        let mut sums = load(s.neon(), out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let [a, b, c, d] = &x.q;
            let low = [
                s.neon().load_i8(a, 0),
                s.neon().load_i8(b, 0),
                s.neon().load_i8(c, 0),
                s.neon().load_i8(d, 0),
            ];
            let high = [
                s.neon().load_i8(a, 16),
                s.neon().load_i8(b, 16),
                s.neon().load_i8(c, 16),
                s.neon().load_i8(d, 16),
            ];
            let mut dots = [[s.neon().splat_i32(0); 2]; PANEL];
            quad!(s, dots, w, half, low, 0, 0);
            quad!(s, dots, w, half, low, 1, 1);
            quad!(s, dots, w, half, low, 2, 2);
            quad!(s, dots, w, half, low, 3, 3);
            quad!(s, dots, w, half, high, 4, 0);
            quad!(s, dots, w, half, high, 5, 1);
            quad!(s, dots, w, half, high, 6, 2);
            quad!(s, dots, w, half, high, 7, 3);
            add_scaled(s.neon(), &mut sums, dots, sw, half, &x.scale);
        }
        store(s.neon(), sums, out, half);
    }
}

/// The sums of half a tile: `[token][4 rows]`.
pub(super) type HalfSums = [[float32x4_t; 2]; PANEL];

#[inline(always)]
pub(super) fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat_f32(0.0); 2]; PANEL];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = [s.load_f32(sums, half * 8), s.load_f32(sums, half * 8 + 4)];
    }
    out
}

#[inline(always)]
pub(super) fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (sums, to) in sums.into_iter().zip(to) {
        s.store_f32(sums[0], to, half * 8);
        s.store_f32(sums[1], to, half * 8 + 4);
    }
}

/// `sum = fma(dot, s_w · s_x, sum)` of 8 rows and 4 tokens.
#[inline(always)]
pub(super) fn add_scaled(
    s: Neon,
    sums: &mut HalfSums,
    dots: [[int32x4_t; 2]; PANEL],
    sw: &Scales,
    half: usize,
    sx: &[f32; PANEL],
) {
    let sw = [s.load_f32(sw, half * 8), s.load_f32(sw, half * 8 + 4)];
    for ((sums, dots), &sx) in sums.iter_mut().zip(dots).zip(sx) {
        for ((sum, dot), sw) in sums.iter_mut().zip(dots).zip(sw) {
            *sum = s.multiply_add(s.to_f32(dot), s.multiply_by(sw, sx), *sum);
        }
    }
}
