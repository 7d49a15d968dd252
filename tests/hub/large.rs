//! A checkpoint of the published size, which nobody keeps: its numbers follow from their place.
//!
//!     cargo test --release --test hub -- --ignored --nocapture

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gemmad::pack::{Recipe, SyntheticSize};

use crate::server::Repo;
use crate::{Bench, interrupted, of_this_repository, succeeded};

/// Name and bytes of each tensor, in alphabetical order, as the published file has them.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let table = of_this_repository("tests/fixtures/gemma4-e2b-tensors.tsv");
    let table = std::fs::read_to_string(table).unwrap();
    let mut tensors: Vec<_> = table
        .lines()
        .skip(1)
        .map(|line| {
            let mut columns = line.split('\t');
            let name = columns.next().unwrap().to_owned();
            let shape = columns.next().unwrap();
            let shape = shape.split('x').filter_map(|n| n.parse().ok()).collect();
            (name, shape)
        })
        .collect();
    tensors.sort();
    tensors
}

/// The header of such a file, what follows it, and what of that is needed.
fn header() -> (Vec<u8>, u64, u64) {
    let (mut json, mut end, mut needed) = (serde_json::Map::new(), 0, 0);
    for (name, shape) in tensors() {
        let bytes = 2 * shape.iter().product::<u64>();
        let layer = name.split("language_model.layers.").nth(1);
        let layer = layer.and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
        let is_kv = ["k_proj", "v_proj", "k_norm"]
            .iter()
            .any(|part| name.contains(part));
        if !(is_kv && layer.is_some_and(|layer| layer >= 15)) {
            needed += bytes;
        }
        let value = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]});
        json.insert(name, value);
        end += bytes;
    }
    let json = serde_json::Value::from(json).to_string();
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.as_bytes());
    (header, end, needed)
}

/// What a directory takes on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| {
        let found = entry.metadata().ok()?;
        Some(match found.is_dir() {
            true => disk_bytes(&entry.path()),
            false => found.blocks() * 512,
        })
    });
    bytes.sum()
}

/// GEMMAD_KILLS is how often it is killed, if not fifty times.
#[test]
#[ignore = "takes half an hour and 9 GB of disk"]
fn a_model_of_the_published_size_is_pulled_and_killed_fifty_times() {
    let mut repo = Repo::new("ad");
    let mut small_bytes = 0;
    for (name, bytes) in SyntheticSize::Gemma4E2b.small_files(false, Recipe::Balanced) {
        small_bytes += bytes.len() as u64;
        repo.add(&name, bytes);
    }
    let (header, behind, needed) = header();
    let needed = needed + header.len() as u64 + small_bytes;
    repo.add_numbers("model.safetensors", header, behind);
    let bench = Bench::with(repo);

    let mut run = bench.pull(&[]);
    let mut run = run
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", run.id());
    let (mut most_disk, mut most_memory) = (0, 0);
    while run.try_wait().unwrap().is_none() {
        most_disk = most_disk.max(disk_bytes(&bench.path("models")));
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        most_memory = most_memory.max(peak.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(run.wait().unwrap().success());
    let sent = bench.hub.sent_bytes();
    let pack = disk_bytes(&bench.pack());
    eprintln!(
        "needed {needed}, sent {sent}, pack {pack}, most on the disk {most_disk}, most memory {most_memory}"
    );
    assert!(sent <= needed + needed / 100);
    assert!(most_disk <= pack + (64 << 20));
    assert!(most_memory <= 300 << 20);
    let undisturbed = std::fs::read_to_string(bench.pack().join("pack.json")).unwrap();
    let mut ask = bench.gemmad(&["ask", "--model", bench.pack().to_str().unwrap()]);
    succeeded(&ask.args(["--max-tokens", "2", "hello"]).output().unwrap());

    std::fs::remove_dir_all(bench.pack()).unwrap();
    let kills = std::env::var("GEMMAD_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let sent = interrupted::killed(&bench, kills, needed / (kills as u64 + 1));
    eprintln!("killed {kills} times: sent {sent}");
    let resumed = std::fs::read_to_string(bench.pack().join("pack.json")).unwrap();
    assert_eq!(undisturbed, resumed);
    assert!(sent <= needed + needed / 50);
}
