//! Names and shapes of what the encoders are made of.
//!
//! Source: reference section 8, and the lists of the published checkpoints.

use super::config::{AudioConfig, VisionConfig};
use super::vision::{self, Architecture};
use crate::model::conformer::ConvShape;
use crate::model::encoder::VisionError;
use crate::model::tensor_table::NamedShape;

/// MobileNetV5 and `embed_vision`.
pub(super) fn vision(
    config: &VisionConfig,
    text_hidden_size: usize,
) -> Result<Vec<NamedShape>, VisionError> {
    let network = Architecture::new(config.hidden_size, config.model_args.as_ref())?;
    let own = network.tensors().into_iter();
    let mut tensors: Vec<NamedShape> = own
        .map(|(name, shape)| (format!("{}.{name}", vision::PREFIX), shape))
        .collect();
    let sizes = [config.vocab_size, config.hidden_size, text_hidden_size];
    tensors.extend(embedder("model.embed_vision", sizes));
    Ok(tensors)
}

/// The conformer and `embed_audio`.
pub(super) fn audio(config: &AudioConfig, text_hidden_size: usize) -> Vec<NamedShape> {
    let mut tensors = Vec::new();
    let tower = "model.audio_tower";
    let d = config.hidden_size;
    let (mut channels, mut bands) = (1, config.input_feat_size);
    let start = format!("{tower}.subsample_conv_projection");
    for (i, &out) in config.sscp_conv_channel_size.iter().enumerate() {
        let shape = ConvShape {
            in_freq: bands,
            in_channels: channels,
            out_channels: out,
            kernel: config.sscp_conv_kernel_size[i],
            frames_before: 0,
            stride: config.sscp_conv_stride_size[i],
        };
        let [time, frequency] = shape.kernel;
        let convolution = vec![out, channels, time, frequency];
        tensors.push((format!("{start}.conv_{i}.conv.weight"), convolution));
        tensors.push((format!("{start}.conv_{i}.norm.weight"), vec![out]));
        // A kernel wider than its input gives no frequency, and then no tensor fits.
        (channels, bands) = (out, shape.out_freq().unwrap_or(0));
    }
    let projection = format!("{start}.input_proj_linear.weight");
    tensors.push((projection, vec![d, bands * channels]));
    for layer in 0..config.conf_num_hidden_layers {
        let mut add = |leaf: &str, shape: &[usize]| {
            let name = format!("{tower}.conformer.{layer}.{leaf}");
            tensors.push((name, shape.to_vec()));
        };
        for module in ["ffw_layer_start", "ffw_layer_end"] {
            add(&format!("{module}.pre_layer_norm.weight"), &[d]);
            add(&format!("{module}.ffw_layer_1.weight"), &[4 * d, d]);
            add(&format!("{module}.ffw_layer_2.weight"), &[d, 4 * d]);
            add(&format!("{module}.post_layer_norm.weight"), &[d]);
        }
        add("attention.pre_attn_norm.weight", &[d]);
        for projection in [
            "q_proj",
            "k_proj",
            "v_proj",
            "relative_position_embedding.pos_proj",
        ] {
            add(&format!("attention.attn.{projection}.weight"), &[d, d]);
        }
        let head_dim = d / config.conf_num_attention_heads;
        add("attention.attn.per_dim_scale", &[head_dim]);
        add("attention.post.weight", &[d, d]);
        add("attention.post_norm.weight", &[d]);
        add("lconv1d.pre_layer_norm.weight", &[d]);
        add("lconv1d.linear_start.weight", &[2 * d, d]);
        let taps = [d, 1, config.conf_conv_kernel_size];
        add("lconv1d.depthwise_conv1d.weight", &taps);
        add("lconv1d.conv_norm.weight", &[d]);
        add("lconv1d.linear_end.weight", &[d, d]);
        add("norm.weight", &[d]);
    }
    tensors.extend(embedder(
        "model.embed_audio",
        [config.vocab_size, d, text_hidden_size],
    ));
    tensors
}

fn embedder(prefix: &str, [ids, width, text_width]: [usize; 3]) -> [NamedShape; 4] {
    [
        ("embedding", vec![ids, width]),
        ("hard_embedding_norm", vec![width]),
        ("soft_embedding_norm", vec![width]),
        ("embedding_projection", vec![text_width, width]),
    ]
    .map(|(leaf, shape)| (format!("{prefix}.{leaf}.weight"), shape))
}
