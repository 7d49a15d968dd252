//! What stands beside the program: README's commands, the demo, units for systemd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod demo;
mod page;
mod readme;
mod systemd;
