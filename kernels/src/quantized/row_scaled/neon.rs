//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations. Those of small integers are added up in 16 bits as long as
//! they fit, then in 32; products of bytes, −128 · −128 among them, one by one in 32.

use std::arch::aarch64::*;

use super::activations::{Four, One};
use super::tiles::{Products, Sums, Unpacked};
use crate::quant::{GROUP, Integers, TILE_ROWS};
use crate::simd::Neon;

impl Products for Neon {
    #[inline(always)]
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
        if F::GROUPS_IN_16_BITS > 0 {
            small_one::<F>(self, w, x)
        } else {
            bytes_one::<F>(self, w, x)
        }
    }

    #[inline(always)]
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked) {
        unpack::<F>(self, from, to);
    }

    #[inline(always)]
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums) {
        let [a, b, c, d] = sums;
        if F::GROUPS_IN_16_BITS > 0 {
            small_two::<F, 0>(self, w, x, [a, b]);
            small_two::<F, 2>(self, w, x, [c, d]);
        } else {
            bytes_two::<0>(self, w, x, [a, b]);
            bytes_two::<2>(self, w, x, [c, d]);
        }
    }

    const FEW: usize = 2;

    #[inline(always)]
    fn few<F: Integers>(
        self,
        w: &[F::Tile],
        [x, _]: [&[Four]; 2],
        lane: usize,
        sums: &mut [[i32; TILE_ROWS]],
    ) {
        match (sums.len(), lane) {
            (1, 0) => few::<F, 1, 0>(self, w, x, sums),
            (1, _) => few::<F, 1, 2>(self, w, x, sums),
            (_, 0) => few::<F, 2, 0>(self, w, x, sums),
            _ => few::<F, 2, 2>(self, w, x, sums),
        }
    }
}

/// As they are stored, `[k / 4][row][k % 4]`.
#[inline(always)]
pub(super) fn unpack<F: Integers>(s: Neon, from: &F::Tile, to: &mut Unpacked) {
    for octet in 0..GROUP / 8 {
        for i in 0..4 {
            let [a, b] = F::neon_octet(s, from, octet, i);
            let at = octet * 128 + i * 16;
            s.store_bytes(a, to, at);
            s.store_bytes(b, to, at + 64);
        }
    }
}

/// 16-bit sums of 4 rows: of two of them, and of the other two.
type Halves = [int16x8_t; 2];

#[inline(always)]
fn small_one<F: Integers>(s: Neon, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
    let mut dots = [s.splat_i32(0); 4];
    let at_a_time = F::GROUPS_IN_16_BITS;
    for (w, x) in w.chunks(at_a_time).zip(x.chunks(at_a_time)) {
        let mut halves = [[s.splat_i16(0); 2]; 4];
        for (w, x) in w.iter().zip(x) {
            let x = s.quads(x);
            add_rows::<F, 0>(s, &mut halves, w, x);
            add_rows::<F, 1>(s, &mut halves, w, x);
            add_rows::<F, 2>(s, &mut halves, w, x);
            add_rows::<F, 3>(s, &mut halves, w, x);
        }
        fold(s, &mut dots, halves);
    }
    let mut sums = [0; TILE_ROWS];
    store(s, dots, &mut sums);
    sums
}

/// Adds the products of rows `4 I` on. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn add_rows<F: Integers, const I: usize>(
    s: Neon,
    halves: &mut [Halves; 4],
    w: &F::Tile,
    x: [int8x16_t; 8],
) {
    let [mut first, mut last] = halves[I];
    for octet in 0..GROUP / 8 {
        let [a, b] = F::neon_octet(s, w, octet, I);
        let (xa, xb) = (x[2 * octet], x[2 * octet + 1]);
        first = s.multiply_add_first(s.multiply_add_first(first, a, xa), b, xb);
        last = s.multiply_add_last(s.multiply_add_last(last, a, xa), b, xb);
    }
    halves[I] = [first, last];
}

/// Adds 16-bit sums in 32 bits.
#[inline(always)]
fn fold(s: Neon, dots: &mut [int32x4_t; 4], halves: [Halves; 4]) {
    for (dot, [first, last]) in dots.iter_mut().zip(halves) {
        *dot = s.add_widened_neighbours(*dot, s.add_neighbours_i16(first, last));
    }
}

/// 32-bit sums of 4 rows, each row's in two lanes.
type Pairs = [int32x4_t; 2];

#[inline(always)]
fn bytes_one<F: Integers>(s: Neon, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS] {
    let mut pairs = [[s.splat_i32(0); 2]; 4];
    for (w, x) in w.iter().zip(x) {
        let x = s.quads(x);
        add_bytes::<F, 0>(s, &mut pairs, w, x);
        add_bytes::<F, 1>(s, &mut pairs, w, x);
        add_bytes::<F, 2>(s, &mut pairs, w, x);
        add_bytes::<F, 3>(s, &mut pairs, w, x);
    }
    let mut sums = [0; TILE_ROWS];
    store(s, add_neighbours(s, pairs), &mut sums);
    sums
}

