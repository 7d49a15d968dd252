//! Grouped-query attention with normed queries, keys and values, RoPE, and K/V shared between layers.
//!
//! Source: reference section 2.5.

use kernels::{Inputs, Pool, attention};

use super::kv_cache::KvCache;
use super::rope::RopeTables;
use super::{Compute, LayerShape, Loader, RmsNorm};
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

/// Length of the partial results of one token.
pub(crate) fn parts_len(shape: &LayerShape) -> usize {
    let group = shape.heads / shape.kv_heads;
    shape.kv_heads * attention::MAX_PARTS * attention::part_len(group, shape.head_dim)
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
        cache: &mut KvCache,
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
        cache.write(isa, self.kv_layer, t, k, v);
    }

    /// `out = o_proj(attention(x))` for normed rows, the first of them token `first` of the chunk in work, whose K/V
    /// are in the cache already.
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
        cache: &KvCache,
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
        let keys = |head| cache.visible(self.kv_layer, head, first);
        let count: usize = keys(0).iter().map(|segment| segment.keys()).sum();
        if t == 1 && count > attention::part_keys(count) {
            self.attend_in_parts(compute.pool, q, count, keys, parts, attended);
        } else {
            self.attend(compute.pool, q, first, cache, attended);
        }
        compute.matmul(self.o, attended, t, out);
    }

    /// Query heads that share a K/V head, side by side.
    fn group_width(&self) -> usize {
        self.shape.query_width() / self.shape.kv_heads
    }

    /// Every token's query heads, a task for each group of them.
    fn attend(&self, pool: &Pool, q: &[f32], first: usize, cache: &KvCache, attended: &mut [f32]) {
        let (heads, group) = (self.shape.kv_heads, self.group_width());
        pool.for_each_row_mut(attended, group, &|i, attended| {
            let segments = cache.visible(self.kv_layer, i % heads, first + i / heads);
            let q = &q[i * group..(i + 1) * group];
            let head_dim = self.shape.head_dim;
            attention::attend(pool.isa(), q, head_dim, SCALE, &segments, attended);
        });
    }

    /// One token that sees many keys: a task for each of the parts that [`attention::attend`] would take one after the other.
    fn attend_in_parts<'c>(
        &self,
        pool: &Pool,
        q: &[f32],
        keys: usize,
        visible: impl Fn(usize) -> [attention::KvSegment<'c>; 3] + Sync,
        parts: &mut [f32],
        attended: &mut [f32],
    ) {
        let (head_dim, group) = (self.shape.head_dim, self.group_width());
        let part_keys = attention::part_keys(keys);
        let count = keys.div_ceil(part_keys);
        let part_len = attention::part_len(group / head_dim, head_dim);
        let parts = &mut parts[..self.shape.kv_heads * count * part_len];
        pool.for_each_chunk_mut(parts, part_len, &|i, partial| {
            let (head, part) = (i / count, i % count);
            let q = &q[head * group..(head + 1) * group];
            let keys = part * part_keys..((part + 1) * part_keys).min(keys);
            let segments = visible(head);
            attention::attend_part(pool.isa(), q, head_dim, SCALE, &segments, keys, partial);
        });
        let parts = parts.chunks_exact(count * part_len);
        for (parts, attended) in parts.zip(attended.chunks_exact_mut(group)) {
            attention::combine(pool.isa(), parts, head_dim, attended);
        }
    }
}
