//! The doors: reports go out to the broker and the bus, requests come in from both, and from clients of the Wyoming server.

pub mod dbus;
pub mod mqtt;
pub mod wyoming;
