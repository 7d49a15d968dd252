//! Weights of few bits: files of llama.cpp, and those that were trained so. They come as all others do, tensor by tensor.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::server::{Asked, Fault, Repo};
use crate::{Bench, assert_same, failed, interrupted, of_this_repository, succeeded};

const FILES: &str = "tests/fixtures/tiny-g4a-gguf";
const MOBILE: &str = "tests/fixtures/tiny-g4a-qat-mobile";
const PLAIN: &str = "tests/fixtures/tiny-g4a";
const TEXT: &str = "gemma-4-E2B_q4_0-it.gguf";
const TOWERS: &str = "gemma-4-E2B-it-mmproj.gguf";

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(of_this_repository(path)).unwrap()
}

/// The repositories behind `gemma-4-e2b:q4_0`: one of files of llama.cpp, and the one that has the tokenizer.
fn files_of_llama_cpp() -> Bench {
    let bench = Bench::with(Repo::of(&of_this_repository(PLAIN), "a2"));
    bench.hub.put(
        "google/gemma-4-E2B-it",
        Repo::of(&of_this_repository(PLAIN), "a3"),
    );
    let mut repo = Repo::new("a4");
    repo.add(TEXT, bytes(&format!("{FILES}/text-qat-layout.gguf")));
    repo.add(TOWERS, bytes(&format!("{FILES}/mmproj-bf16.gguf")));
    bench.hub.put("google/gemma-4-E2B-it-qat-q4_0-gguf", repo);
    bench
}

fn pull(bench: &Bench, name: &str, arguments: &[&str]) -> std::process::Command {
    let to = bench.path("models");
    let mut all = vec!["pull", name, "--to", to.to_str().unwrap()];
    all.extend(arguments);
    bench.gemmad(&all)
}

/// Bytes that were asked of files whose hash is one of these.
fn asked_bytes(asked: &[Asked]) -> u64 {
    let ranges = asked
        .iter()
        .filter(|asked| asked.target.starts_with("/blob/"))
        .filter_map(|asked| asked.range.as_deref()?.strip_prefix("bytes="));
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap();
        last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
    };
    ranges.map(length).sum()
}

