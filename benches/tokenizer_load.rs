//! What loading a 262,144-entry `tokenizer.json` costs: our tables against the `tokenizers` library.
//!
//! Each side runs in a process of its own, so that the memory is its own.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use gemmad::model::tokenizer::Tokenizer;

const TEXT: &str = "the quick brown fox jumps over the lazy dog while 台所の電気を消してください ";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [side, dir] if side == "tables" => measure(
            side,
            || Tokenizer::load(Path::new(dir)).unwrap(),
            Tokenizer::encode,
        ),
        [side, dir] if side == "library" => measure(
            side,
            || tokenizers::Tokenizer::from_file(Path::new(dir).join("tokenizer.json")).unwrap(),
            |library, text| library.encode_fast(text, false).unwrap().get_ids().to_vec(),
        ),
        _ => {
            let dir = tempfile::tempdir().unwrap();
            let json = gemmad::pack::SyntheticSize::E4b.tokenizer_json();
            println!(
                "tokenizer.json: {:.1} MB, {} merges",
                json.len() as f64 / 1e6,
                json.matches("      [\n").count()
            );
            std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
            for side in [
                "library", "tables", "library", "tables", "library", "tables",
            ] {
                let status = Command::new(&arguments[0])
                    .arg(side)
                    .arg(dir.path())
                    .status()
                    .unwrap();
                assert!(status.success());
            }
        }
    }
}

fn measure<T>(side: &str, load: impl FnOnce() -> T, encode: impl Fn(&T, &str) -> Vec<u32>) {
    let before_mb = status_mb("VmRSS");
    let start = Instant::now();
    let tokenizer = load();
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let (resident_mb, peak_mb) = (
        status_mb("VmRSS") - before_mb,
        status_mb("VmHWM") - before_mb,
    );
    let text = TEXT.repeat(100);
    let start = Instant::now();
    let ids = encode(&tokenizer, &text);
    let encode_ms = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "{side:8} load {load_ms:6.0} ms, resident {resident_mb:6.1} MB, peak {peak_mb:6.1} MB, {} tokens in {encode_ms:.1} ms",
        ids.len()
    );
}

/// A figure of `/proc/self/status` in MB.
fn status_mb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        * 1024.0
        / 1e6
}
