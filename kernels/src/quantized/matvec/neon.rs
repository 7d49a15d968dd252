//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations, eight of them for the 16 rows of a tile.
//! 4-bit products (15 · 127) of the whole group fit 16-bit sums, 8-bit ones (127 · 127) only in pairs.

use std::arch::aarch64::*;

use super::dotprod::{add_scaled, rows};
use super::*;

/// The quads of the activations, each in all lanes of a register.
#[inline(always)]
fn quads(s: Neon, x: &X) -> [int8x16_t; 8] {
    let x = [s.load_i8(&x.q[0], 0), s.load_i8(&x.q[0], 16)];
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

impl TileSums for Neon {
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
fn q4(s: Neon, w: &[Q4], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.splat_f32(0.0); 4];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let xs = quads(s, x);
        let mut dots = [s.splat_i32(0); 4];
        for (i, dot) in dots.iter_mut().enumerate() {
            // Two registers of 2 rows × 4 k.
            let mut halves = [s.splat_i16(0); 2];
            for step in 0..4 {
                let nibbles = s.load(w, step * 64 + i * 16);
                let a = s.low_nibbles(nibbles);
                let b = s.high_nibbles(nibbles);
                let (xa, xb) = (xs[2 * step], xs[2 * step + 1]);
                halves[0] = s.multiply_add_first(halves[0], a, xa);
                halves[1] = s.multiply_add_last(halves[1], a, xa);
                halves[0] = s.multiply_add_first(halves[0], b, xb);
                halves[1] = s.multiply_add_last(halves[1], b, xb);
            }
            let pairs = s.add_neighbours_i16(halves[0], halves[1]);
            *dot = s.add_widened_neighbours(s.splat_i32(x.offset[0]), pairs);
        }
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}

#[inline(always)]
fn q8(s: Neon, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.splat_f32(0.0); 4];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let xs = quads(s, x);
        let mut dots = [s.splat_i32(0); 4];
        for (i, dot) in dots.iter_mut().enumerate() {
            let mut halves = [s.splat_i32(0); 2];
            for pair in 0..4 {
                let a = s.load(w, pair * 128 + i * 16);
                let b = s.load(w, pair * 128 + 64 + i * 16);
                let (xa, xb) = (xs[2 * pair], xs[2 * pair + 1]);
                let low = s.multiply_first(a, xa);
                let low = s.multiply_add_first(low, b, xb);
                let high = s.multiply_add_last(s.multiply_last(a, xa), b, xb);
                halves[0] = s.add_widened_neighbours(halves[0], low);
                halves[1] = s.add_widened_neighbours(halves[1], high);
            }
            *dot = s.add_neighbours_i32(halves[0], halves[1]);
        }
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}
