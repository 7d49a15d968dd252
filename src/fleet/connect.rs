//! The connection to the server: whom to trust, as whom, and what is wrong with it, told once.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};

use super::error::FleetError;
use super::names::{Kind, MAX_AGE, Names, store_bytes};
use super::options::{FleetOptions, Role};
use crate::guard::regular;
use crate::guard::secret::without_secrets;
use crate::tls::{self, Own, Peer, TlsError};

/// What the other side is called, and its keys.
const PEER: Peer = Peer {
    name: "NATS server",
    section: "fleet.",
};

/// Longest file of credentials, bytes.
const MAX_CREDENTIALS_BYTES: u64 = 65_536;

/// How long a server may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a file of credentials begins with, as `nsc` writes it.
const JWT: &str = "-----BEGIN NATS USER JWT-----";

/// A board's connection to its fleet.
#[derive(Clone)]
pub struct Link {
    pub(super) client: Client,
    pub(super) stream: jetstream::Context,
    pub(super) names: Names,
    pub(super) options: FleetOptions,
    /// This board's name.
    pub(super) node: String,
    /// Of the server, for people.
    pub(super) url: String,
    connected: Arc<AtomicBool>,
}

impl Link {
    /// Connects once.
    ///
    /// # Errors
    /// A file cannot be used, or there is no connection.
    pub async fn open(options: &FleetOptions, node: &str) -> Result<Link, FleetError> {
        let connected = Arc::new(AtomicBool::new(true));
        let how = how(options, node, &connected)?;
        let url = without_secrets(&options.url).into_owned();
        let client = how.connect(addresses(options)).await;
        let client = client.map_err(|error| unreachable(&url, &error))?;
        Ok(Link::of(client, options, node, connected))
    }

    /// Connects, and goes on trying where the server is away: that is no error.
    ///
    /// # Errors
    /// A file cannot be used.
    pub async fn keep(options: &FleetOptions, node: &str) -> Result<Link, FleetError> {
        match Link::open(options, node).await {
            Err(error @ FleetError::Unreachable { .. }) => {
                log::warn!(target: "fleet", "{error}; trying again until it works");
            }
            done => return done,
        }
        let connected = Arc::new(AtomicBool::new(false));
        let how = how(options, node, &connected)?.retry_on_initial_connect();
        let url = without_secrets(&options.url).into_owned();
        let client = how.connect(addresses(options)).await;
        let client = client.map_err(|error| unreachable(&url, &error))?;
        Ok(Link::of(client, options, node, connected))
    }

    fn of(client: Client, options: &FleetOptions, node: &str, connected: Arc<AtomicBool>) -> Link {
        let mut stream = jetstream::new(client.clone());
        stream.set_timeout(PATIENCE);
        Link {
            stream,
            client,
            names: Names::new(options),
            options: options.clone(),
            node: node.to_owned(),
            url: without_secrets(&options.url).into_owned(),
            connected,
        }
    }

    /// Whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// What this board does.
    pub fn role(&self) -> Role {
        self.options.role
    }

    /// Jobs of this board that may be away at a time.
    pub fn jobs(&self) -> usize {
        self.options.jobs
    }

    /// This board's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Makes the streams of the fleet, where there are none yet.
    ///
    /// # Errors
    /// The server has no JetStream, no room, or other streams of these names.
    pub async fn make_streams(&self) -> Result<(), FleetError> {
        for kind in Kind::ALL {
            let config = self.names.stream_config(kind, &self.options);
            let made = self.stream.create_or_update_stream(config).await;
            made.map_err(|error| match error.kind() {
                CreateStreamErrorKind::JetStreamUnavailable => self.no_jetstream(),
                CreateStreamErrorKind::JetStream(error) if is_absent(error.error_code()) => {
                    self.no_jetstream()
                }
                CreateStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED =>
                {
                    let words = format!(
                        "{error}: {} kinds of work of up to fleet.store_mib, {} MiB, are more than max_file of its jetstream leaves",
                        Kind::ALL.len(),
                        self.options.store_mib
                    );
                    self.refused("make the stream of its work", &words)
                }
                _ => self.refused("make the stream of its work", &error),
            })?;
        }
        Ok(())
    }

    /// How many jobs of each kind the server has.
    ///
    /// # Errors
    /// As [`Link::make_streams`].
    pub async fn waiting(&self) -> Result<Vec<(Kind, u64)>, FleetError> {
        self.make_streams().await?;
        let mut waiting = Vec::new();
        for kind in Kind::ALL {
            let stream = self.stream.get_stream(self.names.stream(kind)).await;
            let stream = stream.map_err(|error| self.refused("look at its work", &error))?;
            waiting.push((kind, stream.cached_info().state.messages));
        }
        Ok(waiting)
    }

    /// Where payloads wait that are too large for a message; made where there is none.
    pub(super) async fn store(&self) -> Result<ObjectStore, FleetError> {
        let bucket = self.names.bucket();
        if let Ok(store) = self.stream.get_object_store(&bucket).await {
            return Ok(store);
        }
        let config = object_store::Config {
            bucket,
            description: Some("payloads of gemmad's fleet".to_owned()),
            max_age: MAX_AGE,
            max_bytes: store_bytes(&self.options),
            num_replicas: self.options.replicas,
            ..object_store::Config::default()
        };
        let made = self.stream.create_object_store(config).await;
        made.map_err(|error| self.refused("make the store of its payloads", &error))
    }

