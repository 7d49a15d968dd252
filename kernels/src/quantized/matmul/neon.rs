//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations. 4-bit products (8 · 127) of the whole group fit
//! 16-bit sums, 8-bit ones (127 · 127) only in pairs.

use std::arch::aarch64::*;

use super::dotprod::{add_scaled, load, store, unpack_q4, unpack_q8};
use super::*;

impl Products for Neon {
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

/// The quads of one token's activations, each in all lanes of a register.
#[inline(always)]
fn quads(s: Neon, x: &[i8; GROUP]) -> [int8x16_t; 8] {
    let x = [s.load_i8(x, 0), s.load_i8(x, 16)];
    [
        s.broadcast_quad::<0>(x[0]),
        s.broadcast_quad::<1>(x[0]),
        s.broadcast_quad::<2>(x[0]),
        s.broadcast_quad::<3>(x[0]),
        s.broadcast_quad::<0>(x[1]),
        s.broadcast_quad::<1>(x[1]),
        s.broadcast_quad::<2>(x[1]),
        s.broadcast_quad::<3>(x[1]),
    ]
}

/// The weights of 4 rows (`i` of 2) and quad `quad` of half a tile.
#[inline(always)]
fn weights(s: Neon, w: &Unpacked, half: usize, quad: usize, i: usize) -> int8x16_t {
    s.load(w, half * 8 * HALF_QUAD + quad * HALF_QUAD + i * 16)
}

#[inline(always)]
fn multiply_q4(s: Neon, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    for half in 0..2 {
        let mut sums = load(s, out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let mut dots = [[s.splat_i32(0); 2]; PANEL];
            for (dots, x) in dots.iter_mut().zip(&x.q) {
                let x = quads(s, x);
                for (i, dot) in dots.iter_mut().enumerate() {
                    let mut halves = [s.splat_i16(0); 2];
                    for (quad, &x) in x.iter().enumerate() {
                        let w = weights(s, w, half, quad, i);
                        halves[0] = s.multiply_add_first(halves[0], w, x);
                        halves[1] = s.multiply_add_last(halves[1], w, x);
                    }
                    *dot = s.widen_neighbours(s.add_neighbours_i16(halves[0], halves[1]));
                }
            }
            add_scaled(s, &mut sums, dots, sw, half, &x.scale);
        }
        store(s, sums, out, half);
    }
}

#[inline(always)]
fn multiply_q8(s: Neon, w: &[Unpacked], sw: &[Scales], x: &[X], out: &mut Sums) {
    for half in 0..2 {
        let mut sums = load(s, out, half);
        for ((w, sw), x) in w.iter().zip(sw).zip(x) {
            let mut dots = [[s.splat_i32(0); 2]; PANEL];
            for (dots, x) in dots.iter_mut().zip(&x.q) {
                let x = quads(s, x);
                for (i, dot) in dots.iter_mut().enumerate() {
                    let mut halves = [s.splat_i32(0); 2];
                    for pair in 0..4 {
                        let (xa, xb) = (x[2 * pair], x[2 * pair + 1]);
                        let a = weights(s, w, half, 2 * pair, i);
                        let b = weights(s, w, half, 2 * pair + 1, i);
                        let first = s.multiply_add_first(s.multiply_first(a, xa), b, xb);
                        let last = s.multiply_add_last(s.multiply_last(a, xa), b, xb);
                        halves[0] = s.add_widened_neighbours(halves[0], first);
                        halves[1] = s.add_widened_neighbours(halves[1], last);
                    }
                    *dot = s.add_neighbours_i32(halves[0], halves[1]);
                }
            }
            add_scaled(s, &mut sums, dots, sw, half, &x.scale);
        }
        store(s, sums, out, half);
    }
}
