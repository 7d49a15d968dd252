//! What a tower of the real size costs in time and memory, on random weights.
//!
//! `cargo bench --bench towers -- audio [THREADS]`: 30 s of audio through the whole line from samples to soft tokens.
//! `cargo bench --bench towers -- vision [THREADS]`: a picture at each resolution.
//! Without arguments: both.
//!
//! A tower runs in a process of its own, so that the memory is its own.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

mod audio;
#[path = "../../tests/common/heap.rs"]
mod heap;
mod synthetic;
mod vision;

use std::process::Command;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

fn main() {
    let arguments: Vec<String> = std::env::args()
        .filter(|argument| argument != "--bench")
        .collect();
    let threads = |given: Option<&String>| {
        given.map_or_else(kernels::recommended_threads, |given| given.parse().unwrap())
    };
    match &arguments[1..] {
        [tower, dir, threads] if dir.contains('/') => {
            let measure = if tower == "audio" {
                audio::measure
            } else {
                vision::measure
            };
            measure(dir.as_ref(), threads.parse().unwrap())
        }
        [] => ["audio", "vision"]
            .iter()
            .for_each(|tower| run(&arguments[0], tower, threads(None))),
        [tower, rest @ ..] if tower == "audio" || tower == "vision" => {
            run(&arguments[0], tower, threads(rest.first()))
        }
        other => panic!("expected: [audio|vision [THREADS]], found {other:?}"),
    }
}

/// Writes the checkpoint and measures in a new process.
fn run(program: &str, tower: &str, threads: usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = synthetic::config();
    let tensors = match tower {
        "audio" => {
            synthetic::audio_tensors(config.audio.as_ref().unwrap(), audio::TEXT_HIDDEN_SIZE)
        }
        _ => synthetic::vision_tensors(config.vision.as_ref().unwrap(), audio::TEXT_HIDDEN_SIZE),
    };
    let parameters = synthetic::write_checkpoint(dir.path(), &tensors);
    println!(
        "{tower}: {:.1} M parameters, bfloat16",
        parameters as f64 / 1e6
    );
    let status = Command::new(program)
        .arg(tower)
        .arg(dir.path())
        .arg(threads.to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

/// A line of `/proc/self/status`, such as `VmHWM`, in MiB.
fn status_mib(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
