//! Grouped-query attention with normed queries, keys and values, RoPE, and K/V shared between layers.
//!
//! Source: reference section 2.5; RoPE as in RoFormer (arXiv 2104.09864), rotate-half form.

use kernels::{Inputs, Pool, attention};

use super::kv_cache::KvCache;
use super::load::LayerLoader;
use crate::model::config::{LayerType, TextConfig};
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// One layer's projections and norms.
#[derive(Debug)]
pub(in crate::model) struct Attention {
    layer: usize,
    kv_source: usize,
    q: Tensor,
    q_norm: Vec<f32>,
    /// `None` in a layer that shares.
    kv: Option<KeyValue>,
    o: Tensor,
    kv_heads: usize,
    head_dim: usize,
    pub(in crate::model) layer_type: LayerType,
    eps: f32,
}

#[derive(Debug)]
struct KeyValue {
    k: Tensor,
    v: Tensor,
    k_norm: Vec<f32>,
}

/// Cosines and sines of the positions of the chunk in work, \[T, head_dim / 2\] each, for one RoPE base.
#[derive(Debug)]
pub(in crate::model) struct RopeTable {
    frequencies: Vec<f64>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(in crate::model) fn new(base: f64, head_dim: usize, tokens: usize) -> RopeTable {
        let frequencies = kernels::rope::inverse_frequencies(base, head_dim);
        let len = tokens * frequencies.len();
        RopeTable {
            frequencies,
            cos: vec![0.0; len],
            sin: vec![0.0; len],
        }
    }

    /// Fills the table for `t` tokens from `position` on.
    pub(in crate::model) fn fill(&mut self, position: usize, t: usize) {
        let half = self.frequencies.len();
        for (t, (cos, sin)) in self
            .cos
            .chunks_exact_mut(half)
            .zip(self.sin.chunks_exact_mut(half))
            .take(t)
            .enumerate()
        {
            kernels::rope::cos_sin(position + t, &self.frequencies, cos, sin);
        }
    }

    fn rotate(&self, pool: &Pool, t: usize, head: &mut [f32]) {
        let half = self.frequencies.len();
        let range = t * half..(t + 1) * half;
        kernels::rope::rope(pool.isa(), head, &self.cos[range.clone()], &self.sin[range]);
    }
}

impl Attention {
    pub(in crate::model) fn load(
        loader: &LayerLoader<'_>,
        config: &TextConfig,
        layer: usize,
    ) -> Result<Attention, WeightsError> {
        let d = config.hidden_size;
        let kv = if config.kv_source(layer) == layer {
            Some(KeyValue {
                k: loader.matrix("self_attn.k_proj.weight", config.kv_width(), d)?,
                v: loader.matrix("self_attn.v_proj.weight", config.kv_width(), d)?,
                k_norm: loader.vector("self_attn.k_norm.weight", config.head_dim)?,
            })
        } else {
            None
        };
        Ok(Attention {
            layer,
            kv_source: config.kv_source(layer),
            q: loader.matrix("self_attn.q_proj.weight", config.query_width(), d)?,
            q_norm: loader.vector("self_attn.q_norm.weight", config.head_dim)?,
            kv,
            o: loader.matrix("self_attn.o_proj.weight", d, config.query_width())?,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            layer_type: config.layer_types[layer],
            eps: config.rms_norm_eps,
        })
    }

    /// Whether its weights are.
    pub(in crate::model) fn is_quantized(&self, weights: &Mapped) -> bool {
        weights.view(self.q).data.is_quantized()
    }

