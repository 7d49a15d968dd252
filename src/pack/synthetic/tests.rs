#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use kernels::Isa;

use super::super::Recipe;
use super::*;
use crate::model::weights::Checkpoint;

fn control() -> crate::model::tokenizer::ControlTokens {
    let media = |start, soft, end| Some(crate::model::tokenizer::MediaTokens { start, soft, end });
    crate::model::tokenizer::ControlTokens {
        bos: 2,
        eos: 1,
        pad: Some(0),
        start_of_turn: 105,
        end_of_turn: 106,
        image: media(10, 262_145, 262_144),
        audio: media(11, 262_273, 262_272),
    }
}

/// Names and shapes of the published checkpoints, from the fixtures' list.
fn published(size: SyntheticSize) -> BTreeMap<String, Vec<usize>> {
    let path = format!(
        "{}/tests/fixtures/gemma3n-{}-tensors.tsv",
        env!("CARGO_MANIFEST_DIR"),
        size.name()
    );
    let list = std::fs::read_to_string(path).unwrap();
    let lines = list.lines().skip(1).map(|line| {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap().to_owned();
        let shape = columns
            .next()
            .unwrap()
            .split('x')
            .map(|n| n.parse().unwrap())
            .collect();
        assert!(!name.contains('*'));
        (name, shape, columns.next().unwrap() == "kv_shared_unused")
    });
    lines
        .filter(|&(_, _, unused)| !unused)
        .map(|(name, shape, _)| (name, shape))
        .collect()
}

#[test]
fn every_tensor_has_its_published_name_and_shape() {
    for size in [SyntheticSize::E2b, SyntheticSize::E4b] {
        let json = config_json(size);
        let model = family::parse(json.as_bytes(), Path::new("config.json")).unwrap();
        assert!(model.spec().audio.is_some() && model.spec().pictures.is_some());
        let slices = model.slices(None).unwrap();
        let shapes = published(size);
        // The plan asks for nothing that the published files lack, in the published shape, and for all that they have.
        let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let describe = |name: &str, _: &[usize]| {
            asked.borrow_mut().insert(name.to_owned());
            shapes.get(name).map(|shape| Described {
                shape: shape.clone(),
                dtype: Dtype::BF16,
            })
        };
        let text = plan::text(
            &model.text_tensors(),
            Recipe::Balanced,
            &slices,
            Path::new("x"),
            &describe,
        )
        .unwrap();
        let (mut bytes, mut quantised) = (0, 0);
        for file in towers(&*model, Recipe::Balanced) {
            for entry in &file.entries {
                let shape = &shapes[&entry.name];
                match &entry.store {
                    Store::Plain(tensor) => assert_eq!(&tensor.shape, shape, "{}", entry.name),
                    Store::Quantized { blocks, .. } => {
                        let found = (blocks.rows, blocks.cols);
                        assert_eq!(found, plan::matrix_shape(shape), "{}", entry.name);
                        quantised += entry.bytes().unwrap();
                    }
                    Store::Residual(_) | Store::ResidualPeaks { .. } => {
                        panic!("only the text model's head has two planes")
                    }
                }
                bytes += entry.bytes().unwrap();
                asked.borrow_mut().insert(entry.name.clone());
            }
        }
        // What is not quantised is next to nothing: no kind of matrix was forgotten.
        assert!(
            quantised as f64 / bytes as f64 > 0.96,
            "{quantised} of {bytes}"
        );
        assert!(asked.borrow().iter().eq(shapes.keys()));
        // E4B holds the published slices: dense layers are cut at E2B's width.
        let segments = text[0]
            .entries
            .iter()
            .filter(|entry| entry.name.ends_with("layers.12.mlp.down_proj.weight.0"))
            .count();
        assert_eq!(segments, usize::from(size == SyntheticSize::E4b));
    }
}

fn config_json(size: SyntheticSize) -> String {
    config::config_json(size, false, &control())
}

/// A text model of the same build, small enough for a test.
fn small_config() -> String {
    let json = config::config_json(SyntheticSize::E2b, true, &control());
    let mut config: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (key, value) in [("hidden_size", 64), ("head_dim", 16), ("vocab_size", 300)] {
        config[key] = value.into();
    }
    config["vocab_size_per_layer_input"] = 280.into();
    config["intermediate_size"] = vec![128; 30].into();
    config.to_string()
}

#[test]
fn a_seed_gives_one_pack_and_it_loads() {
    let home = tempfile::tempdir().unwrap();
    let pool = Pool::new(Isa::from_environment().unwrap(), 2);
    let companions = [("config.json".to_owned(), small_config().into_bytes())];
    let make = |name: &str, seed| {
        let target = home.path().join(name);
        let options = PackOptions::default();
        write(
            &companions,
            "test",
            seed,
            &target,
            options,
            &pool,
            &mut |_, _| {},
        )
        .unwrap()
    };
    let (one, same, other) = (make("1.pack", 7), make("2.pack", 7), make("3.pack", 8));
    assert_eq!(one.files, same.files);
    assert_ne!(
        one.files["text.safetensors"],
        other.files["text.safetensors"]
    );
    assert_ne!(one.files["ple.safetensors"], other.files["ple.safetensors"]);

    let checkpoint = Checkpoint::open(&home.path().join("1.pack")).unwrap();
    let mapped = checkpoint.load(Group::Text).unwrap();
    let tensor = mapped
        .matrix(
            "model.language_model.layers.12.mlp.gate_proj.weight",
            128,
            64,
        )
        .unwrap();
    let kernels::MatrixData::Quantized(matrix) = mapped.view(tensor).data else {
        panic!("the feed-forward is quantised");
    };
    let mut row = vec![0.0; 64];
    let mut squares = 0.0;
    for i in 0..128 {
        kernels::quant::dequantize_row(matrix, i, &mut row);
        squares += row.iter().map(|w| w * w).sum::<f32>();
    }
    // 8192 weights of variance 1/64: the sum of squares is 128, give or take 2 %.
    assert!((squares - 128.0).abs() < 8.0, "{squares}");
}
