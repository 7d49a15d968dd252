//! `vpmaddubsw` of 8 rows × 4 k with a quad of activations, added up in 16 bits as long as small integers' products fit. Bytes are
//! widened first, as −128 · −128 in pairs would not fit.

use std::arch::x86_64::*;

use super::activations::{Four, One};
use super::tiles::{Products, Sums, Unpacked};
use crate::quant::{GROUP, Integers, PANEL, TILE_ROWS};
use crate::simd::Avx2;

impl Products for Avx2 {
    #[inline(always)]
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
        if F::GROUPS_IN_16_BITS > 0 {
            small_one::<F>(self, w, x)
        } else {
            bytes_one::<F>(self, w, x)
        }
    }

    /// As they are stored, `[k / 4][row][k % 4]`.
    #[inline(always)]
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked) {
        for octet in 0..GROUP / 8 {
            for half in 0..2 {
                let [a, b] = F::avx2_octet(self, from, octet, half);
                let at = octet * 128 + half * 32;
                self.store_bytes(a, to, at);
                self.store_bytes(b, to, at + 64);
            }
        }
    }

    #[inline(always)]
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums) {
        for half in 0..2 {
            if F::GROUPS_IN_16_BITS > 0 {
                small_four::<F>(self, w, x, half, sums);
            } else {
                bytes_four(self, w, x, half, sums);
            }
        }
    }

    const FEW: usize = 4;

    #[inline(always)]
    fn few<F: Integers>(
        self,
        w: &[F::Tile],
        [x, _]: [&[Four]; 2],
        _: usize,
        sums: &mut [[i32; TILE_ROWS]],
    ) {
        match sums.len() {
            1 => few::<F, 1>(self, w, x, sums),
            2 => few::<F, 2>(self, w, x, sums),
            3 => few::<F, 3>(self, w, x, sums),
            _ => few::<F, 4>(self, w, x, sums),
        }
    }
}

#[inline(always)]
fn small_one<F: Integers>(s: Avx2, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
    let mut dots = [s.splat_i32(0); 2];
    let at_a_time = F::GROUPS_IN_16_BITS;
    for (w, x) in w.chunks(at_a_time).zip(x.chunks(at_a_time)) {
        let mut pairs = [s.splat_i32(0); 2];
        for (w, x) in w.iter().zip(x) {
            for octet in 0..GROUP / 8 {
                let xa = s.broadcast_i8x4(x, 8 * octet);
                let xb = s.broadcast_i8x4(x, 8 * octet + 4);
                for (half, pairs) in pairs.iter_mut().enumerate() {
                    let [a, b] = F::avx2_octet(s, w, octet, half);
                    let products = s.add_i16(s.multiply_u8_i8(a, xa), s.multiply_u8_i8(b, xb));
                    *pairs = s.add_i16(*pairs, products);
                }
            }
        }
        for (dots, pairs) in dots.iter_mut().zip(pairs) {
            *dots = s.add_i32(*dots, s.multiply_i16(pairs, s.splat_i16(1)));
        }
    }
    let mut sums = [0; TILE_ROWS];
    s.store_i32(dots[0], &mut sums, 0);
    s.store_i32(dots[1], &mut sums, 8);
    sums
}

/// Sums of 8 rows, each row's in two lanes: of four rows, and of the other four.
type Pairs = [__m256i; 2];

#[inline(always)]
fn bytes_one<F: Integers>(s: Avx2, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
    let mut pairs = [[s.splat_i32(0); 2]; 2];
    for (w, x) in w.iter().zip(x) {
        for octet in 0..GROUP / 8 {
            let xa = s.widen_bytes(s.broadcast_i8x4(x, 8 * octet))[0];
            let xb = s.widen_bytes(s.broadcast_i8x4(x, 8 * octet + 4))[0];
            for (half, pairs) in pairs.iter_mut().enumerate() {
                let [a, b] = F::avx2_octet(s, w, octet, half);
                add_products(s, pairs, s.widen_bytes(a), xa);
                add_products(s, pairs, s.widen_bytes(b), xb);
            }
        }
    }
    let mut sums = [0; TILE_ROWS];
    add_pairs(s, pairs[0], &mut sums, 0);
    add_pairs(s, pairs[1], &mut sums, 1);
    sums
}

/// Adds the products of a quad of 8 rows.
#[inline(always)]
fn add_products(s: Avx2, pairs: &mut Pairs, w: [__m256i; 2], x: __m256i) {
    for (pairs, w) in pairs.iter_mut().zip(w) {
        *pairs = s.add_i32(*pairs, s.multiply_i16(w, x));
    }
}

/// Adds the sums of half a tile to those of its rows.
#[inline(always)]
fn add_pairs(s: Avx2, pairs: Pairs, to: &mut [i32; TILE_ROWS], half: usize) {
    let mut lanes = [0; TILE_ROWS];
    s.store_i32(pairs[0], &mut lanes, 0);
    s.store_i32(pairs[1], &mut lanes, 8);
    for (to, [a, b]) in to[8 * half..].iter_mut().zip(lanes.as_chunks().0) {
        *to += a + b;
    }
}

