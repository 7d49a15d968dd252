//! MQA, the attention block: many query heads, one key and one value head, over all pixels of the picture.

use std::ops::Range;

use kernels::attention::{Int8Memory, attend_all_int8};
use kernels::{Matrix, Pool, matmul, softmax};

use super::feature_map::{RowSource, RowWindow, Strips};
use super::inverted_bottleneck::Depthwise;
use super::pixelwise::{Activation, Compute, Norm};
use crate::model::weights::{Mapped, Tensor, WeightsError};

/// How many query heads there are, and how wide queries, keys and values are.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) num_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
}

/// Keys or values: a depthwise convolution that thins the pixels out (if its stride is above 1), then a projection.
struct Memory {
    down_conv: Option<Depthwise>,
    /// `[width, in]`
    proj: Tensor,
}

impl Memory {
    fn load(
        weights: &Mapped,
        prefix: &str,
        channels: usize,
        width: usize,
        [kernel, stride]: [usize; 2],
    ) -> Result<Self, WeightsError> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        let names = [name("down_conv"), name("norm")];
        Ok(Memory {
            down_conv: (stride > 1)
                .then(|| Depthwise::load(weights, names, channels, kernel, stride))
                .transpose()?,
            proj: weights.matrix(&name("proj"), width, channels)?,
        })
    }

    /// `[positions, width]` from the whole normed picture, strip by strip.
    fn project(
        &self,
        compute: Compute<'_>,
        picture: &RowWindow,
        [height, width]: [usize; 2],
    ) -> Vec<f32> {
        let channels = self.proj.cols;
        let Some(down_conv) = &self.down_conv else {
            let mut out = vec![0.0; height * width * self.proj.rows];
            compute.pointwise(self.proj, picture.rows(0..height), &mut out);
            return out;
        };
        let walks = down_conv.walks(height, width);
        let [rows, columns] = walks.map(|walk| walk.output);
        let mut thinned = vec![0.0; rows * columns * channels];
        down_conv.apply(
            compute.pool,
            walks,
            picture,
            0..rows,
            Activation::None,
            &mut thinned,
        );
        let mut out = vec![0.0; rows * columns * self.proj.rows];
        compute.pointwise(self.proj, &thinned, &mut out);
        out
    }
}

/// `out = gamma (W_o · heads(softmax(q_h · k / sqrt(key_dim)) · v))` of the normed input, without position encoding.
///
/// Source: timm `MobileAttention` with `MultiQueryAttention2d`; MobileNetV4 (arXiv 2404.10518), section 4.
pub(super) struct MultiQueryAttention {
    heads: Heads,
    norm: Norm,
    /// `[num_heads * key_dim, in]`
    query: Tensor,
    key: Memory,
    value: Memory,
    /// `[out, num_heads * value_dim]`
    output: Tensor,
    /// Layer scale.
    gamma: Vec<f32>,
}

impl MultiQueryAttention {
    pub(super) fn load(
        weights: &Mapped,
        prefix: &str,
        [in_channels, out_channels]: [usize; 2],
        heads: Heads,
        kernel_and_stride: [usize; 2],
    ) -> Result<Self, WeightsError> {
        let Heads {
            num_heads,
            key_dim,
            value_dim,
        } = heads;
        let memory = |part: &str, width| {
            Memory::load(
                weights,
                &format!("{prefix}.attn.{part}"),
                in_channels,
                width,
                kernel_and_stride,
            )
        };
        let query = format!("{prefix}.attn.query.proj.weight");
        let output = format!("{prefix}.attn.output.proj.weight");
        Ok(MultiQueryAttention {
            heads,
            norm: Norm::load(weights, &format!("{prefix}.norm.weight"), in_channels)?,
            query: weights.matrix(&query, num_heads * key_dim, in_channels)?,
            key: memory("key", key_dim)?,
            value: memory("value", value_dim)?,
            output: weights.matrix(&output, out_channels, num_heads * value_dim)?,
            gamma: weights.vector(&format!("{prefix}.layer_scale.gamma"), out_channels)?,
        })
    }

