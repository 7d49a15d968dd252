//! The door to D-Bus: `org.gemmad1`, with objects for the daemon, its microphones, its cameras and every job.
//!
//! The daemon hands over what happened and never waits: state is compared with what was told last, so a slow bus sees fewer steps
//! and the right end; signals with contents wait in a bounded queue. Who may call and hear what is the bus's policy
//! (packaging/dbus/gemmad.conf); whose a job is, is checked here.

mod call_options;
mod caller;
mod calls;
mod client;
mod error;
mod events;
mod job;
mod jobs;
mod log_control;
mod manager;
mod options;
mod payload;
mod probe;
mod sources;
mod state;
mod tasks;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, ObjectManager, RequestNameFlags, RequestNameReply};
use zbus::proxy::CacheProperties;
use zbus::wire::LE;
use zbus::wire::serialized::{Context, Data};
use zbus::{Connection, OwnedVariant, fdo};

use super::{Door, Inside, Opening, Stopped};
use crate::report::{AskFields, Info, Report, Request};

pub use client::{CallError, Client};
pub use error::DbusError;
pub use options::DbusOptions;
pub use probe::{NameOwner, probe};

use events::Events;
use log_control::LogControl;
use manager::Manager;
use sources::{Camera, Microphone};
use state::{Shared, Shown};

const NAME: &str = "org.gemmad1";
const ROOT: &str = "/org/gemmad1";
const LOG_CONTROL: &str = "/org/freedesktop/LogControl1";

/// Whoever opens the door waits for the bus no longer than this.
const START: Duration = Duration::from_secs(5);

/// Longest wait for an answer of the bus itself.
const BUS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a call of the manager's method `method` (`Ask`, `Transcribe` or `Describe`) asks for, by its options: an `a{sv}` as it lies in a
/// message of little-endian byte order; of `Ask` it is told. Open to tests: what comes over the bus comes this way, and descriptors
/// beside it.
///
/// # Errors
/// What the caller would be told.
#[doc(hidden)]
pub fn read_options(
    method: &str,
    options: &[u8],
    max_text_bytes: usize,
) -> Result<Option<AskFields>, String> {
    let message = Data::new(options, Context::new(LE, 0));
    let (options, _): (HashMap<String, OwnedVariant>, usize) =
        message.deserialize().map_err(|error| error.to_string())?;
    let read = match method {
        "Ask" => manager::ask_options("?".to_owned(), options, max_text_bytes)
            .map(|(ask, _, _)| Some(ask)),
        "Transcribe" => manager::transcribe_options(options, max_text_bytes).map(|_| None),
        "Describe" => manager::describe_options(options, max_text_bytes).map(|_| None),
        _ => return Err(format!("no method {method:?} takes options")),
    };
    read.map_err(|error| error.to_string())
}

/// The daemon on the bus.
pub struct Bus {
    connection: Connection,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Bus {
    /// Connects, puts the objects of `info` on the bus and takes the name; requests go to `requests`.
    ///
    /// # Errors
    /// There is no bus, or it does not give the name.
    pub async fn start(
        config: &DbusOptions,
        info: Info,
        requests: mpsc::Sender<Request>,
    ) -> Result<Bus, DbusError> {
        let lost = |error: zbus::Error| DbusError::Lost {
            bus: config.bus.clone(),
            reason: error.to_string(),
        };
        let shared = Arc::new(Shared::new(config, &info, requests));
        let served = builder(config)
            .serve_at(
                ROOT,
                Manager {
                    shared: shared.clone(),
                },
            )
            .serve_at(ROOT, Events)
            .serve_at(ROOT, ObjectManager)
            .serve_at(LOG_CONTROL, LogControl);
        let connection = connect(config, served).await?;
        let shown = shared.state().shown.clone();
        serve_sources(&connection, &shared, &shown)
            .await
            .map_err(lost)?;
        // Before the first call can come.
        let proxy = bus_itself(&connection).await.map_err(lost)?;
        let changes = proxy.receive_name_owner_changed().await.map_err(lost)?;
        own_name(config, &connection).await?;
        let tasks = [
            tokio::spawn(tasks::tell(connection.clone(), shared.clone(), shown)),
            tokio::spawn(tasks::watch_callers(shared.clone(), changes)),
        ];
        Ok(Bus {
            connection,
            shared,
            tasks,
        })
    }

    /// Takes in what happened; it reaches the bus when the bus can take it.
    pub fn publish(&self, report: &Report) {
        if self.shared.state().apply(report) {
            self.shared.changed.notify_one();
        }
    }

    /// Whether the connection stands. Once lost it does not come back: start anew.
    pub fn alive(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Leaves the bus.
    pub async fn stop(self) {
        let stopped = async {
            if let Err(error) = self.connection.release_name(NAME).await {
                log::debug!(target: "dbus", "the name was not given back: {error}");
            }
            self.connection.clone().close().await
        };
        match tokio::time::timeout(BUS_TIMEOUT, stopped).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!(target: "dbus", "the connection did not close: {error}"),
            Err(_) => log::debug!(target: "dbus", "the bus does not answer"),
        }
    }
}

/// Connects as [`Bus::start`] does; a bus that does not answer in time is away.
pub fn open(config: &DbusOptions, inside: Inside) -> Opening {
    let config = config.clone();
    Box::pin(async move {
        let start = Bus::start(&config, inside.info, inside.requests);
        match tokio::time::timeout(START, start).await {
            Ok(Ok(bus)) => Ok(Box::new(bus) as Box<dyn Door>),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("dbus.bus: {} does not answer", config.bus)),
        }
    })
}

