//! `gemmad run` as a process: the demo model between a microphone of ALSA's `file` plugin, pictures of a directory, a real
//! mosquitto and a dbus-daemon of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and shows what the daemon said"
)]

mod aloud;
mod ask;
mod board;
mod boards;
#[path = "../common/broker.rs"]
mod broker;
mod chat;
mod duplex;
mod early;
mod faults;
#[path = "../common/file_pcm.rs"]
mod file_pcm;
mod fleet;
mod fleet_doors;
mod fleet_many;
mod fleet_voice;
mod frigate;
mod guard;
mod home;
mod http;
#[path = "../common/http_client.rs"]
mod http_client;
mod lifecycle;
mod listen;
#[path = "../common/nats.rs"]
mod nats;
#[path = "../common/nvr.rs"]
mod nvr;
#[path = "../common/payloads.rs"]
mod payloads;
#[path = "../common/private_bus.rs"]
mod private_bus;
#[path = "../common/process.rs"]
mod process;
mod sight;
mod speech;
mod switches;
mod talkers;
#[path = "../common/terminal.rs"]
mod terminal;
mod timeline;
mod together;
#[path = "../common/tts.rs"]
mod tts;
mod voice;
mod wake;
mod watch;
mod wyoming;
