//! `smmla`: 2 rows × 8 k with 2 tokens × 8 k; four pairs of rows and two of tokens, eight sums of integers and eight of
//! floats in registers.
//!
//! 2.5 instructions for 32 weights and a token: one is `smmla`, one is what a group costs in conversion and scaling.

use std::arch::aarch64::*;

use super::*;
use crate::quantized::signed;
use crate::simd::integer::I8mm;
use crate::simd::{Neon, Simd};

impl Products for I8mm {
    type Group = Half;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, half: usize, to: &mut Self::Group) {
        let s = self.neon();
        for octet in 0..4 {
            for i in 0..2 {
                let [a, b] = signed::octet::<F>(s, from.integers, octet, half * 2 + i);
                let at = octet * 64 + i * 32;
                s.store_bytes(s.zip_first_quads(a, b), &mut to.integers, at);
                s.store_bytes(s.zip_last_quads(a, b), &mut to.integers, at + 16);
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
            let mut dots = [[s.splat_i32(0); 2]; 4];
            let [a, b, c, d] = walk.x_four_a();
            add_octet(self, &mut dots, walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots, walk.w_four_b(), [c, d]);
            let [a, b, c, d] = walk.x_four_b();
            add_octet(self, &mut dots, walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots, walk.w_four_b(), [c, d]);
            let (sw, sx) = (walk.w_four_floats(), walk.x_floats());
            for ((sums, dots), sw) in sums.iter_mut().zip(dots).zip(sw) {
                for ((sum, dot), sx) in sums.iter_mut().zip(dots).zip(sx) {
                    let scale = s.mul(sw, sx);
                    *sum = s.mul_add(s.to_f32(dot), scale, *sum);
                }
            }
        }
        store(s, sums, out, half);
    }
}

/// `[k / 8][pair of rows][row % 2][k % 8]`, and each scale twice, as the sums of a pair of rows want it.
type Half = HalfGroup<16>;

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, half: usize, to: &mut Half) {
    for (i, scales) in s.load_f16(scales, half * 16).into_iter().enumerate() {
        s.store_f32(s.twice_first(scales), &mut to.scales, i * 8);
        s.store_f32(s.twice_last(scales), &mut to.scales, i * 8 + 4);
    }
}

/// Adds the products of 8 k: four pairs of rows, two of tokens.
#[inline(always)]
fn add_octet(s: I8mm, dots: &mut [[int32x4_t; 2]; 4], w: [int8x16_t; 4], x: [int8x16_t; 2]) {
    for (dots, w) in dots.iter_mut().zip(w) {
        dots[0] = s.smmla(dots[0], w, x[0]);
        dots[1] = s.smmla(dots[1], w, x[1]);
    }
}

/// The sums of half a tile: `[pair of rows][pair of tokens]`, each `[row % 2][token % 2]`.
type HalfSums = [[float32x4_t; 2]; 4];

#[inline(always)]
fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat(0.0); 2]; 4];
    for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let row = half * 8 + 4 * i;
        for t in 0..2 {
            let a = s.load_f32(&sums[2 * t], row);
            let b = s.load_f32(&sums[2 * t + 1], row);
            (out[0][t], out[1][t]) = (s.zip_first(a, b), s.zip_last(a, b));
        }
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (i, [a, b]) in sums.as_chunks().0.iter().enumerate() {
        let row = half * 8 + 4 * i;
        for t in 0..2 {
            s.store_f32(s.even(a[t], b[t]), &mut to[2 * t], row);
            s.store_f32(s.odd(a[t], b[t]), &mut to[2 * t + 1], row);
        }
    }
}
