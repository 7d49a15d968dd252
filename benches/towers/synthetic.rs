//! A checkpoint of the real towers' sizes, with seeded random weights: what costs time and memory does not depend on their values.

use std::io::{BufWriter, Write};
use std::path::Path;

use gemmad::model::gemma3n::config::{AudioConfig, Config, VisionConfig};
use gemmad::model::gemma3n::vision::{Architecture, PREFIX};
use half::bf16;

/// A tensor's name and shape.
pub(crate) type Shape = (String, Vec<usize>);

/// The demo model's config with towers of the released sizes, which are the defaults of their keys.
pub(crate) fn config() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/config.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["audio_config"] = serde_json::json!({});
    json["vision_config"] = serde_json::json!({});
    Config::parse(json.to_string().as_bytes(), &path).unwrap()
}

/// Every tensor of the audio tower and of `embed_audio`.
pub(crate) fn audio_tensors(config: &AudioConfig, text_hidden_size: usize) -> Vec<Shape> {
    let width = config.hidden_size;
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));

    let prefix = "model.audio_tower.subsample_conv_projection";
    let (mut in_channels, mut freq) = (1, config.input_feat_size);
    for i in 0..2 {
        let (channels, kernel) = (
            config.sscp_conv_channel_size[i],
            config.sscp_conv_kernel_size[i],
        );
        add(
            format!("{prefix}.conv_{i}.conv.weight"),
            &[channels, in_channels, kernel[0], kernel[1]],
        );
        add(format!("{prefix}.conv_{i}.norm.weight"), &[channels]);
        freq = (freq + 2 - kernel[1]) / config.sscp_conv_stride_size[i][1] + 1;
        in_channels = channels;
    }
    add(
        format!("{prefix}.input_proj_linear.weight"),
        &[width, freq * in_channels],
    );

    for i in 0..config.conf_num_hidden_layers {
        let prefix = format!("model.audio_tower.conformer.{i}");
        for layer in ["ffw_layer_start", "ffw_layer_end"] {
            add(format!("{prefix}.{layer}.pre_layer_norm.weight"), &[width]);
            add(
                format!("{prefix}.{layer}.ffw_layer_1.weight"),
                &[4 * width, width],
            );
            add(
                format!("{prefix}.{layer}.ffw_layer_2.weight"),
                &[width, 4 * width],
            );
            add(format!("{prefix}.{layer}.post_layer_norm.weight"), &[width]);
        }
        for name in [
            "q_proj",
            "k_proj",
            "v_proj",
            "relative_position_embedding.pos_proj",
        ] {
            add(
                format!("{prefix}.attention.attn.{name}.weight"),
                &[width, width],
            );
        }
        add(
            format!("{prefix}.attention.attn.per_dim_scale"),
            &[width / config.conf_num_attention_heads],
        );
        add(format!("{prefix}.attention.post.weight"), &[width, width]);
        for name in [
            "attention.pre_attn_norm",
            "attention.post_norm",
            "lconv1d.pre_layer_norm",
            "lconv1d.conv_norm",
            "norm",
        ] {
            add(format!("{prefix}.{name}.weight"), &[width]);
        }
        add(
            format!("{prefix}.lconv1d.linear_start.weight"),
            &[2 * width, width],
        );
        add(
            format!("{prefix}.lconv1d.depthwise_conv1d.weight"),
            &[width, 1, config.conf_conv_kernel_size],
        );
        add(
            format!("{prefix}.lconv1d.linear_end.weight"),
            &[width, width],
        );
    }

    tensors.extend(embedder_tensors(
        "model.embed_audio",
        config.vocab_size,
        width,
        text_hidden_size,
    ));
    tensors
}

/// Every tensor of the vision tower and of `embed_vision`.
pub(crate) fn vision_tensors(config: &VisionConfig, text_hidden_size: usize) -> Vec<Shape> {
    let architecture = Architecture::new(config.hidden_size, config.model_args.as_ref()).unwrap();
    let tower = architecture.tensors().into_iter();
    let embedder = embedder_tensors(
        "model.embed_vision",
        config.vocab_size,
        config.hidden_size,
        text_hidden_size,
    );
    tower
        .map(|(name, shape)| (format!("{PREFIX}.{name}"), shape))
        .chain(embedder)
        .collect()
}

fn embedder_tensors(
    prefix: &str,
    vocab_size: usize,
    width: usize,
    text_hidden_size: usize,
) -> [Shape; 4] {
    [
        ("embedding", vec![vocab_size, width]),
        ("embedding_projection", vec![text_hidden_size, width]),
        ("hard_embedding_norm", vec![width]),
        ("soft_embedding_norm", vec![width]),
    ]
    .map(|(name, shape)| (format!("{prefix}.{name}.weight"), shape))
}

/// Writes `tensors` as `model.safetensors` in `dir`: bfloat16, norms 1, matrices uniform with a variance of 1 / inputs. Returns how
/// many parameters they have.
pub(crate) fn write_checkpoint(dir: &Path, tensors: &[Shape]) -> usize {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::with_capacity(
        1 << 20,
        std::fs::File::create(dir.join("model.safetensors")).unwrap(),
    );
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut state = 1u64;
    for (_, shape) in tensors {
        let inputs = shape.iter().skip(1).product::<usize>().max(1);
        let scale = (12.0 / inputs as f32).sqrt();
        for _ in 0..shape.iter().product::<usize>() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let value = if shape.len() == 1 {
                1.0
            } else {
                uniform * scale
            };
            file.write_all(&bf16::from_f32(value).to_le_bytes())
                .unwrap();
        }
    }
    file.flush().unwrap();
    end / 2
}
