//! The walk through tiles and panels that every instruction set shares, and what each does on its way.

use super::activations::{Activations, Four, One};
use crate::pool::TileMut;
use crate::quant::{Bytes, GROUP, Integers, PANEL, Quantized, TILE_ROWS, with_integers};

/// The outputs `y` of the tokens from `token` on and of the rows from tile `first` on.
pub(super) struct Tiles<'a, 'y, 'm> {
    pub(super) w: Quantized<'a>,
    pub(super) x: &'a Activations,
    pub(super) token: usize,
    pub(super) first: usize,
    pub(super) y: &'y mut TileMut<'m, f32>,
}

/// Tokens of a batch at most: their sums wait while a tile is taken block by block.
pub(super) const BATCH_TOKENS: usize = 256;

/// Groups of a tile that are unpacked at a time, small enough for a first-level cache.
const BLOCK: usize = 64;
/// A group of a tile, a byte a weight, in an order that the instructions ask for.
pub(crate) type Unpacked = [u8; TILE_ROWS * GROUP];
/// Sums of one panel: `[token][row]`.
pub(crate) type Sums = [[i32; TILE_ROWS]; PANEL];

/// What an instruction set does with tiles of integers as they are stored; the methods must be `#[inline(always)]`.
pub(crate) trait Products: Copy {
    /// What every integer is too large by where it is multiplied.
    #[inline(always)]
    fn offset<F: Integers>() -> i32 {
        i32::from(F::OFFSET)
    }
    /// The dots of the 16 rows of a tile with one token.
    fn one<F: Integers>(self, w: &[F::Tile], x: &[One]) -> [i32; TILE_ROWS];
    /// Unpacks a group of a tile.
    fn unpack<F: Integers>(self, from: &F::Tile, to: &mut Unpacked);
    /// Adds the dots of unpacked groups with the same groups of one panel.
    fn four<F: Integers>(self, w: &[Unpacked], x: &[Four], sums: &mut Sums);
    /// Tokens that [`Products::few`] takes at a time.
    const FEW: usize;
    /// Adds the dots of groups as they are stored with the same groups of as many tokens as there are `sums`, from lane `lane` of the first
    /// panel on.
    fn few<F: Integers>(
        self,
        w: &[F::Tile],
        x: [&[Four]; 2],
        lane: usize,
        sums: &mut [[i32; TILE_ROWS]],
    );
}

/// Tokens that are few, as those of an answer that are looked at together: two panels. A tile is unpacked into registers as it comes.
pub(super) const FEW_TOKENS: usize = 2 * PANEL;
/// Groups of a tile that are taken through some tokens before the next ones, where not all go at once.
const FEW_GROUPS: usize = 8;

/// Unpacked groups, for aligned loads.
#[repr(align(64))]
struct Block([Unpacked; BLOCK]);

