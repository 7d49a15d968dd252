//! Gemma 4 against the reference implementation (tests/fixtures/tiny-g4a/README.md): `cargo test gemma4_golden` runs all of it, and only it.

mod audio;
mod chat;
mod multimodal;
mod text;
mod text_pack;
pub(crate) mod text_runs;
mod text_variants;
mod tokenizer;
mod vision;

use gemmad::model::gemma4::config::Config;
use kernels::Isa;

use crate::common::fixtures_gemma4;
use crate::isas::isas;

/// Prompts, tokenizer and chat cases of the checkpoint under test.
fn manifest() -> serde_json::Value {
    let path = fixtures_gemma4().join("golden/manifest.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Those that towers are run on. In plain Rust, pictures and sound take minutes at the real width.
pub(crate) fn instruction_sets() -> Vec<Isa> {
    let vision = Config::load(&fixtures_gemma4()).unwrap().vision.unwrap();
    let mut all = isas();
    all.retain(|isa| vision.hidden_size < 256 || *isa != Isa::scalar());
    all
}
