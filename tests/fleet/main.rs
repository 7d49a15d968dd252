//! The fleet alone: a real NATS server, workers that are processes of their own and die, most jobs' work is to wait.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and shows its figures"
)]

mod boards;
#[path = "../common/broker.rs"]
mod broker;
mod cluster;
mod crew;
mod faults;
mod first;
mod growth;
#[path = "../common/heldout.rs"]
mod heldout;
mod hostile;
#[path = "../common/http_client.rs"]
mod http_client;
mod load;
#[path = "../common/nats.rs"]
mod nats;
mod network;
mod share;
mod takers;
