//! Attention of every query over every key in 8 bits, for towers whose products round what goes into them to 8 bits anyway.
//!
//! ```text
//! s_j   = (Σ_d q8_d k8_jd) · (s_q scale log2 e · s_kj)      q8, k8: a row of a head with one scale
//! w_j   = round(127 · 2^(s_j − m))                          m: the largest score of the block
//! sum   = sum · 2^(old − new) + (Σ_j w_j) · 2^(m − new)
//! out_c = out_c · 2^(old − new) + (Σ_j w_j v8_jc) · (s_vc · 2^(m − new))
//! ```
//!
//! Keys come in blocks of [`KEYS`]. Each block has a scale for each column of its values, and its weights are integers relative to the
//! largest among them, so that no block is rounded to nothing because of another one. Old and new are the largest scores so far. All
//! sums of integers are exact, and what is left of a query are a few operations of its own, so every instruction set gives the same bits.
//!
//! The products are those of [`crate::quantized::row_scaled`] with several tokens: keys, and columns of values, lie as its weights do.
//!
//! Source: as [`super::attend_all`]; Zhang et al., *SageAttention*, 2024, section 4, for what may be rounded.

mod memory;

use std::cell::RefCell;
use std::f32::consts::{LN_2, LOG2_E};

pub use self::memory::Int8Memory;
use self::memory::{Block, KEY_GROUPS, KEY_TILES, KEYS};
use super::int8::{STEPS, largest, round, steps};
use crate::Pool;
use crate::pool::TileMut;
use crate::quant::{GROUP, PANEL, Q8, TILE_ROWS, from_tile};
use crate::quantized::row_scaled::{Four, One, Products, Sums, Unpacked, put};
use crate::simd::integer::{IntegerKernel, dispatch_integer};
use crate::simd::{Plain, Simd, math};

/// Queries of a task.
const QUERIES: usize = 64;
/// `log2 127`: what a weight's exponent is shifted by.
const LOG2_STEPS: f32 = 6.988_684_7;

thread_local! {
    /// The queries of a task, kept for the next.
    static PANELS: RefCell<Vec<Four>> = const { RefCell::new(Vec::new()) };
}

/// [`super::attend_all`] of `q` `[queries, heads · key_dim]` over all of `memory`, rounded to 8 bits: `out` is
/// `[queries, heads · value_dim]`, 0 without any key. The same bits on every instruction set, for every number of threads.
///
/// # Panics
/// When a length does not fit, or `memory` was made for other instructions.
pub fn attend_all_int8(pool: &Pool, q: &[f32], memory: &Int8Memory, scale: f32, out: &mut [f32]) {
    let Int8Memory {
        heads,
        key_dim,
        value_dim,
        ..
    } = *memory;
    assert_eq!(memory.isa, pool.isa(), "instructions");
    assert!(
        q.len() * value_dim == out.len() * key_dim,
        "{} elements of queries and {} of outputs, {heads} heads of {key_dim} and {value_dim}",
        q.len(),
        out.len()
    );
    let (stride, width) = (heads * key_dim, heads * value_dim);
    pool.for_each_tile_mut(out, width, QUERIES, value_dim, &|first, column, out| {
        let head = column / value_dim;
        (0..out.rows()).for_each(|i| out.row_mut(i).fill(0.0));
        PANELS.with_borrow_mut(|panels| {
            let work = AttendAll {
                q: &q[first * stride + head * key_dim..],
                stride,
                memory,
                head,
                scale,
                panels,
                out,
            };
            dispatch_integer(pool.isa(), work);
        });
    });
}

/// Some queries of one head over all keys.
struct AttendAll<'a, 'y, 'm> {
    /// Rows of `key_dim` elements, `stride` apart.
    q: &'a [f32],
    stride: usize,
    memory: &'a Int8Memory,
    head: usize,
    scale: f32,
    /// Room for the queries in 8 bits.
    panels: &'y mut Vec<Four>,
    /// `[queries, value_dim]`, zeros.
    out: &'y mut TileMut<'m, f32>,
}

/// What is known of a query.
#[derive(Clone, Copy)]
struct Query {
    /// What multiplies its products with keys, and the sum of its integers.
    scale: f32,
    integers: i32,
    max: f32,
    /// Of the weights, in steps.
    sum: f32,
}

impl Query {
    /// Rounds `q`, and hands its groups to `put`.
    #[inline(always)]
    fn new(q: &[f32], scale: f32, mut put: impl FnMut(usize, &One)) -> Query {
        let (largest, mut integers) = (largest(q), 0);
        for (group, q) in q.chunks(GROUP).enumerate() {
            let mut one = [0; GROUP];
            round(q, steps(largest), &mut one[..q.len()]);
            integers += sum(&one);
            put(group, &one);
        }
        let is_finite = largest.is_finite();
        Query {
            scale: if is_finite {
                largest / STEPS * (scale * LOG2_E)
            } else {
                f32::NAN
            },
            integers,
            max: f32::NEG_INFINITY,
            sum: 0.0,
        }
    }

