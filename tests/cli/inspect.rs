//! `gemmad inspect` on checkpoints with the names and shapes of the published ones: headers without bytes behind them.
//!
//! The totals are those of the specification (section 8), which are Google's published ones; the slices are computed here
//! from the published table and the tensor list, not from the program's own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One line of a tensor list.
struct Listed {
    name: String,
    shape: Vec<u64>,
    group: String,
    parameters: u64,
}

fn listed(file: &str) -> Vec<Listed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let tensor = |line: &str| {
        let [name, shape, group, parameters] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        Listed {
            name: name.to_owned(),
            shape: shape.split('x').map(|n| n.parse().unwrap()).collect(),
            group: group.to_owned(),
            parameters: parameters.parse().unwrap(),
        }
    };
    let all: Vec<Listed> = text.lines().skip(1).map(tensor).collect();
    for one in &all {
        assert_eq!(
            one.shape.iter().product::<u64>(),
            one.parameters,
            "{}",
            one.name
        );
    }
    all
}

/// Writes a safetensors file of bf16 tensors whose bytes are a hole.
fn write_hole(path: &Path, tensors: &[Listed]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += 2 * tensor.parameters;
        header.insert(
            tensor.name.clone(),
            json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// `config.json` with the values of the published models (specification, section 1).
fn config(layers: usize, shared: usize, intermediate_size: Value, rope: Value) -> Value {
    let kinds: Vec<&str> = (1..=layers)
        .map(|layer| {
            if layer % 5 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    let sparsity: Vec<f64> = (0..layers)
        .map(|layer| if layer < 10 { 0.95 } else { 0.0 })
        .collect();
    let mut text = json!({
        "model_type": "gemma3n_text", "num_hidden_layers": layers, "num_kv_shared_layers": shared,
        "intermediate_size": intermediate_size, "hidden_size": 2048, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 262_400,
        "vocab_size_per_layer_input": 262_144, "hidden_size_per_layer_input": 256, "layer_types": kinds,
        "sliding_window": 512, "activation_sparsity_pattern": sparsity, "altup_num_inputs": 4,
        "altup_active_idx": 0, "altup_coef_clip": 120.0, "altup_correct_scale": true, "laurel_rank": 64,
        "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "rope_scaling": null,
        "final_logit_softcapping": 30.0, "max_position_embeddings": 32_768, "attention_bias": false,
        "query_pre_attn_scalar": 256,
    });
    for (key, value) in rope.as_object().unwrap() {
        text[key] = value.clone();
    }
    json!({
        "architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n", "text_config": text,
        "vision_config": {"architecture": "mobilenetv5_300m_enc", "hidden_size": 2048, "vocab_size": 128,
            "vocab_offset": 262_144, "rms_norm_eps": 1e-6, "model_args": null},
        "audio_config": {"hidden_size": 1536, "input_feat_size": 128, "conf_num_hidden_layers": 12,
            "conf_num_attention_heads": 8, "conf_attention_chunk_size": 12, "conf_attention_context_left": 13,
            "conf_attention_context_right": 0, "conf_attention_logit_cap": 50.0, "conf_conv_kernel_size": 5,
            "conf_reduction_factor": 4, "conf_residual_weight": 0.5, "gradient_clipping": 1e10,
            "sscp_conv_channel_size": [128, 32], "sscp_conv_kernel_size": [[3, 3], [3, 3]],
            "sscp_conv_stride_size": [[2, 2], [2, 2]], "sscp_conv_group_norm_eps": 1e-3, "rms_norm_eps": 1e-6,
            "vocab_size": 128, "vocab_offset": 262_272},
        "boi_token_id": 255_999, "boa_token_id": 256_000, "eoi_token_id": 262_144, "image_token_id": 262_145,
        "eoa_token_id": 262_272, "audio_token_id": 262_273, "vision_soft_tokens_per_image": 256,
        "audio_soft_tokens_per_image": 188, "eos_token_id": [1, 106], "bos_token_id": 2, "pad_token_id": 0,
    })
}

/// E2B as released: keys of 2025, one FFN width, three shards and an index.
fn e2b() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rope = json!({"rope_theta": 1e6, "rope_local_base_freq": 1e4});
    let config = config(30, 10, json!(8192), rope);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors = listed("gemma3n-e2b-tensors.tsv");
    let mut map = serde_json::Map::new();
    for shard in (1..=3).rev() {
        let part = tensors.split_off(tensors.len() * (shard - 1) / shard);
        let name = format!("model-{shard:05}-of-00003.safetensors");
        write_hole(&dir.path().join(&name), &part);
        map.extend(part.into_iter().map(|one| (one.name, name.clone().into())));
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    dir
}

/// E4B as transformers 5 saves it: keys of that, a list of FFN widths, one file.
fn e4b() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rope = json!({"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    let config = config(35, 15, json!(vec![16_384; 35]), rope);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write_hole(
        &dir.path().join("model.safetensors"),
        &listed("gemma3n-e4b-tensors.tsv"),
    );
    dir
}

fn inspect(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["inspect", "--model"])
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && message.is_empty(), "{message}");
    String::from_utf8(output.stdout).unwrap()
}

fn inspect_json(dir: &Path) -> Value {
    serde_json::from_str(&inspect(dir, &["--json"])).unwrap()
}

/// Specification, section 8: (row, E2B, E4B).
const TOTALS: [(&str, u64, u64); 13] = [
    ("text.mlp", 1_509_949_440, 3_523_215_360),
    ("text.attn", 293_614_080, 335_558_400),
    ("text.altup", 25_536_864, 25_598_704),
    ("text.laurel", 7_925_760, 9_246_720),
    ("text.ple_side", 47_247_616, 55_122_176),
    ("text.norms", 247_808, 288_768),
    ("kv_shared_unused", 20_974_080, 31_461_120),
    ("embed_tokens", 537_395_200, 537_395_200),
    ("ple_table", 2_013_265_920, 2_348_810_240),
    ("vision_tower", 294_126_912, 294_126_912),
    ("audio_tower", 681_348_640, 681_348_640),
    ("embed_vision", 4_460_544, 4_460_544),
    ("embed_audio", 3_345_408, 3_345_408),
];
const EFFECTIVE: [u64; 2] = [1_905_495_648, 3_980_491_248];
const TEXT: [u64; 2] = [4_456_156_768, 6_866_696_688];
const TOTAL: [u64; 2] = [5_439_438_272, 7_849_978_192];

#[track_caller]
fn totals_are_the_published_ones(dir: &Path, list: &str, model: usize) {
    let report = inspect_json(dir);
    let text = inspect(dir, &[]);
    let printed = |number: u64| {
        assert!(
            text.split_whitespace()
                .any(|word| word == number.to_string()),
            "{number} is not in\n{text}"
        );
    };
    let mut by_group: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in listed(list) {
        *by_group.entry(tensor.group).or_default() += tensor.parameters;
    }
    for (name, e2b, e4b) in TOTALS {
        let want = [e2b, e4b][model];
        assert_eq!(by_group[name], want, "{name} of the list itself");
        assert_eq!(report["categories"][name], want, "{name}");
        printed(want);
    }
    assert_eq!(
        report["categories"].as_object().unwrap().len(),
        TOTALS.len()
    );
    assert_eq!(report["effective_parameters"], EFFECTIVE[model]);
    assert_eq!(report["total_parameters"], TOTAL[model]);
    printed(EFFECTIVE[model]);
    printed(TOTAL[model]);

    let groups = report["groups"].as_array().unwrap();
    let parameters = |name: &str| {
        let group = groups.iter().find(|group| group["group"] == name).unwrap();
        let parameters = group["parameters"].as_u64().unwrap();
        assert_eq!(group["bytes"], 2 * parameters, "{name}");
        assert!(
            group["mapped_bytes"].as_u64().unwrap() >= 2 * parameters,
            "{name}"
        );
        // Looking at headers reads no weights; the first ones share a page with the header.
        assert!(
            group["resident_bytes"].as_u64().unwrap() <= 1 << 18,
            "{name}"
        );
        parameters
    };
    assert_eq!(parameters("text") + parameters("ple"), TEXT[model]);
    assert_eq!(parameters("audio"), 681_348_640 + 3_345_408);
    assert_eq!(parameters("vision"), 294_126_912 + 4_460_544);

    // Specification, section 2.8.
    let longest = report["kv_cache"].as_array().unwrap().last().unwrap();
    assert_eq!(longest["context"], 32_768);
    assert_eq!(longest["bytes_16_bit"], 272_u64 << 20);
    // A scale of 4 bytes to 256 elements.
    assert_eq!(longest["bytes_8_bit"], (136_u64 << 20) / 256 * 260);
    assert!(text.contains("272.0 MiB"), "{text}");
}

#[test]
fn e2b_in_shards() {
    let dir = e2b();
    totals_are_the_published_ones(dir.path(), "gemma3n-e2b-tensors.tsv", 0);
    let report = inspect_json(dir.path());
    assert_eq!(report["text"]["intermediate_size"], json!(vec![8192; 30]));
    assert_eq!(report["text"]["num_hidden_layers"], 30);
    let slices: Vec<&Value> = report["slices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slice| &slice["name"])
        .collect();
    assert_eq!(slices, ["full"], "the published slices are cut from E4B");
}

#[test]
fn e4b_in_one_file() {
    totals_are_the_published_ones(e4b().path(), "gemma3n-e4b-tensors.tsv", 1);
}

/// The published slices as their table prints them (specification, section 6): name, FFN widths in units of 2048, whether
/// layers 20 to 24 are dropped. The name of all but the official two is the published
/// number of effective parameters, in billions.
const SLICES: [(&str, &str, bool); 16] = [
    ("e2b", "4*30", true),
    ("1.96b", "4*4, 8, 4*25", true),
    ("2.49b", "4*20, 8*5, 4*10", false),
    ("2.54b", "4*4, 8, 4*15, 8*5, 4*10", false),
    ("2.69b", "4*4, 8, 4*4, 8, 4*4, 8, 4*4, 8*6, 4*10", false),
    ("2.73b", "4*15, 8*10, 4*10", false),
    ("2.98b-layer", "4*15, 8*10, 4*5, 8*5", false),
    ("2.98b-block", "4*10, 8*15, 4*10", false),
    ("3.18b", "4*4, 8, 4*4, 8*16, 4*4, 8, 4*4, 8", false),
    ("3.24b", "4*10, 8*20, 4*5", false),
    ("3.39b", "4*4, 8, 4*4, 8*21, 4*4, 8", false),
    ("3.49b", "4*5, 8*25, 4*5", false),
    ("3.59b", "4*4, 8*26, 4*4, 8", false),
    ("3.74b", "4*5, 8*30", false),
    ("3.79b", "4*4, 8*31", false),
    ("e4b", "8*35", false),
];

fn widths(table: &str) -> Vec<u64> {
    let run = |part: &str| {
        let (units, count) = part.split_once('*').unwrap_or((part, "1"));
        let units: u64 = units.parse().unwrap();
        vec![2048 * units; count.parse().unwrap()]
    };
    table.split(", ").flat_map(run).collect()
}

/// Effective parameters of a slice, its FFNs left out, from the list of E4B's tensors: whole layers that are kept, and of
/// `per_layer_model_projection` the kept layers' share.
fn effective_without_ffn(tensors: &[Listed], kept: &[usize]) -> u64 {
    let counted = tensors.iter().filter(|tensor| {
        (tensor.group.starts_with("text.") && tensor.group != "text.mlp")
            || tensor.group == "kv_shared_unused"
    });
    counted
        .map(|tensor| {
            let layer = tensor
                .name
                .split_once(".layers.")
                .map(|(_, rest)| rest.split('.').next().unwrap().parse::<usize>().unwrap());
            match layer {
                Some(layer) if !kept.contains(&layer) => 0,
                None if tensor.name.contains("per_layer_model_projection") => {
                    tensor.parameters / 35 * kept.len() as u64
                }
                _ => tensor.parameters,
            }
        })
        .sum()
}

#[test]
fn the_sixteen_published_slices_of_e4b() {
    let report = inspect_json(e4b().path());
    let text = inspect(e4b().path(), &[]);
    let offered = report["slices"].as_array().unwrap();
    assert_eq!(
        offered.len(),
        1 + SLICES.len(),
        "the whole model and the published"
    );
    let tensors = listed("gemma3n-e4b-tensors.tsv");
    for (name, table, drops) in SLICES {
        let slice = offered.iter().find(|slice| slice["name"] == name);
        let slice = slice.unwrap_or_else(|| panic!("{name} is not offered"));
        assert!(
            text.contains(&format!("  {name} ")),
            "{name} is not in\n{text}"
        );
        let kept: Vec<usize> = (0..35)
            .filter(|layer| !(drops && (20..25).contains(layer)))
            .collect();
        let widths = widths(table);
        assert_eq!(widths.len(), kept.len(), "{name}: the table itself");
        assert_eq!(slice["layers"], kept.len(), "{name}");
        let ffn: u64 = widths.iter().map(|width| 3 * 2048 * width).sum();
        assert_eq!(slice["ffn_parameters"], ffn, "{name}");
        let effective = effective_without_ffn(&tensors, &kept) + ffn;
        match name {
            "e2b" => assert_eq!(effective, EFFECTIVE[0]),
            "e4b" => assert_eq!(effective, EFFECTIVE[1]),
            _ => {
                let published: f64 = name.split('b').next().unwrap().parse().unwrap();
                // The published figures are rounded, and up to 0.02 above the count; one layer makes 0.05.
                let billions = effective as f64 / 1e9;
                assert!(
                    (published - billions).abs() < 0.025,
                    "{name}: {effective} effective parameters"
                );
            }
        }
    }
}
