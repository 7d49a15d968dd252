//! Grouped-query attention with normed queries, keys and values, RoPE, and K/V shared between layers.
//!
//! Source: reference section 2.5.

use std::ops::Range;

use kernels::attention::{self, KvSegment, Queries};
use kernels::{Inputs, Pool};

use super::kv_cache::KvCache;
use super::rope::RopeTables;
use super::{Compute, Lane, LayerShape, Loader, RmsNorm};
use crate::model::weights::{Tensor, WeightsError};

/// Queries are scaled by their norm's weight alone.
const SCALE: f32 = 1.0;

/// One layer's projections and norms.
#[derive(Debug)]
pub(crate) struct Attention {
    shape: LayerShape,
    q: Tensor,
    q_norm: RmsNorm,
    /// `None` in a layer that shares.
    kv: Option<KeyValue>,
    /// The layer whose keys and values are read.
    kv_layer: usize,
    o: Tensor,
}

#[derive(Debug)]
struct KeyValue {
    k: Tensor,
    k_norm: RmsNorm,
    v: Tensor,
    v_norm: RmsNorm,
}

/// Scratch that a token needs.
pub(crate) fn scratch_width(shape: &LayerShape) -> usize {
    2 * shape.query_width().max(shape.kv_width())
}

/// Queries that meet keys and values together, once these are read and widened.
const TILE_QUERIES: usize = 32;

/// Tokens that make so many queries, at most.
const TILE_TOKENS: usize = 16;

fn tile_tokens(shape: &LayerShape) -> usize {
    (TILE_QUERIES * shape.kv_heads / shape.heads).clamp(1, TILE_TOKENS)
}

/// Length of the partial results of the tokens of a tile, when they have as many parts as there can be.
pub(crate) fn parts_len(shape: &LayerShape) -> usize {
    tile_tokens(shape) * attention::MAX_PARTS * shape.part_len()
}

impl Attention {
    pub(crate) fn load(
        loader: &Loader<'_>,
        shape: &LayerShape,
        index: usize,
        d: usize,
    ) -> Result<Attention, WeightsError> {
        let (query, key) = (shape.query_width(), shape.kv_width());
        let own = || {
            Ok(KeyValue {
                k: loader.matrix("self_attn.k_proj.weight", key, d)?,
                k_norm: loader.norm("self_attn.k_norm.weight", shape.head_dim)?,
                v: loader.matrix("self_attn.v_proj.weight", key, d)?,
                v_norm: loader.norm_without_weight(),
            })
        };
        Ok(Attention {
            shape: *shape,
            q: loader.matrix("self_attn.q_proj.weight", query, d)?,
            q_norm: loader.norm("self_attn.q_norm.weight", shape.head_dim)?,
            kv: shape.kv_of.is_none().then(own).transpose()?,
            kv_layer: shape.kv_of.unwrap_or(index),
            o: loader.matrix("self_attn.o_proj.weight", d, query)?,
        })
    }

    /// Whether its weights are quantised, so that its inputs are to be as well.
    pub(crate) fn is_quantized(&self, loader: &Loader<'_>) -> bool {
        loader.weights.view(self.q).data.is_quantized()
    }