    /// Computes the block strip by strip and hands each strip of the output, with its rows, to `emit`.
    pub(super) fn run<S: RowSource>(
        &self,
        compute: Compute<'_>,
        source: &mut S,
        mut emit: impl FnMut(&mut S, Range<usize>, &[f32]),
    ) {
        let Heads {
            num_heads,
            key_dim,
            value_dim,
        } = self.heads;
        let [height, width, channels] = source.shape();
        let pool = compute.pool;
        let mut normed = RowWindow::new(width * channels, height);
        normed.slide(0..height, |rows, to| {
            source.read(pool, rows, to);
            self.norm.apply(pool, to, Activation::None);
        });

        let all = [self.query, self.key.proj, self.value.proj];
        let rounds = |proj: &Tensor| compute.weights.view(*proj).data.rounds_inputs();
        let seen = Seen::new(
            pool,
            self.heads,
            self.key.project(compute, &normed, [height, width]),
            self.value.project(compute, &normed, [height, width]),
            all.iter().all(rounds),
        );

        let out = self.output.rows;
        let (mut queries, mut scores) = (Vec::new(), Vec::new());
        let (mut attended, mut outs) = (Vec::new(), Vec::new());
        let per_pixel = num_heads * (key_dim + seen.scores() + value_dim) + out;
        for rows in Strips::new(height, width * per_pixel).iter() {
            let pixels = rows.len() * width;
            queries.resize(pixels * self.query.rows, 0.0);
            compute.pointwise(self.query, normed.rows(rows.clone()), &mut queries);
            // A pixel's heads lie one behind the other, so that each is a row of the products below.
            let heads = pixels * num_heads;
            attended.resize(heads * value_dim, 0.0);
            seen.attend(pool, &queries, &mut scores, &mut attended);
            outs.resize(pixels * out, 0.0);
            compute.pointwise(self.output, &attended, &mut outs);
            for pixel in outs.chunks_exact_mut(out) {
                pixel
                    .iter_mut()
                    .zip(&self.gamma)
                    .for_each(|(value, gamma)| *value *= gamma);
            }
            emit(source, rows, &outs);
        }
    }
}

/// Keys and values of all positions, as queries meet them.
enum Seen {
    Floats {
        key_dim: usize,
        value_dim: usize,
        /// `[positions, key_dim]`, with the scale of the scores, as there are fewest of them.
        keys: Vec<f32>,
        /// `[value_dim, positions]`
        values: Vec<f32>,
    },
    /// Rounded to 8 bits, as what they are made of was.
    Int8 { memory: Int8Memory, scale: f32 },
}

impl Seen {
    /// `keys` are `[positions, key_dim]`, `values` `[positions, value_dim]`.
    fn new(pool: &Pool, heads: Heads, mut keys: Vec<f32>, values: Vec<f32>, int8: bool) -> Seen {
        let Heads {
            key_dim, value_dim, ..
        } = heads;
        let scale = (key_dim as f32).powf(-0.5);
        if int8 {
            let positions = keys.len() / key_dim;
            let dims = [key_dim, value_dim];
            let memory = Int8Memory::new(pool, [&keys, &values], positions, 1, dims);
            return Seen::Int8 { memory, scale };
        }
        keys.iter_mut().for_each(|key| *key *= scale);
        Seen::Floats {
            key_dim,
            value_dim,
            keys,
            values: transposed(&values, value_dim),
        }
    }

    /// Scores of a query that exist at a time, beyond what a task keeps to itself.
    fn scores(&self) -> usize {
        match self {
            Seen::Floats { key_dim, keys, .. } => keys.len() / key_dim,
            Seen::Int8 { .. } => 0,
        }
    }

    /// Writes what each of `queries` `[heads, key_dim]` attends to, `[heads, value_dim]`.
    fn attend(&self, pool: &Pool, queries: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
        match self {
            Seen::Int8 { memory, scale } => attend_all_int8(pool, queries, memory, *scale, out),
            Seen::Floats {
                key_dim,
                value_dim,
                keys,
                values,
            } => {
                let (heads, positions) = (queries.len() / key_dim, keys.len() / key_dim);
                scores.resize(heads * positions, 0.0);
                let keys = Matrix::f32(keys, positions, *key_dim);
                matmul::matmul_in_any_order(pool, keys, queries, heads, scores);
                pool.for_each_row_mut(scores, positions, &|_, row| {
                    softmax::softmax(pool.isa(), row)
                });
                let values = Matrix::f32(values, *value_dim, positions);
                matmul::matmul_in_any_order(pool, values, scores, heads, out);
            }
        }
    }
}

/// `[width, positions]` from `[positions, width]`.
fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    let positions = rows.len() / width;
    (0..rows.len())
        .map(|at| rows[at % positions * width + at / positions])
        .collect()
}