    /// Computes and stores K and V of normed rows `x` \[T, D\]; nothing in a layer that shares. `scratch` has room for both.
    pub(in crate::model) fn write_kv(
        &self,
        pool: &Pool,
        weights: &Mapped,
        x: &Inputs,
        rope: &RopeTable,
        cache: &mut KvCache,
        scratch: &mut [f32],
    ) {
        let Some(kv) = &self.kv else { return };
        let t = x.tokens();
        let width = self.kv_heads * self.head_dim;
        let (k, v) = scratch[..2 * t * width].split_at_mut(t * width);
        kernels::matmul::matmul_of(pool, weights.view(kv.k), x, k);
        kernels::matmul::matmul_of(pool, weights.view(kv.v), x, v);
        for (i, (k, v)) in k
            .chunks_exact_mut(self.head_dim)
            .zip(v.chunks_exact_mut(self.head_dim))
            .enumerate()
        {
            kernels::rms_norm::rms_norm_in_place(pool.isa(), k, Some(&kv.k_norm), self.eps);
            rope.rotate(pool, i / self.kv_heads, k);
            kernels::rms_norm::rms_norm_in_place(pool.isa(), v, None, self.eps);
        }
        cache.write(pool.isa(), self.layer, t, k, v);
    }

    /// `out = o_proj(attention(x))` for normed rows, the first of them token `first` of the chunk in work, whose K/V
    /// are in the cache already.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | at least 2 \[T, query width\] |
    /// | `parts` | at least [`parts_len`] |
    pub(in crate::model) fn forward(
        &self,
        pool: &Pool,
        weights: &Mapped,
        x: &Inputs,
        first: usize,
        rope: &RopeTable,
        cache: &KvCache,
        scratch: &mut [f32],
        parts: &mut [f32],
        out: &mut [f32],
    ) {
        let (t, width) = (x.tokens(), self.q.rows);
        let group = width / self.kv_heads;
        let (q, attended) = scratch[..2 * t * width].split_at_mut(t * width);
        kernels::matmul::matmul_of(pool, weights.view(self.q), x, q);
        pool.for_each_row_mut(q, width, &|t, q| {
            for head in q.chunks_exact_mut(self.head_dim) {
                kernels::rms_norm::rms_norm_in_place(
                    pool.isa(),
                    head,
                    Some(&self.q_norm),
                    self.eps,
                );
                rope.rotate(pool, first + t, head);
            }
        });
        let visible = |t: usize, head: usize| cache.visible(self.kv_source, head, first + t);
        let keys: usize = visible(0, 0).iter().map(|segment| segment.keys()).sum();
        let part_keys = attention::part_keys(keys);
        if t == 1 && keys > part_keys {
            // The parts that `attend` would take one after the other.
            let count = keys.div_ceil(part_keys);
            let part_len = attention::part_len(group / self.head_dim, self.head_dim);
            let parts = &mut parts[..self.kv_heads * count * part_len];
            pool.for_each_chunk_mut(parts, part_len, &|i, partial| {
                let (head, part) = (i / count, i % count);
                let q = &q[head * group..(head + 1) * group];
                let keys = part * part_keys..((part + 1) * part_keys).min(keys);
                let segments = visible(0, head);
                attention::attend_part(
                    pool.isa(),
                    q,
                    self.head_dim,
                    ATTENTION_SCALE,
                    &segments,
                    keys,
                    partial,
                );
            });
            for (parts, attended) in parts
                .chunks_exact(count * part_len)
                .zip(attended.chunks_exact_mut(group))
            {
                attention::combine(pool.isa(), parts, self.head_dim, attended);
            }
        } else {
            pool.for_each_row_mut(attended, group, &|i, attended| {
                let segments = visible(i / self.kv_heads, i % self.kv_heads);
                let q = &q[i * group..(i + 1) * group];
                attention::attend(
                    pool.isa(),
                    q,
                    self.head_dim,
                    ATTENTION_SCALE,
                    &segments,
                    attended,
                );
            });
        }
        kernels::matmul::matmul(pool, weights.view(self.o), attended, t, out);
    }
}

/// Gemma 3n scales queries by their norm's weight alone.
const ATTENTION_SCALE: f32 = 1.0;

/// Length of the partial results of one token.
pub(in crate::model) fn parts_len(config: &TextConfig) -> usize {
    let group = config.num_attention_heads / config.num_key_value_heads;
    config.num_key_value_heads * attention::MAX_PARTS * attention::part_len(group, config.head_dim)
}
