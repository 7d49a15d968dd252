//! Packs: what stands in them, and what becomes of one that cannot be written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod files;
