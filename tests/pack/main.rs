//! Packs: what stands in them, and what becomes of one that cannot be written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod files;
mod gguf;
