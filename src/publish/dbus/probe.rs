//! Tries the bus as the daemon would use it, for `gemmad doctor`.

use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;

use super::{BUS_TIMEOUT, DbusError, NAME, builder, name_refused};
use crate::config;

/// Who has the daemon's name on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOwner {
    /// Nobody, and this user may have it.
    Free,
    /// A process; its id, where the bus tells.
    Process(Option<u32>),
}

/// Connects, and asks who has `org.gemmad1`; where nobody has, takes it for a moment, so that the bus's policy answers.
///
/// # Errors
/// There is no bus, or its policy does not let this user own the name.
pub async fn probe(config: &config::Dbus) -> Result<NameOwner, DbusError> {
    let bus = || config.bus.clone();
    let lost = |error: zbus::Error| DbusError::Lost {
        bus: bus(),
        reason: error.to_string(),
    };
    let connection = builder(config)
        .method_timeout(BUS_TIMEOUT)
        .build()
        .await
        .map_err(|error| DbusError::Connect {
            bus: bus(),
            reason: error.to_string(),
        })?;
    let proxy = DBusProxy::builder(&connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(lost)?;
    let name = BusName::try_from(NAME).map_err(lost)?;
    let owned = proxy.name_has_owner(name.clone()).await;
    if owned.map_err(|error| lost(error.into()))? {
        let process = proxy.get_connection_unix_process_id(name).await;
        return Ok(NameOwner::Process(process.ok()));
    }
    let reply = connection
        .request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE)
        .await;
    match reply {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => {
            connection.release_name(NAME).await.map_err(lost)?;
            Ok(NameOwner::Free)
        }
        // Somebody was faster.
        Ok(_) | Err(zbus::Error::NameTaken) => Ok(NameOwner::Process(None)),
        Err(error) => Err(name_refused(bus(), error)),
    }
}
