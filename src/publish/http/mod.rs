//! HTTP: OpenAI's and Ollama's protocols for their unmodified clients, figures for Prometheus, and a page to look at.
//!
//! | part | what |
//! | --- | --- |
//! | `server` | connections, with limits, and encryption |
//! | `security` | who may ask: names, origins, the key |
//! | `body` | requests as bytes, multipart and JSON, with limits |
//! | `fault` | why something is refused, in the words of either protocol |
//! | `names` | the model's names: slices and budgets of soft tokens are chosen by them |
//! | `media` | pictures and sounds in requests |
//! | `tools` | tools, calls of them, and what came of those |
//! | `answer` | an answer on its way, with its job |
//! | `openai/`, `ollama/` | the two protocols |
//! | `play` | what the board says |
//! | `metrics` | figures for Prometheus |
//! | `page/` | the page, and what it asks and hears |

mod answer;
mod body;
mod fault;
mod key;
mod media;
mod metrics;
mod names;
mod ollama;
mod openai;
mod options;
mod page;
mod play;
mod security;
mod server;
mod tools;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::{Door, Inside, Opening, Stopped};
use crate::report::{Info, ModelCard, Report, Request};
use crate::tls::{self, TlsError};
use key::Key;

pub use options::HttpServerOptions;

/// The server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("http.listen: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The key cannot be used.
    #[error("http.{key}: {path}: {reason}")]
    Key {
        /// What names it in gemmad.toml.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The credential is not there.
    #[error(
        "http.api_key_credential is {name:?}, but systemd gave no credentials: add LoadCredential={name}:FILE to the unit"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Certificate or key.
    #[error("http.{0}")]
    Tls(TlsError),
}

/// What clients share.
struct Shared {
    options: HttpServerOptions,
    key: Option<Key>,
    card: Arc<ModelCard>,
    info: Mutex<Info>,
    requests: mpsc::Sender<Request>,
    /// Memory for requests that are being read, KiB.
    bodies: Arc<Semaphore>,
    counts: metrics::Counts,
    page: page::State,
    started: Instant,
}

impl Shared {
    fn new(options: &HttpServerOptions, key: Option<Key>, inside: Inside) -> Shared {
        Shared {
            options: options.clone(),
            key,
            page: page::State::new(),
            card: inside.card,
            info: Mutex::new(inside.info),
            requests: inside.requests,
            bodies: Arc::new(Semaphore::new(options.max_bodies_mib << 10)),
            counts: metrics::Counts::default(),
            started: Instant::now(),
        }
    }

    fn info(&self) -> MutexGuard<'_, Info> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a client may take for a step.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience_s.into())
    }
}

/// A server that hands its clients' requests to the daemon.
pub struct Http {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Whether the key and the certificate that are configured can be used: what a start would find.
///
/// # Errors
/// As [`Http::start`], but for the address.
pub fn check_files(options: &HttpServerOptions) -> Result<(), HttpError> {
    key::load(options)?;
    encryption(options)?;
    Ok(())
}

fn encryption(options: &HttpServerOptions) -> Result<Option<Arc<rustls::ServerConfig>>, HttpError> {
    match (&options.tls_certificate_file, &options.tls_key_file) {
        (Some(certificate), Some(key)) => tls::server(certificate, key)
            .map(Some)
            .map_err(HttpError::Tls),
        _ => Ok(None),
    }
}

impl Http {
    /// Listens; has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on; the key or the certificate cannot be used.
    pub async fn start(options: &HttpServerOptions, inside: Inside) -> Result<Http, HttpError> {
        let key = key::load(options)?;
        let encryption = encryption(options)?;
        let address = options.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| HttpError::Listen { address, source })?;
        if key.is_none() && !address.ip().is_loopback() {
            log::warn!(
                "http.listen is {address} and http.allow_without_key is true: whoever reaches it may ask, and see what is heard and seen"
            );
        } else if encryption.is_none() && !address.ip().is_loopback() {
            log::info!(
                "http.listen is {address} without TLS: the key and all answers go over the network in the clear"
            );
        }
        let shared = Arc::new(Shared::new(options, key, inside));
        let task = tokio::spawn(server::accept(listener, encryption, Arc::clone(&shared)));
        Ok(Http { shared, task })
    }
}

/// One connection, from its first byte to its end. Open to tests: what comes over the network comes this way.
#[doc(hidden)]
pub async fn converse(
    options: &HttpServerOptions,
    inside: Inside,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
) {
    let shared = Arc::new(Shared::new(options, None, inside));
    let (app, patience) = (server::app(&shared), shared.patience());
    // Why it ended is told to nobody.
    server::converse(stream, app, patience).await.ok();
}

/// Listens as [`Http::start`] does.
pub fn open(options: &HttpServerOptions, inside: Inside) -> Opening {
    let options = options.clone();
    Box::pin(async move {
        let http = Http::start(&options, inside).await;
        let http = http.map(|http| Box::new(http) as Box<dyn Door>);
        http.map_err(|error| error.to_string())
    })
}

impl Door for Http {
    fn publish(&self, report: &Report) {
        if let Report::Info(info) = report {
            *self.shared.info() = (**info).clone();
        }
        self.shared.counts.take(report);
        self.shared.page.take(report);
    }

    fn stop(self: Box<Self>, _: Duration) -> Stopped {
        Box::pin(async move {
            self.task.abort();
            self.task.await.ok();
        })
    }
}
