//! What each fuzz target does with its bytes. The targets in `fuzz_targets/` and the test `tests/memory/fuzz_corpora.rs` run these same
//! functions, so a corpus means the same to both.
//!
//! A target fails by panicking: where gemmad's code panics, and where an assertion here does not hold. What it may hold of memory,
//! libFuzzer limits in the one case and the test in the other.

mod checkpoints;
mod doors;
mod media;
mod words;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus too.
pub const TARGETS: &[(&str, Target)] = &[
    ("safetensors", checkpoints::safetensors),
    ("pack", checkpoints::pack),
    ("gguf", checkpoints::gguf),
    ("tokenizer", checkpoints::tokenizer),
    ("config", checkpoints::config),
    ("audio", media::audio),
    ("picture", media::picture),
    ("overview", media::overview),
    ("wake", media::wake),
    ("schema", words::schema),
    ("regex", words::regex),
    ("settings", words::settings),
    ("mqtt", doors::mqtt),
    ("wyoming", doors::wyoming),
    ("http", doors::http),
    ("dbus", doors::dbus),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none; and if the target finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no target {name}"));
    target(bytes);
}

/// libFuzzer ends the process where a panic begins. What gemmad catches (the decoders of compressed sound may panic) is no finding: it
/// ends the process where a panic arrives uncaught, too.
pub fn leave_panics_to_rust() {
    drop(std::panic::take_hook());
}

/// What stands between the files of an input that is several.
const NEXT_FILE: &[u8] = b"\n=====\n";

/// The files of an input that is several: what stands before the first separator, between the first and the second, and so on.
fn sections(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(at) = bytes
        .windows(NEXT_FILE.len())
        .position(|window| window == NEXT_FILE)
    {
        found.push(&bytes[..at]);
        bytes = &bytes[at + NEXT_FILE.len()..];
    }
    found.push(bytes);
    found
}
