//! What the daemon knows, told outside.

pub mod dbus;
