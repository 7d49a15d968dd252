//! Gemma 4 against the reference implementation (tests/fixtures/tiny-g4a/README.md): `cargo test gemma4_golden` runs all of it, and only it.

mod audio;
mod text;
mod text_pack;
mod text_runs;
mod text_variants;
mod vision;
