//! How pictures are sized: what each family may be asked for, and what stands in a checkpoint's files.

use std::path::Path;

use gemmad::model::encoder::PictureOptions;
use gemmad::model::family;
use gemmad::model::processor_config::ProcessorConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{fixtures, fixtures_gemma4};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A Gemma 4's small files, changed.
fn gemma4(config: impl FnOnce(&mut Value), processor: Option<Value>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut value = json(&fixtures_gemma4().join("config.json"));
    config(&mut value);
    std::fs::write(dir.path().join("config.json"), value.to_string()).unwrap();
    if let Some(processor) = processor {
        let file = dir.path().join("processor_config.json");
        std::fs::write(file, processor.to_string()).unwrap();
    }
    dir
}

fn settled(dir: &Path, asked: PictureOptions) -> Result<PictureOptions, String> {
    let architecture = family::load(dir).map_err(|error| error.to_string())?;
    let processor = ProcessorConfig::load(dir).map_err(|error| error.to_string())?;
    let (options, warning) = architecture
        .picture_options(asked, &processor)
        .map_err(|error| error.to_string())?;
    assert_eq!(warning, None);
    Ok(options)
}

#[test]
fn soft_tokens_are_as_asked_else_as_the_processor_says_else_as_the_config() {
    let own = |config: Option<usize>, default: Option<usize>, processor: Option<Value>| {
        let dir = gemma4(
            |value| {
                let top = value.as_object_mut().unwrap();
                top.remove("vision_soft_tokens_per_image");
                if let Some(config) = config {
                    top.insert("vision_soft_tokens_per_image".to_owned(), json!(config));
                }
                let vision = value["vision_config"].as_object_mut().unwrap();
                vision.remove("default_output_length");
                if let Some(default) = default {
                    vision.insert("default_output_length".to_owned(), json!(default));
                }
            },
            processor,
        );
        settled(dir.path(), PictureOptions::default())
            .unwrap()
            .soft_tokens
    };
    let processor = |most: usize, length: usize| {
        Some(json!({"image_processor": {"max_soft_tokens": most}, "image_seq_length": length}))
    };
    assert_eq!(own(Some(560), Some(70), processor(140, 1120)), Some(140));
    let older = Some(json!({"image_seq_length": 1120}));
    assert_eq!(own(Some(560), Some(70), older), Some(1120));
    assert_eq!(own(Some(560), Some(70), Some(json!({}))), Some(560));
    assert_eq!(own(None, Some(70), None), Some(70));
    assert_eq!(own(None, None, None), Some(280));
    let dir = gemma4(|_| {}, processor(140, 140));
    let asked = PictureOptions::of_soft_tokens(1120);
    assert_eq!(settled(dir.path(), asked), Ok(asked));
}

#[test]
fn the_processor_file_of_another_model_is_told() {
    let other = json!({
        "image_processor": {"size": {"height": 768, "width": 768}, "resample": 2},
        "image_seq_length": 256,
    });
    let dir = gemma4(|_| {}, Some(other));
    let error = settled(dir.path(), PictureOptions::default()).unwrap_err();
    for part in [
        "processor_config.json",
        "image_seq_length",
        "70, 140, 280, 560 or 1120",
        "256",
        "another model",
        "soft_tokens",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Whoever says how many is not held up, but told that pictures are prepared otherwise.
    let asked = PictureOptions::of_soft_tokens(280);
    assert_eq!(settled(dir.path(), asked), Ok(asked));
    let architecture = family::load(dir.path()).unwrap();
    let here = &architecture.spec().pictures.as_ref().unwrap().processor;
    let processor = ProcessorConfig::load(dir.path()).unwrap();
    let warnings = processor.image_warnings(here);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("image_processor.resample"));
}

#[test]
fn what_sizes_the_pictures_of_another_family_is_refused() {
    let check = |dir: &Path, options: PictureOptions| {
        let architecture = family::load(dir).unwrap();
        let pictures = architecture.spec().pictures.clone().unwrap();
        options.check(&pictures).map_err(|error| error.to_string())
    };
    let (older, newer) = (fixtures(), fixtures_gemma4());
    for dir in [&older, &newer] {
        assert_eq!(check(dir, PictureOptions::default()), Ok(()));
    }
    assert_eq!(check(&older, PictureOptions::of_resolution(256)), Ok(()));
    for soft_tokens in [70, 140, 280, 560, 1120] {
        let options = PictureOptions::of_soft_tokens(soft_tokens);
        assert_eq!(check(&newer, options), Ok(()));
    }
    let told = |dir: &Path, options: PictureOptions, parts: &[&str]| {
        let error = check(dir, options).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    };
    told(
        &older,
        PictureOptions::of_soft_tokens(70),
        &["Gemma 3n", "--soft-tokens", "--resolution"],
    );
    told(
        &newer,
        PictureOptions::of_resolution(256),
        &["Gemma 4", "--soft-tokens", "--resolution"],
    );
    for soft_tokens in [0, 71, 256] {
        told(
            &newer,
            PictureOptions::of_soft_tokens(soft_tokens),
            &[&soft_tokens.to_string(), "70, 140, 280, 560 or 1120"],
        );
    }
}
