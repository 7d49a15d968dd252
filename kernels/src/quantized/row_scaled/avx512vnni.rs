//! `vpdpbusd` of all 16 rows × 4 k with a quad of activations. Weights go in unsigned, as they are stored, bytes plus 128. Several
//! sums take turns, as each waits for the one before it; for one token crumbs stay where they lie, as with `sdot`.

use super::activations::{Four, One};
use super::avx2::place;
use super::tiles::{Products, Sums, Unpacked, unshifted};
use crate::quant::{GROUP, Integers, PANEL, TILE_ROWS};
use crate::quantized::unsigned;
use crate::simd::integer::Avx512Vnni;

impl Products for Avx512Vnni {
    fn offset<F: Integers>() -> i32 {
        if F::OFFSET == 0 {
            128
        } else {
            i32::from(F::OFFSET)
        }
    }

    #[inline(always)]
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
        let mut dots = [self.splat_i32(0); 4];
        for (w, x) in w.iter().zip(x) {
            for octet in 0..GROUP / 8 {
                let [a, b] = if F::OFFSET == 0 {
                    unsigned::octet::<F>(self, w, octet)
                } else {
                    F::avx512_shifted_octet(self, w, octet)
                };
                let first = octet % 2 * 2;
                let xa = self.broadcast_i8x4(x, 8 * octet);
                let xb = self.broadcast_i8x4(x, 8 * octet + 4);
                dots[first] = self.dot_u8_i8(dots[first], a, xa);
                dots[first + 1] = self.dot_u8_i8(dots[first + 1], b, xb);
            }
        }
        let mut by_quad = [[0; TILE_ROWS]; 4];
        for (dots, to) in dots.into_iter().zip(&mut by_quad) {
            self.store_i32(dots, to);
        }
        unshifted::<F>(by_quad)
    }

    #[inline(always)]
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked) {
        for octet in 0..GROUP / 8 {
            let [a, b] = unsigned::octet::<F>(self, from, octet);
            self.store_bytes(a, to, octet * 128);
            self.store_bytes(b, to, octet * 128 + 64);
        }
    }

    #[inline(always)]
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums) {
        let mut dots = [[self.splat_i32(0); PANEL]; 2];
        for (dot, sums) in dots[0].iter_mut().zip(&*sums) {
            *dot = self.load_i32(sums);
        }
        for (w, x) in w.iter().zip(x) {
            for quad in 0..GROUP / 4 {
                let w = self.load_bytes(w, quad * 64);
                for (t, dot) in dots[quad % 2].iter_mut().enumerate() {
                    *dot = self.dot_u8_i8(*dot, w, self.broadcast_i8x4(x, place(quad, t)));
                }
            }
        }
        let [first, second] = dots;
        for ((first, second), sums) in first.into_iter().zip(second).zip(sums) {
            self.store_i32(self.add_i32(first, second), sums);
        }
    }

    const FEW: usize = 8;

    #[inline(always)]
    fn few<F: Integers>(
        self,
        w: &[F::Tile],
        x: [&[Four]; 2],
        _: usize,
        sums: &mut [[i32; TILE_ROWS]],
    ) {
        match sums.len() {
            2 => few::<F, 2>(self, w, x, sums),
            3 => few::<F, 3>(self, w, x, sums),
            4 => few::<F, 4>(self, w, x, sums),
            5 => few::<F, 5>(self, w, x, sums),
            6 => few::<F, 6>(self, w, x, sums),
            7 => few::<F, 7>(self, w, x, sums),
            _ => few::<F, 8>(self, w, x, sums),
        }
    }
}

#[inline(always)]
fn few<F: Integers, const T: usize>(
    s: Avx512Vnni,
    w: &[F::Tile],
    x: [&[Four]; 2],
    sums: &mut [[i32; TILE_ROWS]],
) {
    let Some(sums) = sums.as_mut_array::<T>() else {
        return;
    };
    let mut dots = [[s.splat_i32(0); 2]; T];
    for ((w, x0), x1) in w.iter().zip(x[0]).zip(x[1]) {
        // Products of several tokens take as long as memory: it is to go on meanwhile.
        s.ask_ahead(w);
        for octet in 0..GROUP / 8 {
            let [a, b] = unsigned::octet::<F>(s, w, octet);
            for (t, dots) in dots.iter_mut().enumerate() {
                let x = [x0, x1][t / PANEL];
                let xa = s.broadcast_i8x4(x, place(2 * octet, t % PANEL));
                let xb = s.broadcast_i8x4(x, place(2 * octet + 1, t % PANEL));
                *dots = [s.dot_u8_i8(dots[0], a, xa), s.dot_u8_i8(dots[1], b, xb)];
            }
        }
    }
    for ([a, b], sums) in dots.into_iter().zip(sums) {
        s.store_i32(s.add_i32(s.load_i32(sums), s.add_i32(a, b)), sums);
    }
}
