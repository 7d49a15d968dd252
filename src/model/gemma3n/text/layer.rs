//! One decoder layer: AltUp around attention, LAuReL, feed-forward and the per-layer input.
//!
//! Source: reference section 2.4, whose step numbers stand in the code.

use kernels::Pool;

use super::altup::AltUp;
use super::laurel::Laurel;
use super::workspace::Workspace;
use super::{Probe, Step};
use crate::model::config::{LayerType, TextConfig};
use crate::model::decoder::attention::Attention;
use crate::model::decoder::feed_forward::FeedForward;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::load::LayerLoader;
use crate::model::decoder::per_layer_embedding::PerLayerGate;
use crate::model::weights::{Mapped, Stretch, WeightsError};

/// The weights of one decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    altup: AltUp,
    laurel: Laurel,
    attention: Attention,
    feed_forward: FeedForward,
    per_layer_gate: PerLayerGate,
    input_layernorm: Vec<f32>,
    post_attention_layernorm: Vec<f32>,
    pre_feedforward_layernorm: Vec<f32>,
    post_feedforward_layernorm: Vec<f32>,
    active: usize,
    streams: usize,
    eps: f32,
    /// Whether what the normed inputs are multiplied with is quantised.
    is_quantized: bool,
}

impl Layer {
    pub(super) fn load(
        weights: &Mapped,
        config: &TextConfig,
        index: usize,
    ) -> Result<Layer, WeightsError> {
        let loader = LayerLoader::new(weights, index);
        let attention = Attention::load(&loader, config, index)?;
        let norm = |leaf: &str| loader.vector(leaf, config.hidden_size);
        Ok(Layer {
            index,
            altup: AltUp::load(&loader, config)?,
            laurel: Laurel::load(&loader, config)?,
            is_quantized: attention.is_quantized(weights),
            attention,
            feed_forward: FeedForward::load(&loader, config, index)?,
            per_layer_gate: PerLayerGate::load(&loader, config)?,
            input_layernorm: norm("input_layernorm.weight")?,
            post_attention_layernorm: norm("post_attention_layernorm.weight")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm.weight")?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm.weight")?,
            active: config.altup_active_idx,
            streams: config.altup_num_inputs,
            eps: config.rms_norm_eps,
        })
    }

    /// Whether the first `width` FFN neurons can be run alone.
    pub(super) fn serves(&self, width: usize) -> bool {
        self.feed_forward.serves(width)
    }

    /// Feed-forward weights that a slice of this width does not read.
    pub(super) fn unused(&self, weights: &Mapped, width: usize, out: &mut Vec<Stretch>) {
        self.feed_forward.unused(weights, width, out);
    }

    /// Steps 1 and 2, and the layer's K and V: `work.h` → `work.h`, `work.x`, cache.
    pub(super) fn predict_and_write_kv(
        &self,
        pool: &Pool,
        weights: &Mapped,
        cache: &mut KvCache,
        work: &mut Workspace,
        t: usize,
    ) {
        let (a, d) = (self.streams, self.input_layernorm.len());
        // 1. AltUp predict.
        self.altup.predict(pool, &mut work.h[..t * a * d], d);
        self.norm_active(pool, work, t);
        let rope = match self.attention.layer_type {
            LayerType::Full => &work.rope_full,
            LayerType::Sliding => &work.rope_sliding,
        };
        self.attention
            .write_kv(pool, weights, &work.x, rope, cache, &mut work.wide);
    }

    /// Step 2, the norm of the active stream: `work.h` → `work.x`.
    pub(super) fn norm_active(&self, pool: &Pool, work: &mut Workspace, t: usize) {
        let (a, d) = (self.streams, self.input_layernorm.len());
        let h = &work.h;
        work.x.norm(
            pool,
            t,
            &|t| &h[(t * a + self.active) * d..][..d],
            &self.input_layernorm,
            self.eps,
            self.is_quantized,
        );
    }

    /// Steps 3 to 9 for `step.t` tokens whose `work.h`, `work.x` are ready: → `work.h`.
    pub(super) fn forward(
        &self,
        pool: &Pool,
        weights: &Mapped,
        cache: &KvCache,
        work: &mut Workspace,
        step: Step,
        probe: Probe<'_>,
    ) {
        let (a, d, t) = (self.streams, self.input_layernorm.len(), step.t);
        let isa = pool.isa();
        let x = &work.x;
        probe("input_layernorm", self.index, x.rows());
        // 3. LAuReL.
        let laurel = &mut work.laurel[..t * d];
        self.laurel.forward(
            pool,
            weights,
            x,
            &mut work.low_rank[..t * work.laurel_rank],
            laurel,
        );
        probe("laurel_out", self.index, laurel);
        // 4. Attention.
        let rope = match self.attention.layer_type {
            LayerType::Full => &work.rope_full,
            LayerType::Sliding => &work.rope_sliding,
        };
        let out = &mut work.out[..t * d];
        self.attention.forward(
            pool,
            weights,
            x,
            step.first,
            rope,
            cache,
            &mut work.wide,
            &mut work.attention_parts,
            out,
        );
        probe("attn_out", self.index, out);
        // 5. y = (x + attention + LAuReL) / sqrt(2), into `out`; its norm into `x`.
        let h = &work.h[..t * a * d];
        pool.for_each_row_mut(out, d, &|t, out| {
            kernels::rms_norm::rms_norm_in_place(
                isa,
                out,
                Some(&self.post_attention_layernorm),
                self.eps,
            );
            let residual = &h[(t * a + self.active) * d..];
            for ((out, &residual), &laurel) in out.iter_mut().zip(residual).zip(&laurel[t * d..]) {
                *out = (residual + *out + laurel) * std::f32::consts::FRAC_1_SQRT_2;
            }
        });
        let y = &*out;
        work.x.norm(
            pool,
            t,
            &|t| &y[t * d..(t + 1) * d],
            &self.pre_feedforward_layernorm,
            self.eps,
            self.is_quantized,
        );
        // 6. Feed-forward.
        let f = &mut work.laurel[..t * d];
        self.feed_forward.forward(
            pool,
            weights,
            &work.x,
            step.width,
            step.sparse,
            &mut work.wide,
            &mut work.feed_forward,
            f,
        );
        probe("mlp_out", self.index, f);
        // 7. z = y + f.
        pool.for_each_row_mut(f, d, &|t, f| {
            kernels::rms_norm::rms_norm_in_place(
                isa,
                f,
                Some(&self.post_feedforward_layernorm),
                self.eps,
            );
            kernels::elementwise::add(isa, f, &y[t * d..(t + 1) * d]);
        });
        // 8. AltUp correct.
        self.altup.correct(pool, f, &mut work.h[..t * a * d], d);
        // 9. Per-layer input.
        let inputs = &work.per_layer_inputs;
        let (offset, width, stride) = (step.ple_offset, work.ple_width, step.ple_stride);
        self.per_layer_gate.forward(
            pool,
            weights,
            |t| &inputs[(step.first + t) * stride + offset..][..width],
            t,
            &mut work.h[..t * a * d],
            &mut work.laurel[..t * d],
            &mut work.gated[..t * work.ple_width],
            &mut work.out[..t * d],
        );
        probe("post_per_layer_input_norm", self.index, &work.out[..t * d]);
        probe("layer", self.index, &work.h[..t * a * d]);
    }
}