    /// Turns the scores of a block, those beyond its keys minus infinity, into weights; takes them in.
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        s: S,
        scores: &mut [f32; KEYS],
        weights: &mut [One; KEY_GROUPS],
    ) -> Weighed {
        let mut max = s.splat(f32::NEG_INFINITY);
        for x in scores.chunks_exact(S::LANES) {
            max = s.max(s.load(x), max);
        }
        let max = s.max_lane(max);
        let from = max - LOG2_STEPS;
        for x in scores.iter_mut() {
            *x = power(*x - from);
        }
        round(scores, 1.0, weights.as_flattened_mut());
        let integers = weights.iter().map(sum).sum();
        // One of the two is 1.
        let (mut shrink, mut grow) = (1.0, 1.0);
        if max > self.max {
            shrink = math::exp(Plain, (self.max - max) * LN_2);
            self.max = max;
        } else {
            grow = math::exp(Plain, (max - self.max) * LN_2);
        }
        self.sum = self.sum * shrink + integers as f32 * grow;
        Weighed {
            integers,
            shrink,
            grow,
        }
    }

    /// What its sums of values are to be multiplied with.
    fn factor(&self) -> f32 {
        1.0 / self.sum
    }
}

/// A query's weights of a block: their sum, and what multiplies the outputs before and those of the block.
#[derive(Clone, Copy, Default)]
struct Weighed {
    integers: i32,
    shrink: f32,
    grow: f32,
}

/// `2^x`, off by less than a ten-thousandth of it, which no integer of 8 bits tells; below 2⁻³⁰ that.
#[inline(always)]
fn power(x: f32) -> f32 {
    // Where this is added only integers are left, in the low bits; an exponent takes them as they are.
    const INTEGERS_ONLY: f32 = 12_582_912.0;
    let x = x.max(-30.0);
    let n = x + INTEGERS_ONLY;
    let r = x - (n - INTEGERS_ONLY);
    let p = 0.055_838_283_f32.mul_add(r, 0.242_639_48);
    let p = p.mul_add(r, 0.693_136_7).mul_add(r, 0.999_924_54);
    f32::from_bits(p.to_bits().wrapping_add(n.to_bits() << 23))
}

#[inline(always)]
fn sum(integers: &One) -> i32 {
    integers.iter().map(|&q| i32::from(q)).sum()
}

impl AttendAll<'_, '_, '_> {
    /// Whether there is nothing to compute; then the outputs are written.
    fn is_trivial(&mut self) -> bool {
        let is_nan = self.memory.is_nan[self.head];
        if is_nan {
            (0..self.out.rows()).for_each(|i| self.out.row_mut(i).fill(f32::NAN));
        }
        is_nan || self.memory.keys == 0
    }

    fn query(&self, i: usize) -> &[f32] {
        &self.q[i * self.stride..][..self.memory.key_dim]
    }

    #[inline(always)]
    fn each<P: Products, S: Simd>(mut self, p: P, s: S) {
        if self.is_trivial() {
            return;
        }
        let (queries, groups) = (self.out.rows(), self.memory.groups());
        let mut panels = std::mem::take(self.panels);
        panels.clear();
        panels.resize(queries.div_ceil(PANEL) * groups, [0; _]);
        let mut state = [Query::new(&[], 0.0, |_, _| ()); QUERIES];
        for (i, state) in state.iter_mut().enumerate().take(queries) {
            let isa = self.memory.isa;
            *state = Query::new(self.query(i), self.scale, |group, one| {
                put(isa, one, i % PANEL, &mut panels[i / PANEL * groups + group]);
            });
        }
        for block in self.memory.blocks(self.head) {
            let panels = panels.chunks_exact(groups);
            let states = state[..queries].chunks_mut(PANEL);
            for (i, (panel, states)) in panels.zip(states).enumerate() {
                self.block(p, s, &block, panel, states, i * PANEL);
            }
        }
        for (i, query) in state[..queries].iter().enumerate() {
            let factor = query.factor();
            self.out.row_mut(i).iter_mut().for_each(|y| *y *= factor);
        }
        *self.panels = panels;
    }

    /// A panel of queries, of which the first is `first`, over a block.
    #[inline(always)]
    fn block<P: Products, S: Simd>(
        &mut self,
        p: P,
        s: S,
        block: &Block<'_>,
        panel: &[Four],
        queries: &mut [Query],
        first: usize,
    ) {
        let mut dots: [Sums; KEY_TILES] = [[[0; TILE_ROWS]; PANEL]; KEY_TILES];
        let tiles = block.k.chunks_exact(panel.len());
        for (dots, tile) in dots
            .iter_mut()
            .zip(tiles)
            .take(block.keys.div_ceil(TILE_ROWS))
        {
            p.four::<Q8>(tile, panel, dots);
        }
        let mut weights: [Four; KEY_GROUPS] = [[0; _]; KEY_GROUPS];
        let mut weighed = [Weighed::default(); PANEL];
        for (lane, query) in queries.iter_mut().enumerate() {
            let offset = P::offset::<Q8>() * query.integers;
            let mut scores = [0.0; KEYS];
            let of_tiles = scores.as_chunks_mut::<TILE_ROWS>().0;
            let scales = block.k_scales.as_chunks::<TILE_ROWS>().0;
            for ((scores, dots), scales) in of_tiles.iter_mut().zip(&dots).zip(scales) {
                *scores = scaled(dots[lane], offset, scales, query.scale);
            }
            scores[block.keys..].fill(f32::NEG_INFINITY);
            let mut ones = [[0; GROUP]; KEY_GROUPS];
            weighed[lane] = query.weigh(s, &mut scores, &mut ones);
            for (one, to) in ones.iter().zip(&mut weights) {
                put(self.memory.isa, one, lane, to);
            }
        }
        let scales = block.v_scales.as_chunks::<TILE_ROWS>().0;
        for (tile, (v, scales)) in block.v.chunks_exact(KEY_GROUPS).zip(scales).enumerate() {
            let mut dots: Sums = [[0; TILE_ROWS]; PANEL];
            p.four::<Q8>(v, &weights, &mut dots);
            for (lane, dots) in dots.iter().enumerate().take(queries.len()) {
                let out = &mut self.out.row_mut(first + lane)[tile * TILE_ROWS..];
                let Weighed {
                    integers,
                    shrink,
                    grow,
                } = weighed[lane];
                let more = scaled(*dots, P::offset::<Q8>() * integers, scales, grow);
                match out.first_chunk_mut::<TILE_ROWS>() {
                    Some(out) => *out = added(*out, shrink, more),
                    None => {
                        let mut some = [0.0; TILE_ROWS];
                        some[..out.len()].copy_from_slice(out);
                        let some = added(some, shrink, more);
                        out.copy_from_slice(&some[..out.len()]);
                    }
                }
            }
        }
    }
}

