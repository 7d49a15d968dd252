//! From a request to an answer: what is kept, what gives way, what is in memory; and what the demo model understands.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test fails by panicking, and shows what it counted"
)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod conversations;
mod drafter;
mod early;
mod guesses;
#[path = "../common/heldout.rs"]
mod heldout;
mod heldout_audio;
mod heldout_pack;
mod heldout_voice;
mod home;
mod interrupt;
mod kept_media;
mod prefix_cache;
mod residency;
mod seats;
mod thinking;
mod tools;
