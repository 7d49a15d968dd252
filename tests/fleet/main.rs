//! The fleet alone: a real NATS server, workers that are processes of their own and die, jobs whose work is to wait.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and shows its figures"
)]

#[path = "../common/broker.rs"]
mod broker;
mod crew;
mod faults;
mod first;
mod load;
#[path = "../common/nats.rs"]
mod nats;