/// Sums of products, less what every one is too large by, as numbers.
#[inline(always)]
fn scaled(
    dots: [i32; TILE_ROWS],
    offset: i32,
    scales: &[f32; TILE_ROWS],
    scale: f32,
) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    for ((row, dot), of_row) in rows.iter_mut().zip(dots).zip(scales) {
        *row = (dot - offset) as f32 * (scale * of_row);
    }
    rows
}

/// `out shrink + more`, rounded once.
#[inline(always)]
fn added(out: [f32; TILE_ROWS], shrink: f32, more: [f32; TILE_ROWS]) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    for ((row, out), more) in rows.iter_mut().zip(out).zip(more) {
        *row = out.mul_add(shrink, more);
    }
    rows
}

impl IntegerKernel for AttendAll<'_, '_, '_> {
    /// The reference: query by query, block by block, key by key.
    fn scalar(mut self) {
        if self.is_trivial() {
            return;
        }
        let groups = self.memory.groups();
        for i in 0..self.out.rows() {
            let mut ones = vec![[0; GROUP]; groups];
            let mut query = Query::new(self.query(i), self.scale, |group, one| ones[group] = *one);
            for block in self.memory.blocks(self.head) {
                let mut scores = [f32::NEG_INFINITY; KEYS];
                for (key, score) in scores.iter_mut().enumerate().take(block.keys) {
                    let tile = &block.k[key / TILE_ROWS * groups..][..groups];
                    let dot = plain_dot(tile, key % TILE_ROWS, &ones);
                    *score = dot as f32 * (query.scale * block.k_scales[key]);
                }
                let mut weights = [[0; GROUP]; KEY_GROUPS];
                let weighed = query.weigh(Plain, &mut scores, &mut weights);
                for (c, y) in self.out.row_mut(i).iter_mut().enumerate() {
                    let tile = &block.v[c / TILE_ROWS * KEY_GROUPS..][..KEY_GROUPS];
                    let dot = plain_dot(tile, c % TILE_ROWS, &weights);
                    let more = dot as f32 * (weighed.grow * block.v_scales[c]);
                    *y = y.mul_add(weighed.shrink, more);
                }
            }
            let factor = query.factor();
            self.out.row_mut(i).iter_mut().for_each(|y| *y *= factor);
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon(self, s: crate::simd::Neon) {
        self.each(s, s);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn dotprod(self, s: crate::simd::integer::Dotprod) {
        self.each(s, s.neon());
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn i8mm(self, s: crate::simd::integer::I8mm) {
        self.each(s, s.neon());
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, s: crate::simd::Avx2) {
        self.each(s, s);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512vnni(self, s: crate::simd::integer::Avx512Vnni) {
        self.each(s, s.avx512());
    }
}

/// A row of a tile, as it is stored, times integers.
fn plain_dot(tile: &[Unpacked], row: usize, x: &[One]) -> i32 {
    let products = tile.iter().zip(x).flat_map(|(tile, x)| {
        let w = from_tile::<Q8>(tile, row);
        std::array::from_fn::<_, GROUP, _>(|k| i32::from(w[k]) * i32::from(x[k]))
    });
    products.sum()
}
