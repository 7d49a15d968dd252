//! That the service is there, told to the local network by multicast DNS (DNS-SD): Home Assistant then offers to add it.

use std::net::SocketAddr;
use std::time::Duration;

use mdns_sd::{ServiceDaemon, ServiceInfo};

/// What Home Assistant's integration looks for.
const SERVICE: &str = "_wyoming._tcp.local.";

/// How long the network may take to hear that the service goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// A service that is announced; a thread of its own answers whoever asks for it.
pub(super) struct Announced {
    daemon: ServiceDaemon,
    name: String,
}

impl Announced {
    /// Announces the service at `address`, by the addresses of all interfaces where it is none itself. `None` where the network cannot
    /// be told: it is reached all the same by whoever types its address in.
    pub(super) fn new(address: SocketAddr, host: &str) -> Option<Announced> {
        let announced = Announced::announce(address, host);
        if let Err(error) = &announced {
            log::warn!("wyoming.zeroconf: the network cannot be told of the service: {error}");
        }
        announced.ok()
    }

    fn announce(address: SocketAddr, host: &str) -> Result<Announced, mdns_sd::Error> {
        let instance = format!("{}-{host}", env!("CARGO_PKG_NAME"));
        let host = format!("{host}.local.");
        let port = address.port();
        let nothing_more: [(&str, &str); 0] = [];
        let service = match address.ip().is_unspecified() {
            true => ServiceInfo::new(SERVICE, &instance, &host, "", port, &nothing_more[..])?
                .enable_addr_auto(),
            false => ServiceInfo::new(
                SERVICE,
                &instance,
                &host,
                address.ip(),
                port,
                &nothing_more[..],
            )?,
        };
        let name = service.get_fullname().to_owned();
        let daemon = ServiceDaemon::new()?;
        daemon.register(service)?;
        Ok(Announced { daemon, name })
    }

    /// Tells the network that the service goes.
    pub(super) async fn take_back(self) {
        let farewell = move || {
            if let Ok(told) = self.daemon.unregister(&self.name) {
                told.recv_timeout(FAREWELL).ok();
            }
            self.daemon.shutdown().ok();
        };
        tokio::task::spawn_blocking(farewell).await.ok();
    }
}
