//! `gemmad inspect` on checkpoints with the names and shapes of the published ones: headers without bytes behind them.
//!
//! The totals are those of the specifications (section 8 of Gemma 3n's, section 6 of Gemma 4's), which are Google's published ones; the
//! slices are computed here from the published table and the tensor list, not from the program's own.

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
            shape: match shape {
                "scalar" => Vec::new(),
                _ => shape.split('x').map(|n| n.parse().unwrap()).collect(),
            },
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

/// What the specification says of a published checkpoint.
struct Published {
    /// The list of its tensors.
    list: &'static str,
    /// Each row in which parameters are counted, and how many it has.
    rows: Vec<(&'static str, u64)>,
    effective: u64,
    /// Text as stored: all but the towers.
    text: u64,
    audio: u64,
    vision: u64,
    total: u64,
    max_context: u64,
    /// Bytes of keys and values in 16 bits, by context.
    kv_16_bit: &'static [(u64, u64)],
    /// A scale of 4 bytes to so many keys or values, the smallest and the largest head.
    head_dims: [u64; 2],
}

/// Specification of Gemma 3n, section 8: (row, E2B, E4B).
const GEMMA3N: [(&str, u64, u64); 13] = [
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

/// Gemma 3n's, that of E4B's slice e2b too.
const EFFECTIVE_E2B: u64 = 1_905_495_648;
const EFFECTIVE_E4B: u64 = 3_980_491_248;

/// Specification of Gemma 4, section 6.
const GEMMA4: [(&str, u64, u64); 11] = [
    ("text.mlp", 1_557_135_360, 3_303_014_400),
    ("text.attn", 278_412_288, 587_222_272),
    ("text.ple_side", 41_341_696, 82_683_136),
    ("text.norms", 216_611, 432_682),
    ("embed_tokens", 402_653_184, 671_088_640),
    ("ple_table", 2_348_810_240, 2_818_572_288),
    ("kv_shared_unused", 18_880_512, 55_055_616),
    ("vision_tower", 167_365_056, 167_365_056),
    ("embed_vision", 1_179_648, 1_966_080),
    ("audio_tower", 304_825_088, 304_825_088),
    ("embed_audio", 2_359_296, 3_932_160),
];

fn e2b_of(rows: &[(&'static str, u64, u64)]) -> Vec<(&'static str, u64)> {
    rows.iter().map(|&(name, e2b, _)| (name, e2b)).collect()
}

fn e4b_of(rows: &[(&'static str, u64, u64)]) -> Vec<(&'static str, u64)> {
    rows.iter().map(|&(name, _, e4b)| (name, e4b)).collect()
}

#[track_caller]
fn totals_are_the_published_ones(dir: &Path, published: &Published) {
    let report = inspect_json(dir);
    let text = inspect(dir, &[]);
    let printed = |word: &str| {
        assert!(
            text.split_whitespace().any(|printed| printed == word),
            "{word} is not in\n{text}"
        );
    };
    let mut by_group: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in listed(published.list) {
        *by_group.entry(tensor.group).or_default() += tensor.parameters;
    }
    for &(name, want) in &published.rows {
        assert_eq!(by_group[name], want, "{name} of the list itself");
        assert_eq!(report["categories"][name], want, "{name}");
        printed(&want.to_string());
    }
    assert_eq!(
        report["categories"].as_object().unwrap().len(),
        published.rows.len()
    );
    assert_eq!(report["effective_parameters"], published.effective);
    assert_eq!(report["total_parameters"], published.total);
    printed(&published.effective.to_string());
    printed(&published.total.to_string());

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
    assert_eq!(parameters("text") + parameters("ple"), published.text);
    assert_eq!(parameters("audio"), published.audio);
    assert_eq!(parameters("vision"), published.vision);

    assert_eq!(
        report["text"]["max_position_embeddings"],
        published.max_context
    );
    let cache = report["kv_cache"].as_array().unwrap();
    assert_eq!(cache.last().unwrap()["context"], published.max_context);
    for &(context, bytes) in published.kv_16_bit {
        let at = cache.iter().find(|at| at["context"] == context).unwrap();
        assert_eq!(at["bytes_16_bit"], bytes, "{context}");
        let [least, most] = published.head_dims.map(|dim| bytes / 2 / dim * (dim + 4));
        let in_8_bit = at["bytes_8_bit"].as_u64().unwrap();
        assert!((most..=least).contains(&in_8_bit), "{context}: {in_8_bit}");
        printed(&format!("{}.0", bytes >> 20));
    }
}

fn gemma3n(list: &'static str, rows: Vec<(&'static str, u64)>, totals: [u64; 3]) -> Published {
    let [effective, text, total] = totals;
    Published {
        list,
        rows,
        effective,
        text,
        audio: 681_348_640 + 3_345_408,
        vision: 294_126_912 + 4_460_544,
        total,
        max_context: 32_768,
        // Section 2.8.
        kv_16_bit: &[(32_768, 272 << 20)],
        head_dims: [256, 256],
    }
}

#[test]
fn e2b_in_shards() {
    let dir = e2b();
    let totals = [EFFECTIVE_E2B, 4_456_156_768, 5_439_438_272];
    let published = gemma3n("gemma3n-e2b-tensors.tsv", e2b_of(&GEMMA3N), totals);
    totals_are_the_published_ones(dir.path(), &published);
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
    let totals = [EFFECTIVE_E4B, 6_866_696_688, 7_849_978_192];
    let published = gemma3n("gemma3n-e4b-tensors.tsv", e4b_of(&GEMMA3N), totals);
    totals_are_the_published_ones(e4b().path(), &published);
}

/// A Gemma 4 as released: one file, the keys of the released config.json.
fn gemma4(list: &str, text: Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config": text,
        "vision_config": {"model_type": "gemma4_vision", "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12,
            "num_key_value_heads": 12, "head_dim": 64, "intermediate_size": 3072, "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6, "patch_size": 16, "pooling_kernel_size": 3, "position_embedding_size": 10_240,
            "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}, "default_output_length": 280,
            "use_clipped_linears": true, "standardize": false},
        "audio_config": {"model_type": "gemma4_audio", "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8,
            "hidden_act": "silu", "subsampling_conv_channels": [128, 32], "conv_kernel_size": 5, "attention_chunk_size": 12,
            "attention_context_left": 13, "attention_context_right": 0, "attention_logit_cap": 50.0,
            "attention_invalid_logits_value": -1e9, "residual_weight": 0.5, "gradient_clipping": 1e10, "output_proj_dims": 1536,
            "rms_norm_eps": 1e-6, "use_clipped_linears": true},
        "boi_token_id": 255_999, "boa_token_id": 256_000, "image_token_id": 258_880, "audio_token_id": 258_881,
        "eoi_token_id": 258_882, "eoa_token_id": 258_883, "video_token_id": 258_884, "eos_token_id": [1, 106],
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write_hole(&dir.path().join("model.safetensors"), &listed(list));
    dir
}

/// `text_config` of a Gemma 4 (specification, section 1.1).
fn gemma4_text(layers: usize, full_every: usize, sizes: Value) -> Value {
    let kind = |layer: usize| match layer % full_every {
        0 => "full_attention",
        _ => "sliding_attention",
    };
    let mut text = json!({
        "model_type": "gemma4_text", "num_hidden_layers": layers, "layer_types": (1..=layers).map(kind).collect::<Vec<_>>(),
        "num_attention_heads": 8, "head_dim": 256, "global_head_dim": 512, "num_global_key_value_heads": null,
        "sliding_window": 512, "hidden_size_per_layer_input": 256, "vocab_size": 262_144, "vocab_size_per_layer_input": 262_144,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        "final_logit_softcapping": 30.0, "attention_k_eq_v": false, "enable_moe_block": false, "use_bidirectional_attention": null,
        "max_position_embeddings": 131_072, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true, "attention_bias": false, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    });
    for (key, value) in sizes.as_object().unwrap() {
        text[key] = value.clone();
    }
    text
}

#[test]
fn gemma_4_e2b() {
    const LIST: &str = "gemma4-e2b-tensors.tsv";
    let sizes = json!({"hidden_size": 1536, "intermediate_size": 6144, "use_double_wide_mlp": true, "num_key_value_heads": 1,
        "num_kv_shared_layers": 20});
    let dir = gemma4(LIST, gemma4_text(35, 5, sizes));
    let published = Published {
        list: LIST,
        rows: e2b_of(&GEMMA4),
        effective: 2_279_759_139,
        text: 4_647_449_891,
        audio: 304_825_088 + 2_359_296,
        vision: 167_365_056 + 1_179_648,
        total: 5_123_178_979,
        max_context: 131_072,
        // Section 2.6.
        kv_16_bit: &[(32_768, 198 << 20), (131_072, 774 << 20)],
        head_dims: [256, 512],
    };
    totals_are_the_published_ones(dir.path(), &published);
    let report = inspect_json(dir.path());
    let widths = [vec![6144; 15], vec![12_288; 20]].concat();
    assert_eq!(report["text"]["intermediate_size"], json!(widths));
    assert_eq!(report["text"]["num_kv_shared_layers"], 20);
    assert_eq!(report["text"]["head_dim"], 256);
    assert_eq!(report["text"]["global_head_dim"], 512);
    let text = inspect(dir.path(), &[]);
    for line in [
        "effective               2279759139  (without ple_table, kv_shared_unused, vision_tower, embed_vision, audio_tower, embed_audio)",
        "head_dim                     256, 512 in layers of full attention",
        "full_attention               layers [4, 9, 14, 19, 24, 29, 34]",
        "no MatFormer slices but the whole model",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn gemma_4_e4b() {
    const LIST: &str = "gemma4-e4b-tensors.tsv";
    let sizes = json!({"hidden_size": 2560, "intermediate_size": 10_240, "use_double_wide_mlp": false, "num_key_value_heads": 2,
        "num_kv_shared_layers": 18});
    let dir = gemma4(LIST, gemma4_text(42, 6, sizes));
    let published = Published {
        list: LIST,
        rows: e4b_of(&GEMMA4),
        effective: 4_644_441_130,
        text: 7_518_069_034,
        audio: 304_825_088 + 3_932_160,
        vision: 167_365_056 + 1_966_080,
        total: 7_996_157_418,
        max_context: 131_072,
        kv_16_bit: &[(32_768, 532 << 20), (131_072, 2068 << 20)],
        head_dims: [256, 512],
    };
    totals_are_the_published_ones(dir.path(), &published);
    let report = inspect_json(dir.path());
    assert_eq!(report["text"]["intermediate_size"], json!(vec![10_240; 42]));
    assert_eq!(report["text"]["num_key_value_heads"], 2);
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
            "e2b" => assert_eq!(effective, EFFECTIVE_E2B),
            "e4b" => assert_eq!(effective, EFFECTIVE_E4B),
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