impl Tiles<'_, '_, '_> {
    #[inline(always)]
    pub(super) fn each(self, s: impl Products) {
        with_integers!(self.w.format(), F => if !self.x.single().is_empty() {
            self.each_tile::<F, _>(s);
        } else if self.y.rows() <= FEW_TOKENS {
            self.each_few::<F, _>(s);
        } else {
            self.each_panel::<F, _>(s);
        });
    }

    /// One token: tile after tile as it is stored.
    #[inline(always)]
    fn each_tile<F: Integers, P: Products>(self, s: P) {
        let x = self.x.single();
        let y = self.y.row_mut(0).chunks_mut(TILE_ROWS);
        for (tile, y) in (self.first..).zip(y) {
            let (integers, scales) = self.w.unit(tile);
            let dots = s.one::<F>(Bytes::cut(integers), x);
            finish::<F, P>(self.x, 0, scales, dots, y);
        }
    }

    /// Few tokens: tile after tile as it is stored.
    #[inline(always)]
    fn each_few<F: Integers, P: Products>(self, s: P) {
        let tokens = self.y.rows();
        let first_panel = self.token / PANEL;
        let panels = [0, tokens.div_ceil(PANEL) - 1].map(|panel| self.x.panel(first_panel + panel));
        for (tile, row) in (0..self.y.cols()).step_by(TILE_ROWS).enumerate() {
            let rows = row..self.y.cols().min(row + TILE_ROWS);
            let (integers, scales) = self.w.unit(self.first + tile);
            let integers = F::Tile::cut(integers);
            let at_once = if tokens > P::FEW {
                FEW_GROUPS
            } else {
                integers.len().max(1)
            };
            let mut sums = [[0; TILE_ROWS]; FEW_TOKENS];
            for (at, integers) in integers.chunks(at_once).enumerate() {
                let x = panels.map(|x| &x[at * at_once..][..integers.len()]);
                for (i, sums) in sums[..tokens].chunks_mut(P::FEW).enumerate() {
                    let token = i * P::FEW;
                    let x = if token < PANEL { x } else { [x[1]; 2] };
                    s.few::<F>(integers, x, token % PANEL, sums);
                }
            }
            for (token, dots) in sums[..tokens].iter().enumerate() {
                let y = &mut self.y.row_mut(token)[rows.clone()];
                finish::<F, P>(self.x, self.token + token, scales, *dots, y);
            }
        }
    }

    /// Several tokens: a block of a tile is unpacked, and all panels taken through it. Their sums wait for the next block.
    #[inline(always)]
    fn each_panel<F: Integers, P: Products>(self, s: P) {
        let panels = self.y.rows().div_ceil(PANEL);
        let groups = self.w.groups();
        let mut unpacked = Block([[0; _]; BLOCK]);
        let mut sums = [[[0; TILE_ROWS]; PANEL]; BATCH_TOKENS / PANEL];
        for (tile, row) in (0..self.y.cols()).step_by(TILE_ROWS).enumerate() {
            let rows = row..self.y.cols().min(row + TILE_ROWS);
            let (integers, scales) = self.w.unit(self.first + tile);
            sums[..panels].fill([[0; TILE_ROWS]; PANEL]);
            for (block, integers) in F::Tile::cut(integers).chunks(BLOCK).enumerate() {
                let unpacked = &mut unpacked.0[..integers.len()];
                for (from, to) in integers.iter().zip(&mut *unpacked) {
                    s.unpack::<F>(from, to);
                }
                for (panel, sums) in sums[..panels].iter_mut().enumerate() {
                    let x = self.x.panel(self.token / PANEL + panel);
                    debug_assert_eq!(x.len(), groups);
                    s.four::<F>(unpacked, &x[block * BLOCK..][..unpacked.len()], sums);
                }
            }
            for (token, dots) in sums.as_flattened()[..self.y.rows()].iter().enumerate() {
                let y = &mut self.y.row_mut(token)[rows.clone()];
                finish::<F, P>(self.x, self.token + token, scales, *dots, y);
            }
        }
    }
}

/// The outputs of a token and of the rows of a tile, of their dots.
#[inline(always)]
fn finish<F: Integers, P: Products>(
    x: &Activations,
    token: usize,
    scales: &[u8],
    dots: [i32; TILE_ROWS],
    y: &mut [f32],
) {
    let (scale, offset) = (x.scale(token), P::offset::<F>() * x.sum(token));
    let mut rows = [0.0; TILE_ROWS];
    for ((row, dot), of_row) in rows.iter_mut().zip(dots).zip(scales.as_chunks().0) {
        *row = (dot - offset) as f32 * (scale * f32::from_le_bytes(*of_row));
    }
    match y.as_mut_array() {
        Some(y) => *y = rows,
        None => y.copy_from_slice(&rows[..y.len()]),
    }
}

/// The sum of those of each of four quads, whose integers were shifted.
#[inline(always)]
pub(super) fn unshifted<F: Integers>(by_quad: [[i32; TILE_ROWS]; 4]) -> [i32; TILE_ROWS] {
    let mut sums = [0; TILE_ROWS];
    for (dots, shift) in by_quad.into_iter().zip(F::SHIFTS) {
        for (sum, dot) in sums.iter_mut().zip(dots) {
            *sum += dot >> shift;
        }
    }
    sums
}