#[inline(always)]
fn add_bytes<F: Integers, const I: usize>(
    s: Neon,
    pairs: &mut [Pairs; 4],
    w: &F::Tile,
    x: [int8x16_t; 8],
) {
    for octet in 0..GROUP / 8 {
        let [a, b] = F::neon_octet(s, w, octet, I);
        add_products(s, &mut pairs[I], a, x[2 * octet]);
        add_products(s, &mut pairs[I], b, x[2 * octet + 1]);
    }
}

/// Adds the products of a quad and 4 rows, each widened for itself.
#[inline(always)]
fn add_products(s: Neon, [first, last]: &mut Pairs, w: int8x16_t, x: int8x16_t) {
    *first = s.add_widened_neighbours(*first, s.multiply_first(w, x));
    *last = s.add_widened_neighbours(*last, s.multiply_last(w, x));
}

#[inline(always)]
fn add_neighbours(s: Neon, pairs: [Pairs; 4]) -> [int32x4_t; 4] {
    let [a, b, c, d] = pairs;
    [
        s.add_neighbours_i32(a[0], a[1]),
        s.add_neighbours_i32(b[0], b[1]),
        s.add_neighbours_i32(c[0], c[1]),
        s.add_neighbours_i32(d[0], d[1]),
    ]
}

/// Does `$add` with the quads of tokens `$T` and `$T + 1` of a panel's group, one after the other.
macro_rules! each_quad {
    ($s:ident, $x:ident, $T:ident, $quad:ident, $pair:ident => $add:expr) => {
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 0, 0);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 1, 1);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 2, 2);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 3, 3);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 4, 0);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 5, 1);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 6, 2);
        each_quad!(@$s, $x, $T, $quad, $pair => $add, 7, 3);
    };
    (@$s:ident, $x:ident, $T:ident, $quad:ident, $pair:ident => $add:expr, $q:literal, $lane:literal) => {
        let at = $q / 4 * 64 + $T * 16;
        let $pair = [
            $s.broadcast_quad::<$lane>($s.load_i8($x, at)),
            $s.broadcast_quad::<$lane>($s.load_i8($x, at + 16)),
        ];
        let $quad = $q;
        $add;
    };
}

/// Adds the dots of tokens `T` and `T + 1`: so that a register of weights is used twice.
#[inline(always)]
fn small_two<F: Integers, const T: usize>(
    s: Neon,
    w: &[Unpacked],
    x: &[Four],
    sums: [&mut [i32; TILE_ROWS]; 2],
) {
    let [first, second] = sums;
    let mut dots = [load(s, first), load(s, second)];
    let at_a_time = F::GROUPS_IN_16_BITS;
    for (w, x) in w.chunks(at_a_time).zip(x.chunks(at_a_time)) {
        let mut halves = [[[s.splat_i16(0); 2]; 4]; 2];
        for (w, x) in w.iter().zip(x) {
            each_quad!(s, x, T, quad, pair => for i in 0..4 {
                let w = s.load_bytes(w, quad * 64 + i * 16);
                for (halves, x) in halves.iter_mut().zip(pair) {
                    let [first, last] = halves[i];
                    halves[i] = [s.multiply_add_first(first, w, x), s.multiply_add_last(last, w, x)];
                }
            });
        }
        let [a, b] = halves;
        fold(s, &mut dots[0], a);
        fold(s, &mut dots[1], b);
    }
    store(s, dots[0], first);
    store(s, dots[1], second);
}

#[inline(always)]
fn bytes_two<const T: usize>(
    s: Neon,
    w: &[Unpacked],
    x: &[Four],
    sums: [&mut [i32; TILE_ROWS]; 2],
) {
    let mut pairs = [[[s.splat_i32(0); 2]; 4]; 2];
    for (w, x) in w.iter().zip(x) {
        each_quad!(s, x, T, quad, pair => for i in 0..4 {
            let w = s.load_bytes(w, quad * 64 + i * 16);
            for (pairs, x) in pairs.iter_mut().zip(pair) {
                add_products(s, &mut pairs[i], w, x);
            }
        });
    }
    for (sums, pairs) in sums.into_iter().zip(pairs) {
        let mut dots = load(s, sums);
        for (dot, sum) in dots.iter_mut().zip(add_neighbours(s, pairs)) {
            *dot = s.add_i32(*dot, sum);
        }
        store(s, dots, sums);
    }
}

