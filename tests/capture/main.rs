//! What the capture threads tell: cameras, motion, speech. The microphone's are a binary of their own (`tests/microphone.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod camera;
mod motion;
mod speech;
