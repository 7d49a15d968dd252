//! Gemma 4's vision encoder at its real widths: what a picture takes beside the weights, and which of its table of positions is read.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gemmad::model::encoder::VisionEncoder;
use gemmad::model::gemma4::config::Config;
use gemmad::model::gemma4::vision::VisionTower;
use gemmad::model::weights::{Checkpoint, Group, GroupState, Residency};
use kernels::{Isa, Pool};
use serde_json::{Map, Value, json};

use crate::common::fixtures_gemma4;
use crate::common::pages::home;
use crate::{ALONE, HEAP};

const POSITIONS: usize = 10_240;
const TEXT: usize = 1536;

const TABLE: &str = "model.vision_tower.patch_embedder.position_embedding_table";

/// The real widths, of which everything that is held is a multiple.
const HIDDEN: usize = 768;
const HEADS: usize = 12;

/// A vision encoder of one layer, whose weights are a hole in a file.
fn checkpoint(dir: &Path) -> Checkpoint {
    let (hidden, heads, ffn) = (HIDDEN, HEADS, 4 * HIDDEN);
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixtures_gemma4().join("config.json")).unwrap())
            .unwrap();
    let vision = config["vision_config"].as_object_mut().unwrap();
    for (key, value) in [
        ("hidden_size", hidden),
        ("num_attention_heads", heads),
        ("num_key_value_heads", heads),
        ("head_dim", hidden / heads),
        ("intermediate_size", ffn),
        ("position_embedding_size", POSITIONS),
        ("num_hidden_layers", 1),
    ] {
        vision.insert(key.to_owned(), json!(value));
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();

    let layer = |leaf: &str| format!("model.vision_tower.encoder.layers.0.{leaf}.weight");
    let mut tensors = vec![
        (
            "model.vision_tower.patch_embedder.input_proj.weight".to_owned(),
            vec![hidden, 768],
        ),
        (TABLE.to_owned(), vec![2, POSITIONS, hidden]),
        (
            "model.embed_vision.embedding_projection.weight".to_owned(),
            vec![TEXT, hidden],
        ),
        (layer("self_attn.q_norm"), vec![hidden / heads]),
        (layer("self_attn.k_norm"), vec![hidden / heads]),
        (layer("mlp.gate_proj.linear"), vec![ffn, hidden]),
        (layer("mlp.up_proj.linear"), vec![ffn, hidden]),
        (layer("mlp.down_proj.linear"), vec![hidden, ffn]),
    ];
    for leaf in ["q", "k", "v", "o"] {
        let name = layer(&format!("self_attn.{leaf}_proj.linear"));
        tensors.push((name, vec![hidden, hidden]));
    }
    for leaf in [
        "input",
        "post_attention",
        "pre_feedforward",
        "post_feedforward",
    ] {
        tensors.push((layer(&format!("{leaf}_layernorm")), vec![hidden]));
    }
    let (mut header, mut at) = (Map::new(), 0);
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        let tensor = json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]});
        header.insert(name, tensor);
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', 8 - header.len() % 8));
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + at) as u64).unwrap();
    Checkpoint::open(dir).unwrap()
}

fn peak_bytes(tower: &VisionTower, size: [usize; 2], soft_tokens: usize) -> usize {
    let pool = Pool::new(Isa::best(), 2);
    let pixels = vec![128; 3 * size[0] * size[1]];
    let (encoded, peak_bytes) = HEAP.peak_of(|| {
        tower
            .encode_observed(&pool, &pixels, size, &mut |_| ())
            .unwrap()
    });
    assert_eq!(encoded.len(), soft_tokens * TEXT);
    peak_bytes
}

fn tower(dir: &Path, checkpoint: &Checkpoint) -> VisionTower {
    let config = Config::load(dir).unwrap().vision.unwrap();
    VisionTower::load(checkpoint, &config, TEXT).unwrap()
}

#[test]
fn a_picture_takes_few_rows_of_its_patches_and_of_the_positions() {
    let _alone = ALONE.lock();
    let dir = home();
    let checkpoint = Arc::new(checkpoint(dir.path()));
    let tower = tower(dir.path(), &checkpoint);
    let peak = peak_bytes(&tower, [960, 672], 280);
    assert!(peak <= 32_000_000, "{peak} bytes at the peak");

    let weights = tower.weights();
    let table_bytes = (2 * 2 * POSITIONS * HIDDEN) as u64;
    let all_else = weights.mapped_bytes() - table_bytes;
    let resident = weights.resident_bytes();
    // All else was read, and of the table no more than pages around 60 columns and 42 rows.
    let few_rows = all_else * 9 / 10..all_else + (1 << 20);
    assert!(
        few_rows.contains(&resident),
        "{resident} bytes resident of {}, all but the table are {all_else}",
        weights.mapped_bytes()
    );
    drop(tower);

    // Nor is the table read ahead.
    let residency = Residency::leaving(Arc::clone(&checkpoint), vec![TABLE.to_owned()]);
    let mapped = checkpoint.load(Group::Vision).unwrap();
    residency.prefetch(Group::Vision);
    while residency.state(Group::Vision) != GroupState::Resident {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ahead = mapped.resident_bytes();
    assert!(
        few_rows.contains(&ahead),
        "{ahead} bytes read ahead, all but the table are {all_else}"
    );
}

#[test]
fn the_largest_pictures_take_no_patches_times_patches() {
    let _alone = ALONE.lock();
    let dir = home();
    let checkpoint = checkpoint(dir.path());
    let tower = tower(dir.path(), &checkpoint);
    let peak = peak_bytes(&tower, [1920, 1344], 1120);
    assert!(peak <= 96_000_000, "{peak} bytes at the peak");
}
