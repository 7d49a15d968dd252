//! `smmla`: 2 rows × 8 k with 2 tokens × 8 k; four pairs of rows and two of tokens, eight sums of integers and eight of
//! floats in registers.
//!
//! 2.5 instructions for 32 weights and a token: one is `smmla`, one is what a group costs in conversion and scaling.

use std::arch::aarch64::*;

use super::*;

impl Products for I8mm {
    type Group = Half;
    const EMPTY: Self::Group = HalfGroup::EMPTY;
    const PARTS: usize = 2;

    #[inline(always)]
    fn unpack_q4(self, from: &Q4, scales: &Scales, part: usize, to: &mut Self::Group) {
        unpack_q4(self.neon(), from, scales, part, to);
    }

    #[inline(always)]
    fn unpack_q8(self, from: &Q8, scales: &Scales, part: usize, to: &mut Self::Group) {
        unpack_q8(self.neon(), from, scales, part, to);
    }

    #[inline(always)]
    fn multiply_q4(self, w: &[Self::Group], x: &[X], part: usize, sums: &mut Sums) {
        multiply(self, w, x, part, sums);
    }

    #[inline(always)]
    fn multiply_q8(self, w: &[Self::Group], x: &[X], part: usize, sums: &mut Sums) {
        multiply(self, w, x, part, sums);
    }
}

/// `[k / 8][pair of rows][row % 2][k % 8]`, and each scale twice, as the sums of a pair of rows want it.
type Half = HalfGroup<16>;

/// Nibbles to integers.
#[inline(always)]
fn unpack_q4(s: Neon, from: &Q4, scales: &Scales, half: usize, to: &mut Half) {
    for octet in 0..4 {
        for i in 0..2 {
            let nibbles = s.load(from, octet * 64 + half * 32 + i * 16);
            let low = s.minus_8(s.low_nibbles(nibbles));
            store_octet(s, to, octet, i, low, s.minus_8(s.high_nibbles(nibbles)));
        }
    }
    unpack_scales(s, scales, half, to);
}

#[inline(always)]
fn unpack_q8(s: Neon, from: &Q8, scales: &Scales, half: usize, to: &mut Half) {
    for octet in 0..4 {
        for i in 0..2 {
            let at = octet * 128 + half * 32 + i * 16;
            store_octet(s, to, octet, i, s.load(from, at), s.load(from, at + 64));
        }
    }
    unpack_scales(s, scales, half, to);
}

/// Writes the pairs of rows `2 i` and `2 i + 1` of octet `octet`, from two quads of 4 rows.
#[inline(always)]
fn store_octet(s: Neon, to: &mut Half, octet: usize, i: usize, a: int8x16_t, b: int8x16_t) {
    let at = octet * 64 + i * 32;
    s.store(s.zip_first_quads(a, b), &mut to.integers, at);
    s.store(s.zip_last_quads(a, b), &mut to.integers, at + 16);
}

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, half: usize, to: &mut Half) {
    for (i, scales) in s.load_f16(scales, half * 16).into_iter().enumerate() {
        s.store_f32(s.twice_first(scales), &mut to.scales, i * 8);
        s.store_f32(s.twice_last(scales), &mut to.scales, i * 8 + 4);
    }
}

#[inline(always)]
fn multiply(s: I8mm, w: &[Half], x: &[X], half: usize, out: &mut Sums) {
    let mut sums = load(s.neon(), out, half);
    let mut walk = s.neon().walk(w, x);
    while walk.next() {
        let mut dots = [[s.neon().splat_i32(0); 2]; 4];
        let [a, b, c, d] = walk.x_four_a();
        add_octet(s, &mut dots, walk.w_four_a(), [a, b]);
        add_octet(s, &mut dots, walk.w_four_b(), [c, d]);
        let [a, b, c, d] = walk.x_four_b();
        add_octet(s, &mut dots, walk.w_four_a(), [a, b]);
        add_octet(s, &mut dots, walk.w_four_b(), [c, d]);
        let (sw, sx) = (walk.w_four_floats(), walk.x_floats());
        for ((sums, dots), sw) in sums.iter_mut().zip(dots).zip(sw) {
            for ((sum, dot), sx) in sums.iter_mut().zip(dots).zip(sx) {
                let scale = s.neon().multiply(sw, sx);
                *sum = s.neon().multiply_add(s.neon().to_f32(dot), scale, *sum);
            }
        }
    }
    store(s.neon(), sums, out, half);
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
    let mut out = [[s.splat_f32(0.0); 2]; 4];
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
