//! Names and shapes of what the encoders are made of.
//!
//! Source: reference section 6, and the lists of the published checkpoints.

use super::audio::LOG_MEL;
use super::config::{AudioConfig, VisionConfig};
use crate::model::clipped_linear::BOUNDS;
use crate::model::tensor_table::NamedShape;

/// A list in the making.
struct Table {
    tensors: Vec<NamedShape>,
    /// Whether linear layers have bounds.
    clipped: bool,
}

impl Table {
    fn numbers(&mut self, name: &str, shape: &[usize]) {
        self.tensors.push((name.to_owned(), shape.to_vec()));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.numbers(&format!("{name}.weight"), &[width]);
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize) {
        self.numbers(&format!("{name}.linear.weight"), &[rows, cols]);
        if self.clipped {
            for bound in BOUNDS.as_flattened() {
                self.numbers(&format!("{name}.{bound}"), &[]);
            }
        }
    }
}

/// The vision transformer and `embed_vision`.
pub(super) fn vision(config: &VisionConfig, text_hidden_size: usize) -> Vec<NamedShape> {
    let mut table = Table {
        tensors: Vec::new(),
        clipped: config.use_clipped_linears,
    };
    let tower = "model.vision_tower";
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let heads = config.num_attention_heads * config.head_dim;
    let pixels = 3 * config.patch_size * config.patch_size;
    let patches = format!("{tower}.patch_embedder");
    table.numbers(&format!("{patches}.input_proj.weight"), &[d, pixels]);
    let positions = [2, config.position_embedding_size, d];
    table.numbers(&format!("{patches}.position_embedding_table"), &positions);
    for layer in 0..config.num_hidden_layers {
        let name = |leaf: &str| format!("{tower}.encoder.layers.{layer}.{leaf}");
        table.norm(&name("input_layernorm"), d);
        for projection in ["q_proj", "k_proj", "v_proj"] {
            table.linear(&name(&format!("self_attn.{projection}")), heads, d);
        }
        table.norm(&name("self_attn.q_norm"), config.head_dim);
        table.norm(&name("self_attn.k_norm"), config.head_dim);
        table.linear(&name("self_attn.o_proj"), d, heads);
        table.norm(&name("post_attention_layernorm"), d);
        table.norm(&name("pre_feedforward_layernorm"), d);
        table.linear(&name("mlp.gate_proj"), f, d);
        table.linear(&name("mlp.up_proj"), f, d);
        table.linear(&name("mlp.down_proj"), d, f);
        table.norm(&name("post_feedforward_layernorm"), d);
    }
    let projection = "model.embed_vision.embedding_projection.weight";
    table.numbers(projection, &[text_hidden_size, d]);
    table.tensors
}

/// The conformer and `embed_audio`.
pub(super) fn audio(config: &AudioConfig, text_hidden_size: usize) -> Vec<NamedShape> {
    let mut table = Table {
        tensors: Vec::new(),
        clipped: config.use_clipped_linears,
    };
    let tower = "model.audio_tower";
    let (d, out) = (config.hidden_size, config.output_proj_dims);
    let [first, second] = config.subsampling_conv_channels;
    let start = format!("{tower}.subsample_conv_projection");
    for (i, channels_in, channels) in [(0, 1, first), (1, first, second)] {
        let layer = format!("{start}.layer{i}");
        let shape = [channels, channels_in, 3, 3];
        table.numbers(&format!("{layer}.conv.weight"), &shape);
        table.norm(&format!("{layer}.norm"), channels);
    }
    // Two convolutions of stride 2.
    let frame = LOG_MEL.bands.div_ceil(4) * second;
    table.numbers(&format!("{start}.input_proj_linear.weight"), &[d, frame]);
    for layer in 0..config.num_hidden_layers {
        let name = |leaf: &str| format!("{tower}.layers.{layer}.{leaf}");
        for module in ["feed_forward1", "feed_forward2"] {
            let name = |leaf: &str| name(&format!("{module}.{leaf}"));
            table.norm(&name("pre_layer_norm"), d);
            table.linear(&name("ffw_layer_1"), 4 * d, d);
            table.linear(&name("ffw_layer_2"), d, 4 * d);
            table.norm(&name("post_layer_norm"), d);
        }
        table.norm(&name("norm_pre_attn"), d);
        for projection in ["q_proj", "k_proj", "v_proj", "post"] {
            table.linear(&name(&format!("self_attn.{projection}")), d, d);
        }
        table.numbers(&name("self_attn.relative_k_proj.weight"), &[d, d]);
        let head_dim = d / config.num_attention_heads;
        table.numbers(&name("self_attn.per_dim_scale"), &[head_dim]);
        table.norm(&name("norm_post_attn"), d);
        table.norm(&name("lconv1d.pre_layer_norm"), d);
        table.linear(&name("lconv1d.linear_start"), 2 * d, d);
        let taps = [d, 1, config.conv_kernel_size];
        table.numbers(&name("lconv1d.depthwise_conv1d.weight"), &taps);
        table.norm(&name("lconv1d.conv_norm"), d);
        table.linear(&name("lconv1d.linear_end"), d, d);
        table.norm(&name("norm_out"), d);
    }
    table.numbers(&format!("{tower}.output_proj.weight"), &[out, d]);
    table.numbers(&format!("{tower}.output_proj.bias"), &[out]);
    let projection = "model.embed_audio.embedding_projection.weight";
    table.numbers(projection, &[text_hidden_size, out]);
    table.tensors
}