#[inline(always)]
fn small_four<F: Integers>(s: Avx2, w: &[Unpacked], x: &[Four], half: usize, sums: &mut Sums) {
    let mut dots = [s.splat_i32(0); PANEL];
    for (dots, sums) in dots.iter_mut().zip(&*sums) {
        *dots = s.load_i32(sums, 8 * half);
    }
    let at_a_time = F::GROUPS_IN_16_BITS;
    for (w, x) in w.chunks(at_a_time).zip(x.chunks(at_a_time)) {
        let mut pairs = [s.splat_i32(0); PANEL];
        for (w, x) in w.iter().zip(x) {
            for quad in 0..GROUP / 4 {
                let w = s.load_bytes(w, quad * 64 + half * 32);
                for (t, pairs) in pairs.iter_mut().enumerate() {
                    let x = s.broadcast_i8x4(x, place(quad, t));
                    *pairs = s.add_i16(*pairs, s.multiply_u8_i8(w, x));
                }
            }
        }
        for (dots, pairs) in dots.iter_mut().zip(pairs) {
            *dots = s.add_i32(*dots, s.multiply_i16(pairs, s.splat_i16(1)));
        }
    }
    for (dots, sums) in dots.into_iter().zip(sums) {
        s.store_i32(dots, sums, 8 * half);
    }
}

#[inline(always)]
fn bytes_four(s: Avx2, w: &[Unpacked], x: &[Four], half: usize, sums: &mut Sums) {
    let mut pairs = [[s.splat_i32(0); 2]; PANEL];
    for (w, x) in w.iter().zip(x) {
        for quad in 0..GROUP / 4 {
            let w = s.widen_bytes(s.load_bytes(w, quad * 64 + half * 32));
            for (t, pairs) in pairs.iter_mut().enumerate() {
                let x = s.widen_bytes(s.broadcast_i8x4(x, place(quad, t)))[0];
                add_products(s, pairs, w, x);
            }
        }
    }
    for (pairs, sums) in pairs.into_iter().zip(sums) {
        add_pairs(s, pairs, sums, half);
    }
}

/// Where a quad of token `token` lies in a panel's group.
#[inline(always)]
pub(super) fn place(quad: usize, token: usize) -> usize {
    quad / 4 * 64 + token * 16 + quad % 4 * 4
}

#[inline(always)]
fn few<F: Integers, const T: usize>(
    s: Avx2,
    w: &[F::Tile],
    x: &[Four],
    sums: &mut [[i32; TILE_ROWS]],
) {
    let Some(sums) = sums.as_mut_array::<T>() else {
        return;
    };
    if F::GROUPS_IN_16_BITS > 0 {
        small_few::<F, T>(s, w, x, sums);
    } else {
        bytes_few::<F, T>(s, w, x, sums);
    }
}

#[inline(always)]
fn small_few<F: Integers, const T: usize>(
    s: Avx2,
    w: &[F::Tile],
    x: &[Four],
    sums: &mut [[i32; TILE_ROWS]; T],
) {
    let mut dots = sums
        .each_ref()
        .map(|sums| [s.load_i32(sums, 0), s.load_i32(sums, 8)]);
    for (w, x) in w.iter().zip(x) {
        for half in 0..2 {
            let mut pairs = [s.splat_i32(0); T];
            for octet in 0..GROUP / 8 {
                for (quad, w) in (2 * octet..).zip(F::avx2_octet(s, w, octet, half)) {
                    for (t, pairs) in pairs.iter_mut().enumerate() {
                        let x = s.broadcast_i8x4(x, place(quad, t));
                        *pairs = s.add_i16(*pairs, s.multiply_u8_i8(w, x));
                    }
                }
            }
            for (dots, pairs) in dots.iter_mut().zip(pairs) {
                dots[half] = s.add_i32(dots[half], s.multiply_i16(pairs, s.splat_i16(1)));
            }
        }
    }
    for (dots, sums) in dots.into_iter().zip(sums) {
        s.store_i32(dots[0], sums, 0);
        s.store_i32(dots[1], sums, 8);
    }
}

#[inline(always)]
fn bytes_few<F: Integers, const T: usize>(
    s: Avx2,
    w: &[F::Tile],
    x: &[Four],
    sums: &mut [[i32; TILE_ROWS]; T],
) {
    for half in 0..2 {
        let mut pairs = [[s.splat_i32(0); 2]; T];
        for (w, x) in w.iter().zip(x) {
            for octet in 0..GROUP / 8 {
                for (quad, w) in (2 * octet..).zip(F::avx2_octet(s, w, octet, half)) {
                    let w = s.widen_bytes(w);
                    for (t, pairs) in pairs.iter_mut().enumerate() {
                        let x = s.widen_bytes(s.broadcast_i8x4(x, place(quad, t)))[0];
                        add_products(s, pairs, w, x);
                    }
                }
            }
        }
        for (pairs, sums) in pairs.into_iter().zip(&mut *sums) {
            add_pairs(s, pairs, sums, half);
        }
    }
}
