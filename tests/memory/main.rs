//! How much memory a computation holds at its highest point: by a counting allocator or by what the kernel says of the process, so each
//! test has the process to itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod fuzz_corpora;
mod gemma4_vision;
#[path = "../common/heap.rs"]
mod heap;
mod kv_cache;
mod vision;

use std::sync::Mutex;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());
