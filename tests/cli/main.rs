//! The subcommands as a person or a script runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what was said"
)]

mod ask;
mod bench;
#[path = "../common/broker.rs"]
mod broker;
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod config;
mod describe;
mod doctor;
mod eval;
mod eval_tools;
#[path = "../common/file_pcm.rs"]
mod file_pcm;
mod inspect;
mod page;
mod pages;
#[path = "../common/payloads.rs"]
mod payloads;
mod plan;
#[path = "../common/private_bus.rs"]
mod private_bus;
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "the daemon's tests use all of it")]
mod process;
mod report;
mod setup;
#[path = "../common/terminal.rs"]
mod terminal;
mod transcribe;
#[path = "../common/tts.rs"]
mod tts;
mod wake;