impl Door for Bus {
    fn publish(&self, report: &Report) {
        Bus::publish(self, report);
    }

    fn is_open(&self) -> bool {
        self.alive()
    }

    fn status(&self) -> Option<&'static str> {
        Some("bus connected")
    }

    fn stop(self: Box<Self>, _: Duration) -> Stopped {
        Box::pin(Bus::stop(*self))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// To the bus that is configured.
fn builder(config: &DbusOptions) -> Builder<'_> {
    match config.bus.as_str() {
        "system" => Builder::system(),
        "session" => Builder::session(),
        address => Builder::address(address),
    }
}

async fn connect(config: &DbusOptions, builder: Builder<'_>) -> Result<Connection, DbusError> {
    let connection = builder.method_timeout(BUS_TIMEOUT).build().await;
    connection.map_err(|error| DbusError::Connect {
        bus: config.bus.clone(),
        reason: error.to_string(),
    })
}

/// The bus's own object.
async fn bus_itself(connection: &Connection) -> zbus::Result<DBusProxy<'static>> {
    DBusProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Takes the daemon's name.
async fn own_name(config: &DbusOptions, connection: &Connection) -> Result<(), DbusError> {
    let reply = connection
        .request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE)
        .await;
    match reply {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
        Ok(_) | Err(zbus::Error::NameTaken) => Err(DbusError::NameTaken {
            bus: config.bus.clone(),
            name: NAME,
        }),
        Err(error) => Err(name_refused(config.bus.clone(), error)),
    }
}

async fn serve_sources(
    connection: &Connection,
    shared: &Arc<Shared>,
    shown: &Shown,
) -> zbus::Result<()> {
    let server = connection.object_server();
    for id in shown.microphones.keys() {
        let object = Microphone {
            shared: shared.clone(),
            id: id.clone(),
        };
        server.at(source_path("mic", id), object).await?;
    }
    for id in shown.cameras.keys() {
        let object = Camera {
            shared: shared.clone(),
            id: id.clone(),
        };
        server.at(source_path("camera", id), object).await?;
    }
    Ok(())
}

fn name_refused(bus: String, error: zbus::Error) -> DbusError {
    let reason = error.to_string();
    match error {
        zbus::Error::MethodError(name, ..)
            if name.as_str() == "org.freedesktop.DBus.Error.AccessDenied" =>
        {
            DbusError::NameRefused {
                bus,
                name: NAME,
                reason,
            }
        }
        zbus::Error::FDO(error) if matches!(*error, fdo::Error::AccessDenied(_)) => {
            DbusError::NameRefused {
                bus,
                name: NAME,
                reason,
            }
        }
        _ => DbusError::Lost { bus, reason },
    }
}

fn job_path(id: &str) -> String {
    format!("{ROOT}/job/{id}")
}

/// Paths have letters, digits and `_` only.
fn source_path(kind: &str, id: &str) -> String {
    let id = id.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{ROOT}/{kind}/{id}")
}
