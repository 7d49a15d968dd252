//! `sdot` by a quad of activations. For one token crumbs stay where they lie in their bytes, times 4 or 16, with sums of their own: then
//! unpacking takes one instruction a quad. Several tokens go four at a time, with 16 sums in registers.

use std::arch::aarch64::*;

use super::activations::{Four, One};
use super::neon::{load, store, unpack};
use super::tiles::{Products, Sums, Unpacked, unshifted};
use crate::quant::{Integers, PANEL, TILE_ROWS};
use crate::simd::integer::Dotprod;

impl Products for Dotprod {
    #[inline(always)]
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
        let s = self.neon();
        let mut dots = [[s.splat_i32(0); 4]; 4];
        for (w, x) in w.iter().zip(x) {
            let (first, last) = (s.load_i8(x, 0), s.load_i8(x, 16));
            add_octet::<F, 0, 1>(self, &mut dots, w, 0, first);
            add_octet::<F, 2, 3>(self, &mut dots, w, 1, first);
            add_octet::<F, 0, 1>(self, &mut dots, w, 2, last);
            add_octet::<F, 2, 3>(self, &mut dots, w, 3, last);
        }
        let mut by_quad = [[0; TILE_ROWS]; 4];
        for (dots, to) in dots.into_iter().zip(&mut by_quad) {
            store(s, dots, to);
        }
        unshifted::<F>(by_quad)
    }

    #[inline(always)]
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked) {
        unpack::<F>(self.neon(), from, to);
    }

    #[inline(always)]
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums) {
        let s = self.neon();
        let mut dots = [[s.splat_i32(0); 4]; PANEL];
        for (dots, sums) in dots.iter_mut().zip(&*sums) {
            *dots = load(s, sums);
        }
        let mut walk = s.walk(w, x);
        while walk.next() {
            let x = walk.x_four_a();
            add_quad::<0>(self, &mut dots, walk.w_four_a(), x);
            add_quad::<1>(self, &mut dots, walk.w_four_b(), x);
            add_quad::<2>(self, &mut dots, walk.w_four_a(), x);
            add_quad::<3>(self, &mut dots, walk.w_four_b(), x);
            let x = walk.x_four_b();
            add_quad::<0>(self, &mut dots, walk.w_four_a(), x);
            add_quad::<1>(self, &mut dots, walk.w_four_b(), x);
            add_quad::<2>(self, &mut dots, walk.w_four_a(), x);
            add_quad::<3>(self, &mut dots, walk.w_four_b(), x);
        }
        for (dots, sums) in dots.into_iter().zip(sums) {
            store(s, dots, sums);
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
fn few<F: Integers, const T: usize>(
    s: Dotprod,
    w: &[F::Tile],
    x: &[Four],
    sums: &mut [[i32; TILE_ROWS]],
) {
    let Some(sums) = sums.as_mut_array::<T>() else {
        return;
    };
    let mut dots = sums.each_ref().map(|sums| load(s.neon(), sums));
    for (w, x) in w.iter().zip(x) {
        let first = std::array::from_fn(|t| s.neon().load_i8(x, 16 * t));
        add_few::<F, T, 0, 1>(s, &mut dots, w, 0, first);
        add_few::<F, T, 2, 3>(s, &mut dots, w, 1, first);
        let last = std::array::from_fn(|t| s.neon().load_i8(x, 64 + 16 * t));
        add_few::<F, T, 0, 1>(s, &mut dots, w, 2, last);
        add_few::<F, T, 2, 3>(s, &mut dots, w, 3, last);
    }
    for (dots, sums) in dots.into_iter().zip(sums) {
        store(s.neon(), dots, sums);
    }
}

/// Adds the products of an octet with quads `A` and `B` of each token.
#[inline(always)]
fn add_few<F: Integers, const T: usize, const A: i32, const B: i32>(
    s: Dotprod,
    dots: &mut [[int32x4_t; 4]; T],
    w: &F::Tile,
    octet: usize,
    x: [int8x16_t; T],
) {
    for i in 0..4 {
        let [a, b] = F::neon_octet(s.neon(), w, octet, i);
        for (dots, x) in dots.iter_mut().zip(x) {
            dots[i] = s.sdot_lane::<B>(s.sdot_lane::<A>(dots[i], a, x), b, x);
        }
    }
}

/// Adds the products of an octet with quads `A` and `B` of `x`, each to sums of its own.
#[allow(
    clippy::needless_range_loop,
    reason = "the loop is over rows, of two of the sums"
)]
#[inline(always)]
fn add_octet<F: Integers, const A: i32, const B: i32>(
    s: Dotprod,
    dots: &mut [[int32x4_t; 4]; 4],
    w: &F::Tile,
    octet: usize,
    x: int8x16_t,
) {
    for i in 0..4 {
        let [a, b] = F::neon_shifted_octet(s.neon(), w, octet, i);
        dots[A as usize][i] = s.sdot_lane::<A>(dots[A as usize][i], a, x);
        dots[B as usize][i] = s.sdot_lane::<B>(dots[B as usize][i], b, x);
    }
}

/// Adds the products of a quad of 16 rows with lane `LANE` of 4 tokens.
#[inline(always)]
fn add_quad<const LANE: i32>(
    s: Dotprod,
    dots: &mut [[int32x4_t; 4]; PANEL],
    w: [int8x16_t; 4],
    x: [int8x16_t; PANEL],
) {
    for (dots, x) in dots.iter_mut().zip(x) {
        dots[0] = s.sdot_lane::<LANE>(dots[0], w[0], x);
        dots[1] = s.sdot_lane::<LANE>(dots[1], w[1], x);
        dots[2] = s.sdot_lane::<LANE>(dots[2], w[2], x);
        dots[3] = s.sdot_lane::<LANE>(dots[3], w[3], x);
    }
}