/// The sums of 16 rows.
#[inline(always)]
pub(super) fn load(s: Neon, from: &[i32; TILE_ROWS]) -> [int32x4_t; 4] {
    [
        s.load_i32(from, 0),
        s.load_i32(from, 4),
        s.load_i32(from, 8),
        s.load_i32(from, 12),
    ]
}

#[inline(always)]
pub(super) fn store(s: Neon, dots: [int32x4_t; 4], to: &mut [i32; TILE_ROWS]) {
    for (i, dot) in dots.into_iter().enumerate() {
        s.store_i32(dot, to, 4 * i);
    }
}

/// Adds the dots of `T` tokens from lane `LANE` of a panel on.
#[inline(always)]
fn few<F: Integers, const T: usize, const LANE: usize>(
    s: Neon,
    w: &[F::Tile],
    x: &[Four],
    sums: &mut [[i32; TILE_ROWS]],
) {
    let Some(sums) = sums.as_mut_array::<T>() else {
        return;
    };
    let mut dots = sums.each_ref().map(|sums| load(s, sums));
    if F::GROUPS_IN_16_BITS > 0 {
        let at_a_time = F::GROUPS_IN_16_BITS;
        for (w, x) in w.chunks(at_a_time).zip(x.chunks(at_a_time)) {
            let mut halves = [[[s.splat_i16(0); 2]; 4]; T];
            for (w, x) in w.iter().zip(x) {
                add_small::<F, T, LANE, 0>(s, &mut halves, w, x);
                add_small::<F, T, LANE, 1>(s, &mut halves, w, x);
                add_small::<F, T, LANE, 2>(s, &mut halves, w, x);
                add_small::<F, T, LANE, 3>(s, &mut halves, w, x);
            }
            for (dots, halves) in dots.iter_mut().zip(halves) {
                fold(s, dots, halves);
            }
        }
    } else {
        let mut pairs = [[[s.splat_i32(0); 2]; 4]; T];
        for (w, x) in w.iter().zip(x) {
            add_large::<F, T, LANE, 0>(s, &mut pairs, w, x);
            add_large::<F, T, LANE, 1>(s, &mut pairs, w, x);
            add_large::<F, T, LANE, 2>(s, &mut pairs, w, x);
            add_large::<F, T, LANE, 3>(s, &mut pairs, w, x);
        }
        for (dots, pairs) in dots.iter_mut().zip(pairs) {
            for (dot, sum) in dots.iter_mut().zip(add_neighbours(s, pairs)) {
                *dot = s.add_i32(*dot, sum);
            }
        }
    }
    for (dots, sums) in dots.into_iter().zip(sums) {
        store(s, dots, sums);
    }
}

/// The quads of octet `OCTET` of tokens from lane `LANE` of a panel on, each in all lanes.
#[inline(always)]
fn octet_quads<const T: usize, const LANE: usize, const OCTET: usize>(
    s: Neon,
    x: &Four,
) -> [[int8x16_t; 2]; T] {
    std::array::from_fn(|t| {
        let x = s.load_i8(x, OCTET / 2 * 64 + (LANE + t) * 16);
        if OCTET.is_multiple_of(2) {
            [s.broadcast_quad::<0>(x), s.broadcast_quad::<1>(x)]
        } else {
            [s.broadcast_quad::<2>(x), s.broadcast_quad::<3>(x)]
        }
    })
}

/// Adds the products of octet `OCTET` in 16 bits.
#[inline(always)]
fn add_small<F: Integers, const T: usize, const LANE: usize, const OCTET: usize>(
    s: Neon,
    halves: &mut [[Halves; 4]; T],
    w: &F::Tile,
    x: &Four,
) {
    let x = octet_quads::<T, LANE, OCTET>(s, x);
    for i in 0..4 {
        let [a, b] = F::neon_octet(s, w, OCTET, i);
        for (halves, [xa, xb]) in halves.iter_mut().zip(x) {
            let [first, last] = halves[i];
            halves[i] = [
                s.multiply_add_first(s.multiply_add_first(first, a, xa), b, xb),
                s.multiply_add_last(s.multiply_add_last(last, a, xa), b, xb),
            ];
        }
    }
}

/// Adds the products of octet `OCTET` in 32 bits.
#[inline(always)]
fn add_large<F: Integers, const T: usize, const LANE: usize, const OCTET: usize>(
    s: Neon,
    pairs: &mut [[Pairs; 4]; T],
    w: &F::Tile,
    x: &Four,
) {
    let x = octet_quads::<T, LANE, OCTET>(s, x);
    for i in 0..4 {
        let [a, b] = F::neon_octet(s, w, OCTET, i);
        for (pairs, [xa, xb]) in pairs.iter_mut().zip(x) {
            add_products(s, &mut pairs[i], a, xa);
            add_products(s, &mut pairs[i], b, xb);
        }
    }
}
