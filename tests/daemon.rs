//! `gemmad run` as a process: the demo model between a microphone of ALSA's `file` plugin, pictures of a directory, a real
//! mosquitto and a dbus-daemon of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and shows what the daemon said"
)]

#[path = "daemon/ask.rs"]
mod ask;
#[path = "daemon/board.rs"]
mod board;
#[path = "common/broker.rs"]
mod broker;
#[path = "daemon/faults.rs"]
mod faults;
#[path = "common/file_pcm.rs"]
mod file_pcm;
#[path = "daemon/guard.rs"]
mod guard;
#[path = "daemon/lifecycle.rs"]
mod lifecycle;
#[path = "daemon/listen.rs"]
mod listen;
#[path = "common/payloads.rs"]
mod payloads;
#[path = "common/private_bus.rs"]
mod private_bus;
#[path = "daemon/process.rs"]
mod process;
#[path = "daemon/sight.rs"]
mod sight;
#[path = "daemon/switches.rs"]
mod switches;
#[path = "daemon/talkers.rs"]
mod talkers;
#[path = "daemon/voice.rs"]
mod voice;
#[path = "daemon/watch.rs"]
mod watch;
#[path = "daemon/wyoming.rs"]
mod wyoming;