fn recipe_of(pack: &Path) -> String {
    let manifest = std::fs::read(pack.join("pack.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["recipe"].as_str().unwrap().to_owned()
}

fn is_verified(bench: &Bench, pack: &Path) {
    let inspect = bench.gemmad(&["inspect", "--verify", "--model", pack.to_str().unwrap()]);
    succeeded(&{ inspect }.output().unwrap());
    let ask = [
        "ask",
        "--model",
        pack.to_str().unwrap(),
        "--max-tokens",
        "3",
        "hello",
    ];
    succeeded(&bench.gemmad(&ask).output().unwrap());
}

#[test]
fn a_file_of_llama_cpp_and_its_towers_become_the_pack_of_the_same_files() {
    let bench = files_of_llama_cpp();
    let name = "gemma-4-e2b:q4_0";
    let pack = bench.path("models/gemma-4-e2b-q4_0.pack");
    let output = pull(&bench, name, &[]).output().unwrap();
    succeeded(&output);
    let towers = of_this_repository(&format!("{FILES}/mmproj-bf16.gguf"));
    let here = bench.packed_of(
        &of_this_repository(&format!("{FILES}/text-qat-layout.gguf")),
        &[
            "--recipe",
            "q4_0",
            "--mmproj",
            towers.to_str().unwrap(),
            "--tokenizer",
            of_this_repository(PLAIN).to_str().unwrap(),
        ],
    );
    assert_same(&pack, &here);
    is_verified(&bench, &pack);
    // Each byte once, and nothing beside.
    let asked = bench.hub.asked();
    let tokenizer = bytes(&format!("{PLAIN}/tokenizer.json")).len() as u64;
    let most = bytes(&format!("{FILES}/text-qat-layout.gguf")).len() as u64
        + towers.metadata().unwrap().len()
        + tokenizer;
    let sent = asked_bytes(&asked);
    assert!(sent <= most + most / 100, "{sent} of {most}");
    let names: Vec<_> = std::fs::read_dir(bench.path("models")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let manifest = std::fs::read_to_string(pack.join("pack.json")).unwrap();
    assert!(
        manifest.contains(&format!("@{}:{TEXT}", "a4".repeat(20))),
        "{manifest}"
    );
    // The same again is nothing to do.
    succeeded(&pull(&bench, name, &[]).output().unwrap());
    let asked = bench.hub.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    // Without towers none of their file is asked for.
    succeeded(
        &pull(&bench, name, &["--force", "--text-only"])
            .output()
            .unwrap(),
    );
    let text = bytes(&format!("{FILES}/text-qat-layout.gguf")).len() as u64;
    let sent = asked_bytes(&bench.hub.asked());
    assert!(sent <= text + text / 100 + tokenizer, "{sent} of {text}");
    assert!(!pack.join("audio.safetensors").exists());
    is_verified(&bench, &pack);
}

/// In parts, of which one is in a folder's middle; and killed again and again.
#[test]
fn files_of_llama_cpp_go_on_where_they_were() {
    let bench = files_of_llama_cpp();
    let towers = of_this_repository(&format!("{FILES}/mmproj-bf16.gguf"));
    let here = bench.packed_of(
        &of_this_repository(&format!("{FILES}/text-qat-layout.gguf")),
        &[
            "--recipe",
            "q4_0",
            "--mmproj",
            towers.to_str().unwrap(),
            "--tokenizer",
            of_this_repository(PLAIN).to_str().unwrap(),
        ],
    );
    let start = || pull(&bench, "gemma-4-e2b:q4_0", &[]);
    interrupted::killed_of(&bench, 15, 150_000, &start);
    assert_same(&bench.path("models/gemma-4-e2b-q4_0.pack"), &here);
}

#[test]
fn weights_that_were_trained_in_few_bits_stay_what_they_are() {
    let bench = Bench::with(Repo::of(&of_this_repository(MOBILE), "b3"));
    let id = "google/gemma-4-E2B-it-qat-mobile-transformers";
    bench
        .hub
        .put(id, Repo::of(&of_this_repository(MOBILE), "b4"));
    let pack = bench.path("models/gemma-4-e2b-mobile.pack");
    succeeded(&pull(&bench, "gemma-4-e2b:mobile", &[]).output().unwrap());
    let here = bench.packed_of(&of_this_repository(MOBILE), &["--recipe", "mobile"]);
    assert_same(&pack, &here);
    assert_eq!(recipe_of(&pack), "mobile");
    is_verified(&bench, &pack);
    let most = bytes(&format!("{MOBILE}/model.safetensors")).len() as u64;
    let tokenizer = bytes(&format!("{MOBILE}/tokenizer.json")).len() as u64;
    let sent = asked_bytes(&bench.hub.asked());
    assert!(sent <= most + most / 100 + tokenizer, "{sent} of {most}");
    // Any name of it will do.
    succeeded(&pull(&bench, "google/demo", &[]).output().unwrap());
    assert_same(&bench.pack(), &here);
    std::fs::remove_dir_all(bench.pack()).unwrap();
    let start = || pull(&bench, "google/demo", &[]);
    interrupted::killed_of(&bench, 15, 100_000, &start);
    assert_same(&bench.pack(), &here);
    // None of another recipe is made of it.
    let said = failed(
        &pull(&bench, "google/demo", &["--force", "--recipe", "q8"])
            .output()
            .unwrap(),
    );
    assert!(said.contains("trained in the bits they have"), "{said}");
}

/// A checkpoint whose layers lie on the grid of Q4_0, as training for that leaves them.
fn on_the_grid(dir: &Path) -> PathBuf {
    for entry in std::fs::read_dir(of_this_repository(PLAIN)).unwrap() {
        let path = entry.unwrap().path();
        let target = dir.join(path.file_name().unwrap());
        if path.extension().is_none_or(|kind| kind != "safetensors") {
            if path.is_file() {
                std::fs::copy(&path, target).unwrap();
            }
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.tensors().into_iter().map(|(name, view)| {
            let mut data = view.data().to_vec();
            let shape = view.shape().to_vec();
            let is_matrix = shape.len() == 2 && shape[1].is_multiple_of(32);
            if is_matrix && name.contains("language_model.layers.") {
                assert_eq!(view.dtype(), Dtype::BF16);
                data.chunks_exact_mut(64).for_each(rounded);
            }
            (name, view.dtype(), shape, data)
        });
        let tensors: Vec<_> = tensors.collect();
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(target, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    dir.to_owned()
}

/// 32 numbers of which that of largest magnitude is -8 on their grid, rounded to it.
fn rounded(group: &mut [u8]) {
    let numbers = group.as_chunks_mut::<2>().0;
    let value = |number: &[u8; 2]| bf16::from_le_bytes(*number).to_f32();
    let peak = numbers.iter().map(value).fold(
        0.0f32,
        |peak, x| if x.abs() > peak.abs() { x } else { peak },
    );
    let step = f16::from_f32(peak / -8.0).to_f32();
    for number in numbers {
        let q = (value(number) / step).round().clamp(-8.0, 7.0);
        *number = bf16::from_f32(q * step).to_le_bytes();
    }
}

#[test]
fn weights_that_were_trained_for_4_bits_are_known_on_the_way() {
    let home = tempfile::tempdir().unwrap();
    let source = on_the_grid(home.path());
    let bench = Bench::with(Repo::of(&source, "c5"));
    let said = succeeded(&pull(&bench, "google/demo", &[]).output().unwrap());
    assert!(!said.contains("anew"), "{said}");
    let here = bench.packed_of(&source, &[]);
    assert_eq!(recipe_of(&here), "q4_0");
    assert_eq!(recipe_of(&bench.pack()), "q4_0");
    assert_same(&bench.pack(), &here);
    // A recipe that somebody names is taken.
    succeeded(
        &pull(&bench, "google/demo", &["--force", "--recipe", "q8"])
            .output()
            .unwrap(),
    );
    assert_same(
        &bench.pack(),
        &bench.packed_of(&source, &["--recipe", "q8"]),
    );
}

#[test]
fn files_of_llama_cpp_that_are_none_are_told() {
    let text = bytes(&format!("{FILES}/text-qat-layout.gguf"));
    let with = |at: usize, new: &[u8]| {
        let mut bytes = text.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    for (file, told) in [
        (b"GG".to_vec(), "it is no GGUF file"),
        (b"<!doctype html>".repeat(9), "web page"),
        (
            with(8, &u64::MAX.to_le_bytes()),
            "tensors; 65536 are allowed",
        ),
        (with(16, &u64::MAX.to_le_bytes()), "keys; 16384 are allowed"),
        (with(24, &u64::MAX.to_le_bytes()), "bytes of one text"),
        (text[..text.len() / 2].to_vec(), "download it again"),
    ] {
        let bench = files_of_llama_cpp();
        let mut repo = Repo::new("a5");
        repo.add(TEXT, file);
        bench.hub.put("google/gemma-4-E2B-it-qat-q4_0-gguf", repo);
        let said = failed(&pull(&bench, "gemma-4-e2b:q4_0", &[]).output().unwrap());
        assert!(said.contains(told), "{told}: {said}");
        assert!(!bench.path("models/gemma-4-e2b-q4_0.pack").exists());
    }
    let bench = files_of_llama_cpp();
    bench.hub.fail("blob/", 1, 99, Fault::Whole);
    let said = failed(
        &pull(&bench, "gemma-4-e2b:q4_0", &["--retries", "0"])
            .output()
            .unwrap(),
    );
    assert!(said.contains("only as a whole"), "{said}");
}
