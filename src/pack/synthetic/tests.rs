#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use kernels::Isa;

use super::super::plan::Store;
use super::super::{PackEstimate, Recipe};
use super::*;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Checkpoint, PleOptions};

/// Names and shapes of the published checkpoints, from the fixtures' list.
fn published(size: SyntheticSize) -> BTreeMap<String, Vec<usize>> {
    let file = match size {
        SyntheticSize::E2b => "gemma3n-e2b-tensors.tsv",
        SyntheticSize::E4b => "gemma3n-e4b-tensors.tsv",
        SyntheticSize::Gemma4E2b => "gemma4-e2b-tensors.tsv",
        SyntheticSize::Gemma4E4b => "gemma4-e4b-tensors.tsv",
    };
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(path).unwrap();
    let lines = list.lines().skip(1).map(|line| {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap().to_owned();
        let shape = columns
            .next()
            .unwrap()
            .split('x')
            .filter(|&n| n != "scalar")
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
    for size in SyntheticSize::ALL {
        let config = size.config(false, Recipe::Balanced);
        let json = config.to_string();
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
                block_bits: None,
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
        let files = size.plan(&config, &*model, &slices, Recipe::Balanced);
        let is_tower = |file: &FilePlan| matches!(file.group, Group::Audio | Group::Vision);
        for file in files.unwrap().into_iter().filter(is_tower) {
            for entry in &file.entries {
                asked.borrow_mut().insert(entry.name.clone());
                let shape = &shapes[&entry.name];
                match &entry.store {
                    // Of which a picture reads a few rows.
                    Store::Plain(tensor) if entry.name.ends_with("position_embedding_table") => {
                        assert_eq!(&tensor.shape, shape);
                        continue;
                    }
                    Store::Plain(tensor) => assert_eq!(&tensor.shape, shape, "{}", entry.name),
                    Store::Quantized { blocks, .. } => {
                        let found = (blocks.rows, blocks.cols);
                        assert_eq!(found, plan::matrix_shape(shape), "{}", entry.name);
                        quantised += entry.bytes().unwrap();
                    }
                    Store::Trained(_) | Store::Residual(_) | Store::ResidualPeaks { .. } => {
                        panic!("only the text model's head has two planes, and nothing was trained")
                    }
                }
                bytes += entry.bytes().unwrap();
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

/// A text model of the same build, small enough for a test.
fn small_config() -> String {
    let mut config = SyntheticSize::E2b.config(true, Recipe::Balanced);
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
    let companions = vec![("config.json".to_owned(), small_config().into_bytes())];
    let make = |name: &str, seed| {
        let target = home.path().join(name);
        let options = PackOptions::default();
        write(
            SyntheticSize::E2b,
            seed,
            companions.clone(),
            &target,
            options,
            &pool,
            &mut |_, _| {},
        )
        .unwrap()
        .manifest
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

/// The ids of a config.json are those of the vocabulary beside it, as are those of the generation config.
#[test]
fn ids_mean_the_same_in_every_file() {
    for size in [SyntheticSize::E2b, SyntheticSize::Gemma4E2b] {
        let home = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| std::fs::write(home.path().join(name), text).unwrap();
        write("tokenizer.json", size.tokenizer_json());
        for (name, value) in size.other_files(false) {
            write(name, value.to_string());
        }
        let tokenizer = Tokenizer::load(home.path()).unwrap();
        let json = size.config(false, Recipe::Balanced).to_string();
        let path = Path::new("config.json");
        let model = family::parse(json.as_bytes(), path).unwrap();
        let spec = model.spec();
        tokenizer
            .check_config(&spec.ids, spec.vocab_size, path)
            .unwrap();
        let text = "Turn the lights off,\n\nplease.";
        let ids = tokenizer.encode_text(text);
        assert!(ids.len() < text.len(), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

/// `src/model/gemma4/mobile.md` section 1.4: what a token reads; and the sizes of the published files, 2 458 111 846 and 3 525 094 516 bytes,
/// less the head that is stored once (101.7 and 168.8 MB) and the unused keys and values (9.5 and 27.6), with what fills rows of the table up
/// to cache lines (13.6 and 6.3).
#[test]
fn mobile_packs_have_the_bytes_of_the_published_files() {
    for (size, token_mb, pack_mb) in [
        (SyntheticSize::Gemma4E2b, 795.6, 2360.5),
        (SyntheticSize::Gemma4E4b, 2230.3, 3335.0),
    ] {
        let pack = PackEstimate::new(size, Recipe::Mobile).unwrap();
        let token = pack.slice(pack.slices.full()).token_bytes as f64 / 1e6;
        assert!((token / token_mb - 1.0).abs() < 0.001, "{token} MB a token");
        let all = pack.flash_bytes as f64 / 1e6;
        assert!((all / pack_mb - 1.0).abs() < 0.001, "{all} MB");
    }
}

#[test]
fn a_mobile_pack_of_random_weights_loads() {
    let home = tempfile::tempdir().unwrap();
    let pool = Pool::new(Isa::from_environment().unwrap(), 2);
    let mut config = SyntheticSize::Gemma4E2b.config(true, Recipe::Mobile);
    for (key, value) in [
        ("hidden_size", 64),
        ("intermediate_size", 96),
        ("vocab_size", 300),
    ] {
        config[key] = value.into();
    }
    config["vocab_size_per_layer_input"] = 300.into();
    let companions = vec![("config.json".to_owned(), config.to_string().into_bytes())];
    let target = home.path().join("a.pack");
    let options = PackOptions {
        recipe: Recipe::Mobile,
        force: false,
        ..PackOptions::default()
    };
    let size = SyntheticSize::Gemma4E2b;
    write(size, 7, companions, &target, options, &pool, &mut |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&target).unwrap();
    let model = family::load(&target).unwrap();
    let ple = PleOptions::default();
    model.decoder(&checkpoint, &ple, 4, &mut |_, _| {}).unwrap();
    let mapped = checkpoint.load(Group::Text).unwrap();
    let name = "model.language_model.layers.20.mlp.gate_proj.weight";
    let tensor = mapped.matrix(name, 192, 64).unwrap();
    let kernels::MatrixData::Quantized(matrix) = mapped.view(tensor).data else {
        panic!("the feed-forward is quantised");
    };
    assert_eq!(matrix.format(), kernels::quant::Format::Q2RowScaled);
    assert!(matrix.roundings().input > 0.0 && matrix.roundings().output > 0.0);
    let mut row = vec![0.0; 64];
    let mut squares = 0.0;
    for i in 0..192 {
        kernels::quant::dequantize_row(matrix, i, &mut row);
        squares += row.iter().map(|w| w * w).sum::<f32>();
    }
    // 12288 weights of variance 1/64, in four steps.
    assert!((squares / 192.0 - 1.0).abs() < 0.3, "{squares}");
    for size in [SyntheticSize::E2b, SyntheticSize::E4b] {
        let refused = PackEstimate::new(size, Recipe::Mobile).err().unwrap();
        assert!(refused.to_string().contains("mobile"), "{refused}");
    }
}
