//! The checkpoint under test in other people's layouts, made on the spot: the same bits; and damaged: one line that names what is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::text_runs::{Text, assert_same_bits, ids};
use crate::common::{Golden, fixtures_gemma4};

/// A tensor as it is stored.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A whole checkpoint in memory, to be changed and written elsewhere.
struct Copy {
    tensors: BTreeMap<String, Stored>,
    config: Value,
}

impl Copy {
    fn read() -> Copy {
        let dir = fixtures_gemma4();
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "safetensors") {
                let bytes = std::fs::read(&path).unwrap();
                for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                    let stored = Stored {
                        dtype: view.dtype(),
                        shape: view.shape().to_vec(),
                        bytes: view.data().to_vec(),
                    };
                    tensors.insert(name, stored);
                }
            }
        }
        let config = std::fs::read(dir.join("config.json")).unwrap();
        Copy {
            tensors,
            config: serde_json::from_slice(&config).unwrap(),
        }
    }

    fn write(&self, dir: &Path) {
        let views = self.tensors.iter().map(|(name, stored)| {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes);
            (name, view.unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
    }

    fn open(&self) -> Result<Text, String> {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        Text::try_open(dir.path())
    }

    fn logits(&self) -> Vec<f32> {
        let golden = Golden::of(&fixtures_gemma4(), "text");
        let mut text = self.open().unwrap();
        text.prompt_and_token(&ids(&golden, "chat.input_ids"), 16)
    }

    fn text_config(&mut self) -> &mut Map<String, Value> {
        self.config["text_config"].as_object_mut().unwrap()
    }

    /// Layers that read other layers' keys and values.
    fn first_shared(&mut self) -> usize {
        let text = self.text_config();
        let count = |key: &str| text[key].as_u64().unwrap() as usize;
        count("num_hidden_layers") - count("num_kv_shared_layers")
    }

    /// Takes out the keys and values of shared layers, which nothing reads; how many tensors that were.
    fn drop_unused_kv(&mut self) -> usize {
        let (shared, before) = (self.first_shared(), self.tensors.len());
        self.tensors.retain(|name, _| {
            let layer = name.strip_prefix("model.language_model.layers.");
            let Some((layer, leaf)) = layer.and_then(|rest| rest.split_once('.')) else {
                return true;
            };
            let is_kv = ["k_proj", "v_proj", "k_norm"].iter();
            let is_kv = is_kv.map(|kv| format!("self_attn.{kv}.weight"));
            layer.parse::<usize>().unwrap() < shared || !is_kv.into_iter().any(|kv| kv == leaf)
        });
        before - self.tensors.len()
    }
}

#[test]
fn text_is_the_same_with_and_without_unused_keys_and_values() {
    let mut copy = Copy::read();
    let want = copy.logits();
    let dropped = copy.drop_unused_kv();
    let shared = copy.text_config()["num_kv_shared_layers"].as_u64().unwrap();
    assert_eq!(dropped as u64, 3 * shared);
    assert_same_bits("without unused tensors", &copy.logits(), &want);
    // Those of a layer that others read are missed.
    let source = format!(
        "model.language_model.layers.{}.self_attn.k_norm.weight",
        copy.first_shared() - 1
    );
    copy.tensors.remove(&source).unwrap();
    let error = copy.open().err().unwrap();
    assert!(error.contains(&source), "{error}");
}

#[test]
fn text_alone_under_its_own_names_is_the_same() {
    let mut copy = Copy::read();
    let want = copy.logits();
    let text = std::mem::take(&mut copy.tensors).into_iter();
    let text = text.filter_map(|(name, stored)| {
        let rest = name.strip_prefix("model.language_model.")?;
        Some((format!("model.{rest}"), stored))
    });
    copy.tensors = text.collect();
    let mut config = copy.text_config().clone();
    config.insert("model_type".to_owned(), json!("gemma4_text"));
    config.insert("architectures".to_owned(), json!(["Gemma4ForCausalLM"]));
    copy.config = Value::Object(config);
    assert_same_bits("a text-only checkpoint", &copy.logits(), &want);
    let text = copy.open().unwrap();
    assert!(text.architecture.spec().row_ids.is_empty());
}

/// Whichever dialect of config.json the checkpoint has, it is written in the other one.
#[test]
fn text_is_the_same_in_either_dialect_of_config_json() {
    let mut copy = Copy::read();
    let want = copy.logits();
    let layers = copy.open().unwrap().architecture.spec().layers.clone();
    let config = copy.text_config();
    if config.remove("per_layer_config").is_none() {
        config.remove("global_head_dim").unwrap();
        config.remove("num_global_key_value_heads");
        let full = layers.iter().enumerate();
        let full = full.filter(|(_, layer)| layer.window.is_none());
        let overrides: Map<String, Value> = full
            .map(|(index, layer)| (format!("{index:02}"), json!({"head_dim": layer.head_dim})))
            .collect();
        config.insert("per_layer_config".to_owned(), Value::Object(overrides));
    } else {
        let global = layers.iter().find(|layer| layer.window.is_none()).unwrap();
        config.insert("global_head_dim".to_owned(), json!(global.head_dim));
        config.insert("num_global_key_value_heads".to_owned(), Value::Null);
    }
    assert_eq!(copy.open().unwrap().architecture.spec().layers, layers);
    assert_same_bits("in the other dialect", &copy.logits(), &want);
}

#[test]
fn text_tensors_of_a_wrong_shape_are_told() {
    let global = |copy: &Copy| {
        let layers = copy.open().unwrap().architecture.spec().layers.clone();
        layers
            .iter()
            .position(|layer| layer.window.is_none())
            .unwrap()
    };
    for leaf in [
        "layer_scalar",
        "self_attn.q_norm.weight",
        "self_attn.o_proj.weight",
        "mlp.up_proj.weight",
        "per_layer_projection.weight",
    ] {
        let mut copy = Copy::read();
        let name = format!("model.language_model.layers.{}.{leaf}", global(&copy));
        let stored = copy.tensors.get_mut(&name).unwrap();
        // Its first dimension twice.
        stored.shape[0] *= 2;
        stored.bytes.extend_from_within(..);
        let error = copy.open().err().unwrap();
        assert!(
            error.contains(&name) && error.contains(&format!("{:?}", copy.tensors[&name].shape)),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        copy.tensors.remove(&name).unwrap();
        let error = copy.open().err().unwrap();
        assert!(error.contains(&name), "{error}");
    }
}
