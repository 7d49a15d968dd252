//! `smmla`: 2 rows × 8 k with 2 tokens × 8 k; eight pairs of rows and two of tokens, 16 sums in registers. One token goes to `sdot`.

use std::arch::aarch64::*;

use super::activations::{Four, One};
use super::tiles::{Products, Sums, Unpacked};
use crate::quant::{GROUP, Integers, PANEL, TILE_ROWS};
use crate::simd::integer::I8mm;

impl Products for I8mm {
    #[inline(always)]
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
        self.dotprod().one::<F>(w, x)
    }

    /// `[k / 8][pair of rows][row % 2][k % 8]`
    #[inline(always)]
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked) {
        let s = self.neon();
        for octet in 0..GROUP / 8 {
            for i in 0..4 {
                let [a, b] = F::neon_octet(s, from, octet, i);
                let at = octet * 128 + i * 32;
                s.store_bytes(s.zip_first_quads(a, b), to, at);
                s.store_bytes(s.zip_last_quads(a, b), to, at + 16);
            }
        }
    }

    #[inline(always)]
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums) {
        let s = self.neon();
        let mut dots = [[[s.splat_i32(0); 2]; 4]; 2];
        let mut walk = s.walk(w, x);
        while walk.next() {
            let [a, b, c, d] = walk.x_four_a();
            add_octet(self, &mut dots[0], walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots[1], walk.w_four_b(), [a, b]);
            add_octet(self, &mut dots[0], walk.w_four_a(), [c, d]);
            add_octet(self, &mut dots[1], walk.w_four_b(), [c, d]);
            let [a, b, c, d] = walk.x_four_b();
            add_octet(self, &mut dots[0], walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots[1], walk.w_four_b(), [a, b]);
            add_octet(self, &mut dots[0], walk.w_four_a(), [c, d]);
            add_octet(self, &mut dots[1], walk.w_four_b(), [c, d]);
        }
        add_sums(self, dots.as_flattened(), sums);
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
        let mut four = [[0; TILE_ROWS]; PANEL];
        let dots = if sums.len() > 2 {
            few::<F, 2>(self, w, x)
        } else {
            few::<F, 1>(self, w, x)
        };
        add_sums(self, &dots, &mut four);
        for (sums, more) in sums.iter_mut().zip(four) {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        }
    }
}

/// Adds sums `[pair of rows][pair of tokens]`.
#[inline(always)]
fn add_sums(s: I8mm, dots: &[[int32x4_t; 2]], sums: &mut Sums) {
    let s = s.neon();
    for (i, [a, b]) in dots.as_chunks().0.iter().enumerate() {
        for t in 0..2 {
            for (token, dots) in [
                (2 * t, s.even_i32(a[t], b[t])),
                (2 * t + 1, s.odd_i32(a[t], b[t])),
            ] {
                let sum = s.add_i32(s.load_i32(&sums[token], 4 * i), dots);
                s.store_i32(sum, &mut sums[token], 4 * i);
            }
        }
    }
}

/// The dots of `PAIRS` pairs of tokens.
#[inline(always)]
fn few<F: Integers, const PAIRS: usize>(s: I8mm, w: &[F::Tile], x: &[Four]) -> [[int32x4_t; 2]; 8] {
    let mut dots = [[s.neon().splat_i32(0); 2]; 8];
    for (w, x) in w.iter().zip(x) {
        for octet in 0..GROUP / 8 {
            let x: [int8x16_t; PAIRS] =
                std::array::from_fn(|p| s.neon().load_i8(x, octet * 32 + p * 16));
            for i in 0..4 {
                let [a, b] = F::neon_octet(s.neon(), w, octet, i);
                let w = [
                    s.neon().zip_first_quads(a, b),
                    s.neon().zip_last_quads(a, b),
                ];
                for (dots, w) in dots[2 * i..].iter_mut().zip(w) {
                    for (dot, x) in dots.iter_mut().zip(x) {
                        *dot = s.smmla(*dot, w, x);
                    }
                }
            }
        }
    }
    dots
}

/// Adds the products of 8 k: four pairs of rows, two of tokens, each `[row % 2][token % 2]`.
#[inline(always)]
fn add_octet(s: I8mm, dots: &mut [[int32x4_t; 2]; 4], w: [int8x16_t; 4], x: [int8x16_t; 2]) {
    for (dots, w) in dots.iter_mut().zip(w) {
        dots[0] = s.smmla(dots[0], w, x[0]);
        dots[1] = s.smmla(dots[1], w, x[1]);
    }
}
