//! Files of llama.cpp of a Gemma 4 (tests/fixtures/tiny-g4a-gguf/README.md), and one that was trained in few bits, against the reference
//! implementation:
//! `cargo test gemma4_files_golden` runs all of it, and only it.

mod mmproj;
mod mobile;
mod mobile_runs;
mod text;
mod text_bits;
mod tokenizer;

use std::path::{Path, PathBuf};

use crate::common::fixtures_gemma4_gguf;
use gemmad::pack::{PackOptions, Recipe, pack_gguf};
use kernels::{Isa, Pool};

/// The same values in two layouts: with keys and values of the layers that share them, and as the files of trained 4 bits are.
const FILES: [&str; 2] = ["text-mixed.gguf", "text-qat-layout.gguf"];

/// A file as a pack in `dir`.
fn pack_of(file: &str, recipe: Recipe, dir: &Path) -> PathBuf {
    let to = dir.join("text.pack");
    let pool = Pool::new(Isa::best(), 2);
    let options = PackOptions {
        recipe,
        force: true,
        ..PackOptions::default()
    };
    let from = fixtures_gemma4_gguf().join(file);
    let packed = pack_gguf(&from, None, &to, options, &pool, &mut |_, _| {}).unwrap();
    assert_eq!(packed.requantised, [""; 0]);
    to
}
