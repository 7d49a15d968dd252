//! Hears ten seconds of noise with each model that is named, for whoever counts the instructions that it takes.
//!
//! `benches/wake-cost.py` runs it on an emulated board. Before and after what is counted stands a system call that is needed for
//! nothing else, `getppid`: the mark that the counter waits for (`benches/instruction-counter.c`).

#![allow(clippy::print_stdout, reason = "its lines are what the counter reads")]

use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::path::Path;

use wake::WakeWord;
use wake::frontend::Frontend;

const SECONDS: usize = 10;

fn main() {
    let models = std::env::args()
        .skip(1)
        .filter(|path| path.ends_with(".json"));
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 18) as i16
    };
    let sound: Vec<i16> = (0..16_000 * SECONDS).map(|_| next()).collect();

    let mut frames = Vec::new();
    let mut frontend = Frontend::default();
    counted("features", || {
        frontend.push(&sound, &mut |frame| frames.push(*frame))
    });
    for path in models {
        let mut word = WakeWord::load(Path::new(&path), 0.0).unwrap_or_else(|e| panic!("{e}"));
        let phrase = word.phrase().to_owned();
        counted(&phrase, || {
            for frame in &frames {
                black_box(word.push(frame));
            }
        });
    }
}

fn counted(name: &str, work: impl FnOnce()) {
    black_box(parent_id());
    work();
    black_box(parent_id());
    println!("{name}\t{SECONDS}");
}