    fn no_jetstream(&self) -> FleetError {
        FleetError::NoJetStream {
            url: self.url.clone(),
        }
    }

    pub(super) fn refused(
        &self,
        action: &'static str,
        reason: &dyn std::fmt::Display,
    ) -> FleetError {
        FleetError::Refused {
            url: self.url.clone(),
            action,
            reason: reason.to_string(),
        }
    }
}

fn is_absent(code: ErrorCode) -> bool {
    [
        ErrorCode::JETSTREAM_NOT_ENABLED,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ]
    .contains(&code)
}

fn addresses(options: &FleetOptions) -> Vec<String> {
    let addresses = options.url.split(',').map(str::trim);
    addresses.map(str::to_owned).collect()
}

/// How to connect; what happens to the connection is told in the log, once.
fn how(
    options: &FleetOptions,
    node: &str,
    connected: &Arc<AtomicBool>,
) -> Result<ConnectOptions, FleetError> {
    let mut how = match &options.credentials_file {
        Some(path) => with_credentials(path)?,
        None => ConnectOptions::new(),
    };
    let encrypted = options.is_encrypted().unwrap_or_default();
    if encrypted {
        let own = match (&options.client_certificate_file, &options.client_key_file) {
            (Some(certificate), Some(key)) => Some(Own { certificate, key }),
            _ => None,
        };
        let config = tls::client(PEER, options.ca_file.as_deref(), own);
        let config = config.map_err(|error| match error {
            TlsError::File { key, path, reason } => FleetError::File { key, path, reason },
            error => FleetError::Tls(error),
        })?;
        how = how
            .require_tls(true)
            .tls_client_config(Arc::unwrap_or_clone(config));
    }
    let (connected, told) = (Arc::clone(connected), Arc::new(Mutex::new(String::new())));
    let url = without_secrets(&options.url).into_owned();
    let tell = move |event: Event| {
        let (connected, told) = (Arc::clone(&connected), Arc::clone(&told));
        let text = format!("the NATS server at {url}: {event}");
        async move {
            match event {
                Event::Connected => connected.store(true, Ordering::Relaxed),
                Event::Disconnected | Event::Closed => connected.store(false, Ordering::Relaxed),
                _ => {}
            }
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if *told != text {
                match event {
                    Event::Connected => log::info!(target: "fleet", "{text}"),
                    _ => log::warn!(target: "fleet", "{text}"),
                }
                *told = text;
            }
        }
    };
    Ok(how
        .name(format!("gemmad {node}"))
        .connection_timeout(PATIENCE)
        .request_timeout(Some(PATIENCE))
        .ping_interval(Duration::from_secs(10))
        .event_callback(tell))
}

fn with_credentials(path: &Path) -> Result<ConnectOptions, FleetError> {
    let bad = |reason: String| FleetError::File {
        key: "credentials_file",
        path: path.to_owned(),
        reason,
    };
    let mut text = String::new();
    // While it is read nothing else happens: a pipe is not waited for.
    regular::open(path)
        .and_then(|file| file.take(MAX_CREDENTIALS_BYTES).read_to_string(&mut text))
        .map_err(|error| bad(error.to_string()))?;
    if text.contains(JWT) {
        return ConnectOptions::with_credentials(&text).map_err(|error| bad(error.to_string()));
    }
    let seed = text.trim();
    if !seed.starts_with("SU") || seed.contains(char::is_whitespace) {
        let expected = "it holds neither credentials (`nsc generate creds`) nor the seed of a user's NKey (`nk -gen user`)";
        return Err(bad(expected.to_owned()));
    }
    Ok(ConnectOptions::with_nkey(seed.to_owned()))
}

/// Why there is no connection, and what to do.
fn unreachable(url: &str, error: &async_nats::ConnectError) -> FleetError {
    if let Some(fault) = tls::fault(PEER, error) {
        return FleetError::Unreachable {
            url: url.to_owned(),
            reason: format!("cannot be trusted: {}; {}", fault.what, fault.advice),
        };
    }
    let because = || match std::error::Error::source(error) {
        Some(source) => format!(": {source}"),
        None => String::new(),
    };
    let reason = match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            "does not let this board in: is fleet.credentials_file right, and the user known there?"
                .to_owned()
        }
        ConnectErrorKind::Authentication => {
            format!(
                "cannot be answered with fleet.credentials_file{}",
                because()
            )
        }
        ConnectErrorKind::Dns => format!("has no known address{}", because()),
        ConnectErrorKind::TimedOut => format!("does not answer within {} s", PATIENCE.as_secs()),
        ConnectErrorKind::Tls => {
            format!(
                "does not speak TLS as it should{}: is fleet.url right?",
                because()
            )
        }
        _ => format!("cannot be reached{}", because()),
    };
    FleetError::Unreachable {
        url: url.to_owned(),
        reason,
    }
}
