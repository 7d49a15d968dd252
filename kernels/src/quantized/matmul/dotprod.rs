//! `sdot` by a broadcast quad of activations: 8 rows × 4 tokens, eight sums of integers and eight of floats in registers.
//!
//! 3.4 instructions for 32 weights and a token: two are `sdot`, one is what a group costs in conversion and scaling.

use std::arch::aarch64::*;

use super::*;
use crate::quantized::signed;
use crate::simd::integer::Dotprod;
use crate::simd::{Neon, Simd};

/// The products of two quads of 8 rows, 64 bytes of weights, with lanes `$lane` and `$next` of `$x`, of 4 tokens.
macro_rules! quads {
    ($s:ident, $dots:ident, $w:expr, $x:expr, $lane:literal, $next:literal) => {
        let [a0, a1, b0, b1] = $w;
        for (dots, x) in $dots.iter_mut().zip($x) {
            dots[0] = $s.sdot_lane::<$lane>(dots[0], a0, x);
            dots[1] = $s.sdot_lane::<$lane>(dots[1], a1, x);
        }
        for (dots, x) in $dots.iter_mut().zip($x) {
            dots[0] = $s.sdot_lane::<$next>(dots[0], b0, x);
            dots[1] = $s.sdot_lane::<$next>(dots[1], b1, x);
        }
    };
}

impl Products for Dotprod {
    type Group = HalfGroup<8>;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, half: usize, to: &mut Self::Group) {
        let s = self.neon();
        for octet in 0..4 {
            for i in 0..2 {
                let [a, b] = signed::octet::<F>(s, from.integers, octet, half * 2 + i);
                let at = octet * 64 + i * 16;
                s.store_bytes(a, &mut to.integers, at);
                s.store_bytes(b, &mut to.integers, at + 32);
            }
        }
        unpack_scales(s, from.scales, half, to);
    }

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], half: usize, out: &mut Sums) {
        let s = self.neon();
        let mut sums = load(s, out, half);
        let mut walk = s.walk(w, x);
        while walk.next() {
            let ([a0, a1, b0, b1], [c0, c1, d0, d1]) = (walk.x_four_a(), walk.x_four_b());
            let (first, second) = ([a0, b0, c0, d0], [a1, b1, c1, d1]);
            let mut dots = [[s.splat_i32(0); 2]; PANEL];
            quads!(self, dots, walk.w_four_a(), first, 0, 1);
            quads!(self, dots, walk.w_four_b(), first, 2, 3);
            quads!(self, dots, walk.w_four_a(), second, 0, 1);
            quads!(self, dots, walk.w_four_b(), second, 2, 3);
            let (sw, sx) = (walk.w_floats(), walk.x_floats_and_skip());
            add_scaled(s, &mut sums, dots, sw, sx);
        }
        store(s, sums, out, half);
    }
}

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, half: usize, to: &mut HalfGroup<8>) {
    let [a, b] = s.load_f16(scales, half * 16);
    s.store_f32(a, &mut to.scales, 0);
    s.store_f32(b, &mut to.scales, 4);
}

/// The sums of half a tile: `[token][4 rows]`.
type HalfSums = [[float32x4_t; 2]; PANEL];

#[inline(always)]
fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat(0.0); 2]; PANEL];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = [s.load_f32(sums, half * 8), s.load_f32(sums, half * 8 + 4)];
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (sums, to) in sums.into_iter().zip(to) {
        s.store_f32(sums[0], to, half * 8);
        s.store_f32(sums[1], to, half * 8 + 4);
    }
}

/// `sum = fma(dot, s_w · s_x, sum)` of 8 rows and 4 tokens.
#[inline(always)]
fn add_scaled(
    s: Neon,
    sums: &mut HalfSums,
    dots: [[int32x4_t; 2]; PANEL],
    sw: [float32x4_t; 2],
    sx: float32x4_t,
) {
    for (i, sw) in sw.into_iter().enumerate() {
        let scales = [
            s.multiply_lane::<0>(sw, sx),
            s.multiply_lane::<1>(sw, sx),
            s.multiply_lane::<2>(sw, sx),
            s.multiply_lane::<3>(sw, sx),
        ];
        for ((sums, dots), scale) in sums.iter_mut().zip(&dots).zip(scales) {
            sums[i] = s.mul_add(s.to_f32(dots[i]), scale, sums[i]);
        }
    }
}
