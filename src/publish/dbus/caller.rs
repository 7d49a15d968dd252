//! Who calls: the name on the bus, and the user behind it.

use zbus::Connection;
use zbus::message::Header;

use super::error::Error;

/// The caller's unique name.
pub(super) fn sender(header: &Header<'_>) -> Result<String, Error> {
    let sender = header.sender().map(|sender| sender.to_string());
    sender.ok_or_else(|| Error::NotPermitted("the call has no sender".to_owned()))
}

/// The caller's user, as the bus knows it.
pub(super) async fn uid(connection: &Connection, sender: &str) -> Result<u32, Error> {
    let bus = "org.freedesktop.DBus";
    let reply = connection
        .call_method(
            Some(bus),
            "/org/freedesktop/DBus",
            Some(bus),
            "GetConnectionUnixUser",
            &sender,
        )
        .await;
    let unknown =
        |error| Error::NotPermitted(format!("the bus does not tell the caller's user: {error}"));
    reply
        .map_err(unknown)?
        .body()
        .deserialize()
        .map_err(unknown)
}
