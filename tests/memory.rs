//! How much heap a computation holds at its highest point: by a counting allocator, so each test has the process to itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "memory/files.rs"]
mod files;
#[path = "common/heap.rs"]
mod heap;
#[path = "memory/vision.rs"]
mod vision;

use std::sync::Mutex;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());