    /// Computes and stores K and V of normed rows `x` \[T, D\]; nothing in a layer that shares.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `scratch` | at least \[T, [`scratch_width`]\] |
    pub(crate) fn write_kv(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        rope: &RopeTables,
        lanes: &mut [Lane<'_>],
        scratch: &mut [f32],
    ) {
        let Some(kv) = &self.kv else { return };
        let rope = rope.of(&self.shape);
        let (isa, t, width) = (compute.isa(), x.tokens(), self.shape.kv_width());
        let (k, v) = scratch[..2 * t * width].split_at_mut(t * width);
        compute.matmul_of(kv.k, x, k);
        compute.matmul_of(kv.v, x, v);
        let heads = k
            .chunks_exact_mut(self.shape.head_dim)
            .zip(v.chunks_exact_mut(self.shape.head_dim));
        for (i, (k, v)) in heads.enumerate() {
            kv.k_norm.row(isa, k);
            rope.rotate(isa, i / self.shape.kv_heads, k);
            kv.v_norm.row(isa, v);
        }
        let (mut k, mut v) = (&*k, &*v);
        for Lane { cache, tokens } in lanes {
            let (own_k, own_v);
            (own_k, k) = k.split_at(*tokens * width);
            (own_v, v) = v.split_at(*tokens * width);
            cache.write(isa, self.kv_layer, *tokens, own_k, own_v);
        }
    }

    /// `out = o_proj(attention(x))` for normed rows, the first of them token `first` of the chunk in work, whose K/V
    /// are in the caches of their lanes already. Of several lanes every token is a row.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | at least \[T, [`scratch_width`]\] |
    /// | `parts` | at least [`parts_len`] |
    pub(crate) fn forward(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        first: usize,
        rope: &RopeTables,
        lanes: &[Lane<'_>],
        scratch: &mut [f32],
        parts: &mut [f32],
        out: &mut [f32],
    ) {
        let seen = lanes.iter().map(|lane| {
            let seen = Seen {
                cache: &*lane.cache,
                layer: self.kv_layer,
                keys: Keys::Own { first },
            };
            (seen, lane.tokens - first)
        });
        self.attend(compute, x, first, rope, seen, scratch, parts, out);
    }

    /// The same for one token without keys and values of its own: it sees those that the cache has stored, within the layer's window, of
    /// which its own place is the newest. Its position is the first of `rope`.
    pub(crate) fn forward_without_own(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        rope: &RopeTables,
        cache: &KvCache,
        scratch: &mut [f32],
        parts: &mut [f32],
        out: &mut [f32],
    ) {
        let most = self.shape.window.map_or(usize::MAX, |window| window - 1);
        let seen = Seen {
            cache,
            layer: self.kv_layer,
            keys: Keys::Stored { most },
        };
        let seen = [(seen, 1)].into_iter();
        self.attend(compute, x, 0, rope, seen, scratch, parts, out);
    }

    /// `first` is the place of the first row among those of `rope`; `seen` is what each lane's rows see, and their number.
    fn attend<'s>(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        first: usize,
        rope: &RopeTables,
        seen: impl Iterator<Item = (Seen<'s>, usize)>,
        scratch: &mut [f32],
        parts: &mut [f32],
        out: &mut [f32],
    ) {
        let rope = rope.of(&self.shape);
        let (isa, t, width) = (compute.isa(), x.tokens(), self.shape.query_width());
        let (q, attended) = scratch[..2 * t * width].split_at_mut(t * width);
        compute.matmul_of(self.q, x, q);
        compute.pool.for_each_row_mut(q, width, &|t, q| {
            for head in q.chunks_exact_mut(self.shape.head_dim) {
                self.q_norm.row(isa, head);
                rope.rotate(isa, first + t, head);
            }
        });
        let mut at = 0;
        for (seen, tokens) in seen {
            let rows = at * width..(at + tokens) * width;
            let (q, attended) = (&q[rows.clone()], &mut attended[rows]);
            let mut done = 0;
            while done < tokens {
                let (threads, room) = (compute.pool.threads(), parts.len());
                let wave = Wave::new(&self.shape, threads, seen, done..tokens, room);
                wave.attend(compute.pool, q, parts, attended);
                done = wave.tokens.end;
            }
            at += tokens;
        }
        compute.matmul(self.o, attended, t, out);
    }
}

/// The keys and values of a layer, as the tokens in work see them.
#[derive(Clone, Copy)]
struct Seen<'a> {
    cache: &'a KvCache,
    layer: usize,
    keys: Keys,
}

/// Which keys tokens see.
#[derive(Clone, Copy)]
enum Keys {
    /// Those up to their own, which is of the chunk in work; the first of them is token `first` of it.
    Own { first: usize },
    /// The newest that are stored.
    Stored { most: usize },
}

impl<'a> Seen<'a> {
    /// Positions that a token sees.
    fn by(&self, token: usize) -> Range<usize> {
        match self.keys {
            Keys::Own { first } => self.cache.positions(self.layer, first + token),
            Keys::Stored { most } => self.cache.stored(self.layer, most),
        }
    }

