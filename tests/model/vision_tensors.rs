//! What is said where the tensors of Gemma 4's vision encoder are not what they should be.

use std::collections::BTreeMap;
use std::path::Path;

use gemmad::model::encoder::{VisionEncoder, VisionError};
use gemmad::model::gemma4::config::Config;
use gemmad::model::gemma4::vision::VisionTower;
use gemmad::model::weights::Checkpoint;
use half::bf16;
use kernels::{Isa, Pool};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::common::fixtures_gemma4;

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const LAYER: &str = "model.vision_tower.encoder.layers.0";
const TABLE: &str = "model.vision_tower.patch_embedder.position_embedding_table";

/// The tensors of what sees.
fn tensors() -> Tensors {
    let mut all = Tensors::new();
    for entry in std::fs::read_dir(fixtures_gemma4()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            let bytes = std::fs::read(path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                if name.contains("vision") {
                    let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                    all.insert(name.to_owned(), tensor);
                }
            }
        }
    }
    all
}

fn load(dir: &Path, tensors: &Tensors) -> Result<VisionTower, VisionError> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let file = dir.join("model.safetensors");
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
    let config = Config::load(&fixtures_gemma4()).unwrap();
    let checkpoint = Checkpoint::open(dir)?;
    VisionTower::load(
        &checkpoint,
        &config.vision.unwrap(),
        config.text.hidden_size,
    )
}

fn refused(change: impl FnOnce(&mut Tensors), parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors();
    change(&mut tensors);
    let error = load(dir.path(), &tensors).err().unwrap().to_string();
    for part in parts {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(error.lines().count(), 1, "{error}");
}

fn seen(tower: &VisionTower) -> Vec<f32> {
    let config = Config::load(&fixtures_gemma4()).unwrap().vision.unwrap();
    let side = config.patch_size * config.pooling_kernel_size;
    let size = [2 * side, 3 * side];
    let pixels: Vec<u8> = (0..3 * size[0] * size[1])
        .map(|i| (i * 7 % 256) as u8)
        .collect();
    let pool = Pool::new(Isa::best(), 1);
    tower.encode(&pool, &pixels, size, &mut || ()).unwrap()
}

#[test]
fn bounds_are_a_part_of_the_model_and_absent_ones_cut_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors();
    let whole = seen(&load(dir.path(), &tensors).unwrap());
    let all = tensors.len();
    tensors.retain(|name, _| !name.ends_with("_min") && !name.ends_with("_max"));
    assert!(tensors.len() < all, "the fixture has bounds");
    let dir = tempfile::tempdir().unwrap();
    let without = seen(&load(dir.path(), &tensors).unwrap());
    assert_ne!(whole, without);
    assert!(without.iter().all(|x| x.is_finite()));
}

#[test]
fn bounds_that_bound_nothing_are_named() {
    let bound = |leaf: &str| format!("{LAYER}.{leaf}");
    let number = |x: f32| bf16::from_f32(x).to_le_bytes().to_vec();
    let [min, max] = ["input_min", "input_max"].map(|end| bound(&format!("mlp.gate_proj.{end}")));
    refused(
        |tensors| drop(tensors.remove(&min)),
        &["mlp.gate_proj.input_min", "all four"],
    );
    let nan = bound("self_attn.q_proj.output_max");
    refused(
        |tensors| tensors.get_mut(&nan).unwrap().2 = number(f32::NAN),
        &[&nan, "not a number"],
    );
    refused(
        |tensors| {
            tensors.get_mut(&min).unwrap().2 = number(2.0);
            tensors.get_mut(&max).unwrap().2 = number(1.0);
        },
        &[&min, "2", &max, "1"],
    );
}

#[test]
fn tensors_that_are_missing_or_of_another_shape_are_named() {
    refused(
        |tensors| drop(tensors.remove(&format!("{LAYER}.self_attn.k_norm.weight"))),
        &["self_attn.k_norm.weight"],
    );
    refused(
        |tensors| {
            let (_, shape, bytes) = tensors.get_mut(TABLE).unwrap();
            shape[1] -= 1;
            let row_bytes = 2 * shape[2];
            bytes.truncate(bytes.len() - 2 * row_bytes);
        },
        &[TABLE],
    );
    refused(
        |tensors| {
            let name = format!("{LAYER}.mlp.up_proj.linear.weight");
            let (_, shape, _) = tensors.get_mut(&name).unwrap();
            shape.reverse();
        },
        &["mlp.up_proj.linear.weight"],
    );
}
