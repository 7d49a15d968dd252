//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations, eight of them for the 16 rows of a tile.
//! 4-bit products (15 · 127) of the whole group fit 16-bit sums, 8-bit ones (127 · 127) only in pairs.
//!
//! 9.5 instructions for 32 weights of 4 or 8 bit.

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
        let (q, offset) = (quads(s, x), s.splat_i32(x.offset[0]));
        let dots = [
            q4_rows::<0>(s, w, q, offset),
            q4_rows::<1>(s, w, q, offset),
            q4_rows::<2>(s, w, q, offset),
            q4_rows::<3>(s, w, q, offset),
        ];
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}

/// The dots of rows `4 I` on. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn q4_rows<const I: usize>(s: Neon, w: &Q4, x: [int8x16_t; 8], offset: int32x4_t) -> int32x4_t {
    let nibbles = s.load(w, I * 16);
    let (a, b) = (s.low_nibbles(nibbles), s.high_nibbles(nibbles));
    let first = s.multiply_add_first(s.multiply_first(a, x[0]), b, x[1]);
    let last = s.multiply_add_last(s.multiply_last(a, x[0]), b, x[1]);
    let (first, last) = q4_step::<1>(s, s.load(w, 64 + I * 16), x, first, last);
    let (first, last) = q4_step::<2>(s, s.load(w, 128 + I * 16), x, first, last);
    let (first, last) = q4_step::<3>(s, s.load(w, 192 + I * 16), x, first, last);
    s.add_widened_neighbours(offset, s.add_neighbours_i16(first, last))
}

/// Adds the products of the two quads of step `STEP`.
#[inline(always)]
fn q4_step<const STEP: usize>(
    s: Neon,
    nibbles: int8x16_t,
    x: [int8x16_t; 8],
    first: int16x8_t,
    last: int16x8_t,
) -> (int16x8_t, int16x8_t) {
    let (a, b) = (s.low_nibbles(nibbles), s.high_nibbles(nibbles));
    let (xa, xb) = (x[2 * STEP], x[2 * STEP + 1]);
    let first = s.multiply_add_first(s.multiply_add_first(first, a, xa), b, xb);
    let last = s.multiply_add_last(s.multiply_add_last(last, a, xa), b, xb);
    (first, last)
}

#[inline(always)]
fn q8(s: Neon, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.splat_f32(0.0); 4];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let q = quads(s, x);
        let dots = [
            q8_rows::<0>(s, w, q),
            q8_rows::<1>(s, w, q),
            q8_rows::<2>(s, w, q),
            q8_rows::<3>(s, w, q),
        ];
        add_scaled(s, &mut sums, dots, sw, x.scale[0]);
    }
    rows(s, sums)
}

/// The dots of rows `4 I` on.
#[inline(always)]
fn q8_rows<const I: usize>(s: Neon, w: &Q8, x: [int8x16_t; 8]) -> int32x4_t {
    let (first, last) = q8_pair::<I, 0>(s, w, x);
    let (first, last) = (s.widen_neighbours(first), s.widen_neighbours(last));
    let (first, last) = q8_add::<I, 1>(s, w, x, first, last);
    let (first, last) = q8_add::<I, 2>(s, w, x, first, last);
    let (first, last) = q8_add::<I, 3>(s, w, x, first, last);
    s.add_neighbours_i32(first, last)
}

#[inline(always)]
fn q8_add<const I: usize, const PAIR: usize>(
    s: Neon,
    w: &Q8,
    x: [int8x16_t; 8],
    first: int32x4_t,
    last: int32x4_t,
) -> (int32x4_t, int32x4_t) {
    let (a, b) = q8_pair::<I, PAIR>(s, w, x);
    (
        s.add_widened_neighbours(first, a),
        s.add_widened_neighbours(last, b),
    )
}

/// The products of quads `2 PAIR` and `2 PAIR + 1`, of two rows and of the next two.
#[inline(always)]
fn q8_pair<const I: usize, const PAIR: usize>(
    s: Neon,
    w: &Q8,
    x: [int8x16_t; 8],
) -> (int16x8_t, int16x8_t) {
    let a = s.load(w, PAIR * 128 + I * 16);
    let b = s.load(w, PAIR * 128 + 64 + I * 16);
    let (xa, xb) = (x[2 * PAIR], x[2 * PAIR + 1]);
    let first = s.multiply_add_first(s.multiply_first(a, xa), b, xb);
    let last = s.multiply_add_last(s.multiply_last(a, xa), b, xb);
    (first, last)
}
