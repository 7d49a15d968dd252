//! The doors: MQTT against a real mosquitto, D-Bus on a dbus-daemon of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../common/broker.rs"]
mod broker;
mod dbus;
mod http;
#[path = "../common/http_client.rs"]
mod http_client;
mod mqtt;
#[path = "../common/payloads.rs"]
mod payloads;
#[path = "../common/private_bus.rs"]
mod private_bus;