    /// What some tokens see of a K/V head, from the first one's oldest position to the last one's newest.
    fn segments(&self, head: usize, tokens: Range<usize>) -> [KvSegment<'a>; 3] {
        match self.keys {
            Keys::Own { first } => {
                let chunk = first + tokens.start..first + tokens.end;
                self.cache.visible(self.layer, head, chunk)
            }
            Keys::Stored { .. } => {
                let positions = self.by(tokens.start);
                self.cache.stored_at(self.layer, head, positions)
            }
        }
    }
}

/// Tokens whose partial results have room together. Each has the keys that it sees in parts of one size; a task takes one part of
/// a few tokens, for query heads that share a K/V head.
struct Wave<'a> {
    shape: LayerShape,
    seen: Seen<'a>,
    tokens: Range<usize>,
    part_keys: usize,
    /// Parts of the token that has most.
    parts: usize,
    /// Tokens and query heads of a task.
    tile: usize,
    heads: usize,
}

impl<'a> Wave<'a> {
    /// The first of `tokens` that have parts of one size and fit into `room` floats.
    fn new(
        shape: &LayerShape,
        threads: usize,
        seen: Seen<'a>,
        tokens: Range<usize>,
        room: usize,
    ) -> Wave<'a> {
        let part_keys = |token: usize| attention::part_keys(seen.by(token).len());
        let size = part_keys(tokens.start);
        let same = tokens.clone().take_while(|&token| part_keys(token) == size);
        let mut count = same.count();
        let last = tokens.start + count - 1;
        let parts = seen.by(last).len().div_ceil(size);

        let mut tile = tile_tokens(shape);
        let fit = room / (parts * shape.part_len());
        if fit < count {
            count = (fit - fit % tile).max(1);
        }
        // Fewer at a time where threads would have nothing to do.
        let group = shape.heads / shape.kv_heads;
        let mut heads = group;
        let tasks = |tile, heads| count.div_ceil(tile) * (shape.heads / heads) * parts;
        while tile > 1 && tasks(tile, heads) < threads {
            tile = tile.div_ceil(2);
        }
        while heads > 2 && heads.is_multiple_of(2) && tasks(tile, heads) < threads {
            heads /= 2;
        }
        Wave {
            shape: *shape,
            seen,
            tokens: tokens.start..tokens.start + count,
            part_keys: size,
            parts,
            tile,
            heads,
        }
    }

    /// Heads \[T, query width\] of all tokens in work to what those of the wave attend to, likewise; `parts` is the room for partial
    /// results.
    fn attend(&self, pool: &Pool, q: &[f32], parts: &mut [f32], attended: &mut [f32]) {
        let (width, head_dim) = (self.shape.query_width(), self.shape.head_dim);
        let rows = self.tokens.start * width..self.tokens.end * width;
        let (q, attended) = (&q[rows.clone()], &mut attended[rows]);
        // \[tokens, groups of heads, parts, part\]
        let part = attention::part_len(self.heads, head_dim);
        let row = self.shape.heads / self.heads * self.parts * part;
        let parts = &mut parts[..self.tokens.len() * row];
        pool.for_each_tile_mut(parts, row, self.tile, part, &|token, at, out| {
            let (group, index) = (at / part / self.parts, at / part % self.parts);
            let head = group * self.heads;
            let queries = Queries {
                q: &q[token * width + head * head_dim..],
                stride: width,
                heads: self.heads,
                head_dim,
                scale: SCALE,
            };
            let tokens = self.tokens.start + token..self.tokens.start + token + out.rows();
            let base = self.seen.by(tokens.start).start;
            let mut keys = [const { 0..0 }; TILE_TOKENS];
            for (keys, token) in keys.iter_mut().zip(tokens.clone()) {
                let seen = self.seen.by(token);
                let at = |part: usize| seen.end.min(seen.start + part * self.part_keys) - base;
                *keys = at(index)..at(index + 1);
            }
            let kv_head = head * self.shape.kv_heads / self.shape.heads;
            let segments = self.seen.segments(kv_head, tokens.clone());
            attention::attend_tile(pool.isa(), queries, &segments, &keys[..out.rows()], out);
        });
        let groups = self.shape.heads / self.heads;
        pool.for_each_row_mut(attended, self.heads * head_dim, &|i, attended| {
            let seen = self.seen.by(self.tokens.start + i / groups);
            let own = seen.len().div_ceil(self.part_keys) * part;
            let parts = &parts[i * self.parts * part..][..own];
            attention::combine(pool.isa(), parts, head_dim, attended);
        });
    }
}
