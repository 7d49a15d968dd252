//! Keys and values in 8 bits, as the products of tiles want them.

use super::super::int8::{STEPS, largest, round, steps};
use crate::Pool;
use crate::isa::Isa;
use crate::quant::{GROUP, Q8, TILE_ROWS, into_tile};
use crate::quantized::row_scaled::{Products, Unpacked};
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// Keys of a block.
pub(super) const KEYS: usize = 64;
pub(super) const KEY_TILES: usize = KEYS / TILE_ROWS;
pub(super) const KEY_GROUPS: usize = KEYS / GROUP;

/// Keys and values of all heads in 8 bits, made for one instruction set.
pub struct Int8Memory {
    pub(super) isa: Isa,
    pub(super) heads: usize,
    pub(super) keys: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    /// \[head\]\[block\]: tiles of keys, each with the groups of a key; tiles of columns of values, each with the groups of the keys.
    tiles: Vec<Unpacked>,
    /// \[head\]\[block\]: of keys, then of columns, to whole tiles.
    scales: Vec<f32>,
    /// Heads of which a key or a value is no number.
    pub(super) is_nan: Vec<bool>,
}

impl Int8Memory {
    /// Rounds `k` `[keys, heads · key_dim]` and `v` `[keys, heads · value_dim]`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn new(
        pool: &Pool,
        [k, v]: [&[f32]; 2],
        keys: usize,
        heads: usize,
        [key_dim, value_dim]: [usize; 2],
    ) -> Int8Memory {
        assert!(
            k.len() == keys * heads * key_dim && v.len() == keys * heads * value_dim,
            "{} elements of {keys} keys and {} of values, {heads} heads of {key_dim} and {value_dim}",
            k.len(),
            v.len()
        );
        let mut memory = Int8Memory {
            isa: pool.isa(),
            heads,
            keys,
            key_dim,
            value_dim,
            tiles: Vec::new(),
            scales: Vec::new(),
            is_nan: vec![false; heads],
        };
        let blocks = keys.div_ceil(KEYS);
        let (tiles, scales) = (memory.block_tiles(), memory.block_scales());
        if heads * blocks == 0 || tiles == 0 {
            return memory;
        }
        let mut all_tiles = vec![[0; _]; heads * blocks * tiles];
        let mut all_scales = vec![0.0; heads * blocks * scales];
        let of_tiles = (&mut all_tiles[..], tiles);
        let of_scales = (&mut all_scales[..], scales);
        pool.for_each_chunk_pair_mut(of_tiles, of_scales, &|at, tiles, scales| {
            let (head, first) = (at / blocks, at % blocks * KEYS);
            let rows = first..keys.min(first + KEYS);
            let (key_scales, value_scales) = scales.split_at_mut(KEYS);
            let (key_tiles, value_tiles) = tiles.split_at_mut(KEY_TILES * memory.groups());
            for (i, row) in rows.clone().enumerate() {
                let k = &k[(row * heads + head) * key_dim..][..key_dim];
                key_scales[i] = store(k, key_tiles, i);
            }
            let mut column = [0.0; KEYS];
            for c in 0..value_dim {
                for (to, row) in column.iter_mut().zip(rows.clone()) {
                    *to = v[(row * heads + head) * value_dim + c];
                }
                value_scales[c] = store(&column, value_tiles, c);
            }
            dispatch_integer(memory.isa, Unpack(tiles));
        });
        let of_heads = all_scales.chunks_exact(blocks * scales);
        for (is_nan, scales) in memory.is_nan.iter_mut().zip(of_heads) {
            *is_nan = scales.iter().any(|scale| !scale.is_finite());
        }
        (memory.tiles, memory.scales) = (all_tiles, all_scales);
        memory
    }

    /// Groups of a key.
    pub(super) fn groups(&self) -> usize {
        self.key_dim.div_ceil(GROUP)
    }

    fn block_tiles(&self) -> usize {
        KEY_TILES * self.groups() + KEY_GROUPS * self.value_dim.div_ceil(TILE_ROWS)
    }

    fn block_scales(&self) -> usize {
        KEYS + self.value_dim.next_multiple_of(TILE_ROWS)
    }

    /// Tiles and scales of each block of a head.
    pub(super) fn blocks(&self, head: usize) -> impl Iterator<Item = Block<'_>> {
        let (blocks, tiles) = (self.keys.div_ceil(KEYS), self.block_tiles());
        (0..blocks).map(move |block| {
            let at = head * blocks + block;
            let tiles = &self.tiles[at * tiles..][..tiles];
            let scales = &self.scales[at * self.block_scales()..][..self.block_scales()];
            let (k, v) = tiles.split_at(KEY_TILES * self.groups());
            let (k_scales, v_scales) = scales.split_at(KEYS);
            Block {
                k,
                v,
                k_scales,
                v_scales,
                keys: KEYS.min(self.keys - block * KEYS),
            }
        })
    }
}

/// A block of keys of a head, with their values.
pub(super) struct Block<'a> {
    /// \[tile of keys\]\[group\]
    pub(super) k: &'a [Unpacked],
    /// \[tile of columns\]\[group of keys\]
    pub(super) v: &'a [Unpacked],
    pub(super) k_scales: &'a [f32],
    pub(super) v_scales: &'a [f32],
    pub(super) keys: usize,
}

/// Writes row `row` of tiles that have as many groups as `x` fills; returns its scale.
fn store(x: &[f32], tiles: &mut [Unpacked], row: usize) -> f32 {
    let (largest, groups) = (largest(x), x.len().div_ceil(GROUP));
    let tiles = &mut tiles[row / TILE_ROWS * groups..];
    for (x, tile) in x.chunks(GROUP).zip(tiles) {
        let mut integers = [0; GROUP];
        round(x, steps(largest), &mut integers[..x.len()]);
        into_tile::<Q8>(&integers, tile, row % TILE_ROWS);
    }
    largest / STEPS
}

/// Tiles as they are stored become what the products want.
struct Unpack<'a>(&'a mut [Unpacked]);

impl Unpack<'_> {
    #[inline(always)]
    fn each(self, s: impl Products) {
        for tile in self.0 {
            let stored = *tile;
            s.unpack::<Q8>(&stored, tile);
        }
    }
}

impl IntegerKernel for Unpack<'_> {
    fn scalar(self) {}

    each_with!(neon, dotprod, i8mm, avx2, avx512vnni);
}
