//! Attention of a frame to itself and the few frames before it.

use std::f64::consts::LN_2;

use kernels::elementwise::{dot, scale_add, soft_cap};
use kernels::softmax::softmax;
use kernels::{Pool, matmul};

use super::{BlockNames, Shape, Step};
use crate::model::clipped_linear::ClippedLinear;
use crate::model::weights::{Mapped, WeightsError};

/// Local attention with relative positions.
///
/// With `q_t`, `k_s`, `v_s` a head's projections of frames `t` and `s`, and `r = t - s` from 0 to `context_frames - 1`:
///
/// ```text
/// q_t   = (W_q z_t) * head_dim^-0.5 / ln 2 * softplus(per_dim_scale)
/// logit = cap tanh((key_scale q_t . k_s + q_t . R[r]) / cap)         cap = logit_cap
/// out_t = sum_s softmax(logit)_s v_s                       over the s that are in the clip and not padding
/// ```
///
/// `R[r] = W_r sincos(r)` does not depend on the input and is computed once. The reference computes this in chunks of queries; the
/// result does not depend on that.
///
/// Source: `Gemma3nAudioAttention`, `Gemma3nAudioRelativePositionEmbedding`, `Gemma4AudioAttention`.
#[derive(Debug)]
pub struct LocalAttention {
    q_proj: ClippedLinear,
    k_proj: ClippedLinear,
    v_proj: ClippedLinear,
    width: usize,
    /// `[head_dim]`: what queries are multiplied with.
    query_scale: Vec<f32>,
    /// `[context, hidden_size]`: `R` by distance.
    relative: Vec<f32>,
    context: usize,
    heads: usize,
    key_scale: f32,
    logit_cap: f32,
}

/// Keys and values of the frames that the next query still sees.
#[derive(Clone, Debug)]
pub struct AttentionState {
    /// `[context - 1 + frames, hidden_size]`; before the clip there are invisible frames.
    keys: Vec<f32>,
    values: Vec<f32>,
    visible: Vec<bool>,
    queries: Vec<f32>,
}

impl LocalAttention {
    /// Finds the tensors of a block in `weights`, whose names begin with `prefix`, and computes the relative positions.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn load(
        pool: &Pool,
        weights: &Mapped,
        shape: &Shape,
        names: &BlockNames,
        prefix: &str,
    ) -> Result<LocalAttention, WeightsError> {
        let (width, heads, context) = (shape.width, shape.heads, shape.context_frames);
        let head_dim = width / heads;
        let positions = format!("{prefix}.{}.weight", names.relative_positions);
        let projection = weights.matrix(&positions, width, width)?;
        let mut relative = vec![0.0; context * width];
        matmul::matmul_in_any_order(
            pool,
            weights.view(projection),
            &sincos(context, width),
            context,
            &mut relative,
        );
        let prefix = format!("{prefix}.{}", names.attn);
        let linear = |part: &str| {
            let name = format!("{prefix}.{part}{}", names.matrix);
            ClippedLinear::load(weights, &name, width, width)
        };
        let per_dim_scale = weights.vector(&format!("{prefix}.per_dim_scale"), head_dim)?;
        let scale = (head_dim as f64).powf(-0.5) / LN_2;
        Ok(LocalAttention {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            width,
            query_scale: per_dim_scale
                .iter()
                .map(|&x| (scale * f64::from(x).exp().ln_1p()) as f32)
                .collect(),
            relative,
            context,
            heads,
            key_scale: shape.key_scale,
            logit_cap: shape.logit_cap,
        })
    }

    /// The state at the start of a clip.
    pub fn start(&self) -> AttentionState {
        let history = self.context - 1;
        AttentionState {
            keys: vec![0.0; history * self.width],
            values: vec![0.0; history * self.width],
            visible: vec![false; history],
            queries: Vec::new(),
        }
    }

    /// Attends from the frames `z` `[frames, hidden_size]`, of which `padded` are not to be seen, and writes `out`
    /// `[frames, hidden_size]`.
    pub(super) fn forward(
        &self,
        step: &Step<'_>,
        state: &mut AttentionState,
        z: &[f32],
        padded: &[bool],
        out: &mut [f32],
    ) {
        let (width, history, frames) = (self.width, self.context - 1, padded.len());
        state.keys.resize((history + frames) * width, 0.0);
        state.values.resize((history + frames) * width, 0.0);
        state.queries.resize(frames * width, 0.0);
        state.visible.extend(padded.iter().map(|padded| !padded));
        step.linear(self.q_proj, z, &mut state.queries);
        step.linear(self.k_proj, z, &mut state.keys[history * width..]);
        step.linear(self.v_proj, z, &mut state.values[history * width..]);
        for query in state.queries.chunks_exact_mut(self.query_scale.len()) {
            for (q, scale) in query.iter_mut().zip(&self.query_scale) {
                *q *= scale;
            }
        }
        let state_ref = &*state;
        step.pool
            .for_each_row_mut(out, width, &|t, out| self.attend(step, state_ref, t, out));
        // What the next queries see moves to the front.
        state.keys.drain(..frames * width);
        state.values.drain(..frames * width);
        state.visible.drain(..frames);
    }

    /// All heads of query `t`.
    fn attend(&self, step: &Step<'_>, state: &AttentionState, t: usize, out: &mut [f32]) {
        let (isa, width) = (step.pool.isa(), self.width);
        let head_dim = width / self.heads;
        let mut seen = [0.0; 32];
        let mut seen_more = Vec::new();
        let weights: &mut [f32] = if self.context <= seen.len() {
            &mut seen
        } else {
            seen_more.resize(self.context, 0.0);
            &mut seen_more
        };
        // Row t of the keys is the oldest that the query sees, `context - 1` frames back.
        let visible = || (t..t + self.context).filter(|&s| state.visible[s]);
        let count = visible().count();
        out.fill(0.0);
        for head in 0..self.heads {
            let columns = head * head_dim..(head + 1) * head_dim;
            let part = |row: usize| row * width + columns.start..row * width + columns.end;
            let query = &state.queries[part(t)];
            for (weight, s) in weights.iter_mut().zip(visible()) {
                let distance = t + self.context - 1 - s;
                *weight = self.key_scale * dot(isa, query, &state.keys[part(s)])
                    + dot(isa, query, &self.relative[part(distance)]);
            }
            soft_cap(isa, &mut weights[..count], self.logit_cap);
            softmax(isa, &mut weights[..count]);
            for (&weight, s) in weights.iter().zip(visible()) {
                scale_add(
                    isa,
                    &mut out[columns.clone()],
                    weight,
                    &state.values[part(s)],
                );
            }
        }
    }
}

/// `[distances, width]`: `sin(r w_i)` for all `i`, then `cos(r w_i)`, with `w_i = 10000^(-i / (width/2 - 1))`.
fn sincos(distances: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let mut out = Vec::with_capacity(distances * width);
    for r in 0..distances {
        let angle = |i: usize| r as f64 * (-(i as f64) * step).exp();
        out.extend((0..half).map(|i| angle(i).sin() as f32));
        out.extend((0..half).map(|i| angle(i).cos() as f32));
        out.resize((r + 1) * width, 0.0);
    }
    out
}
