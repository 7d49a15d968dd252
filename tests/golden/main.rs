//! The model against the reference implementation (tests/fixtures/README.md), and packs against themselves: what runs on every emulated CPU too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audio;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod gemma3n_mmproj;
mod gemma4_drafter_golden;
mod gemma4_files_golden;
mod gemma4_golden;
#[path = "../../kernels/tests/agreement/isas.rs"]
mod isas;
mod multimodal;
mod pack;
mod pack_towers;
mod text;
mod vision;
