//! Attention of every patch to every patch, a part of the heads at a time; in 8 bits where the projections
//! round to 8 bits, too.
//!
//! Source: reference section 3.3; `Gemma4VisionAttention`.

use std::ops::Range;

use kernels::attention::{Int8Memory, attend_all, attend_all_int8};
use kernels::{Matrix, elementwise};

use super::rope::RopeTable;
use super::{CHUNK, Loader};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::decoder::{Compute, RmsNorm};
use crate::model::weights::WeightsError;

/// Parts that the heads are done in: their keys and values are half as much memory then as the patches themselves.
const PARTS: usize = 4;

/// `x += rms(o(heads(softmax(q · k) v)))` of the normed patches, with queries and keys that are normed and turned, normed values, scale 1
/// and no mask.
pub(super) struct Attention {
    heads: usize,
    head_dim: usize,
    hidden: usize,
    input_norm: RmsNorm,
    query: Projection,
    key: Projection,
    value: Projection,
    output: ClippedLinear,
    post_norm: RmsNorm,
    /// Whether queries, keys, values and weights are rounded to 8 bits, as what they are made of was.
    in_8_bits: bool,
}

/// Queries, keys or values: a linear layer, and a norm over each head.
struct Projection {
    linear: ClippedLinear,
    norm: RmsNorm,
    /// Whether heads turn by their patch's position.
    turns: bool,
}

impl Attention {
    pub(super) fn load(loader: &Loader<'_>) -> Result<Attention, WeightsError> {
        let config = loader.config;
        let (heads, head_dim, hidden) = (
            config.num_attention_heads,
            config.head_dim,
            config.hidden_size,
        );
        let projection = |leaf, norm, turns| {
            Ok::<_, WeightsError>(Projection {
                linear: loader.linear(leaf, heads * head_dim, hidden)?,
                norm,
                turns,
            })
        };
        let q_norm = loader.norm("self_attn.q_norm", head_dim)?;
        let k_norm = loader.norm("self_attn.k_norm", head_dim)?;
        let v_norm = RmsNorm::without_weight(config.rms_norm_eps);
        let query = projection("self_attn.q_proj", q_norm, true)?;
        let key = projection("self_attn.k_proj", k_norm, true)?;
        let value = projection("self_attn.v_proj", v_norm, false)?;
        let all = [&query, &key, &value];
        let in_8_bits = all.iter().all(|p| p.linear.rounds_inputs(loader.weights));
        Ok(Attention {
            heads,
            head_dim,
            hidden,
            input_norm: loader.norm("input_layernorm", hidden)?,
            query,
            key,
            value,
            in_8_bits,
            output: loader.linear("self_attn.o_proj", hidden, heads * head_dim)?,
            post_norm: loader.norm("post_attention_layernorm", hidden)?,
        })
    }

    /// Adds to the patches `x` `[patches, hidden]`; `attended` is room for `[patches, heads · head_dim]`, of which nothing is read.
    pub(super) fn add_to(
        &self,
        compute: Compute<'_>,
        rope: &RopeTable,
        x: &mut [f32],
        attended: &mut [f32],
        between: &mut dyn FnMut(),
    ) {
        let part = self.heads_of_a_part();
        for first in (0..self.heads).step_by(part) {
            let heads = first..self.heads.min(first + part);
            self.attend(compute, rope, heads, x, attended, between);
        }
        let width = self.heads * self.head_dim;
        let chunks = x.chunks_mut(CHUNK * self.hidden);
        for (x, attended) in chunks.zip(attended.chunks(CHUNK * width)) {
            let mut out = vec![0.0; x.len()];
            self.output
                .forward(compute.pool, compute.weights, attended, &mut out);
            self.post_norm.rows(compute.pool, &mut out, self.hidden);
            elementwise::add(compute.isa(), x, &out);
        }
    }

    /// Writes the columns of `heads` of `attended`.
    fn attend(
        &self,
        compute: Compute<'_>,
        rope: &RopeTable,
        heads: Range<usize>,
        x: &[f32],
        attended: &mut [f32],
        between: &mut dyn FnMut(),
    ) {
        let pool = compute.pool;
        let columns = heads.start * self.head_dim..heads.end * self.head_dim;
        let (patches, width) = (x.len() / self.hidden, columns.len());
        let project = |projection: &Projection, first: usize, normed: &[f32], out: &mut [f32]| {
            let Projection {
                linear,
                norm,
                turns,
            } = projection;
            linear.forward_rows(pool, compute.weights, columns.clone(), normed, out);
            pool.for_each_row_mut(out, width, &|patch, row| {
                for head in row.chunks_exact_mut(self.head_dim) {
                    norm.row(pool.isa(), head);
                    if *turns {
                        rope.rotate(pool.isa(), first + patch, head);
                    }
                }
            });
        };
        let mut room = vec![0.0; CHUNK.min(patches) * self.hidden];
        let (mut k, mut v) = (vec![0.0; patches * width], vec![0.0; patches * width]);
        let of_chunks = k.chunks_mut(CHUNK * width).zip(v.chunks_mut(CHUNK * width));
        for ((chunk, x), (k, v)) in x.chunks(CHUNK * self.hidden).enumerate().zip(of_chunks) {
            let normed = self.normed(compute, x, &mut room);
            project(&self.key, chunk * CHUNK, normed, k);
            project(&self.value, chunk * CHUNK, normed, v);
        }
        between();
        let int8 = self.in_8_bits.then(|| {
            let rows = [&std::mem::take(&mut k)[..], &std::mem::take(&mut v)];
            Int8Memory::new(pool, rows, patches, heads.len(), [self.head_dim; 2])
        });
        let mut q = vec![0.0; CHUNK.min(patches) * width];
        let mut out = q.clone();
        let all = self.heads * self.head_dim;
        let chunks = x.chunks(CHUNK * self.hidden).enumerate();
        for ((chunk, x), attended) in chunks.zip(attended.chunks_mut(CHUNK * all)) {
            let len = x.len() / self.hidden * width;
            let (q, out) = (&mut q[..len], &mut out[..len]);
            let normed = self.normed(compute, x, &mut room);
            project(&self.query, chunk * CHUNK, normed, q);
            match &int8 {
                Some(memory) => attend_all_int8(pool, q, memory, 1.0, out),
                None => {
                    let [k, v] = [&k, &v].map(|rows| Matrix::f32(rows, patches, width));
                    attend_all(pool, q, k, v, heads.len(), 1.0, out);
                }
            }
            let rows = attended.chunks_exact_mut(all);
            for (row, out) in rows.zip(out.chunks_exact(width)) {
                row[columns.clone()].copy_from_slice(out);
            }
            between();
        }
    }

    fn normed<'r>(&self, compute: Compute<'_>, x: &[f32], room: &'r mut [f32]) -> &'r [f32] {
        let normed = &mut room[..x.len()];
        normed.copy_from_slice(x);
        self.input_norm.rows(compute.pool, normed, self.hidden);
        normed
    }

    /// All of them where weights are stored so that a part's rows cannot be read alone.
    fn heads_of_a_part(&self) -> usize {
        let part = self.heads.div_ceil(PARTS);
        let all = [&self.query, &self.key, &self.value];
        let stands_alone = |p: &&Projection| p.linear.has_rows(part * self.head_dim);
        if all.iter().all(stands_alone) {
            part
        } else {
            self.heads
        }
    }
}
