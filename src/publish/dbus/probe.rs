//! Tries the bus as the daemon would use it, for `gemmad doctor`.

use zbus::names::BusName;

use super::options::DbusOptions;
use super::{DbusError, NAME, builder, bus_itself, connect, own_name};

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
pub async fn probe(config: &DbusOptions) -> Result<NameOwner, DbusError> {
    let lost = |error: zbus::Error| DbusError::Lost {
        bus: config.bus.clone(),
        reason: error.to_string(),
    };
    let connection = connect(config, builder(config)).await?;
    let proxy = bus_itself(&connection).await.map_err(lost)?;
    let name = BusName::try_from(NAME).map_err(lost)?;
    let owned = proxy.name_has_owner(name.clone()).await;
    if owned.map_err(|error| lost(error.into()))? {
        let process = proxy.get_connection_unix_process_id(name).await;
        return Ok(NameOwner::Process(process.ok()));
    }
    match own_name(config, &connection).await {
        Ok(()) => {
            connection.release_name(NAME).await.map_err(lost)?;
            Ok(NameOwner::Free)
        }
        // Somebody was faster.
        Err(DbusError::NameTaken { .. }) => Ok(NameOwner::Process(None)),
        Err(error) => Err(error),
    }
}
