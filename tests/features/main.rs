//! What the model looks at and listens to: files, pixels, samples.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audio;
#[path = "../common/mod.rs"]
mod common;
mod image;
