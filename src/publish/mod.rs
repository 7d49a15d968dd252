//! The doors: reports go out to the broker and the bus, requests come in from both.

pub mod dbus;
pub mod mqtt;
