//! The Wyoming protocol: speech to text, and sentences to commands, for Home Assistant's Assist pipelines and its kin.
//!
//! | part | what |
//! | --- | --- |
//! | `framing` | events on the wire, with limits |
//! | `client` | one connection: what it asks, in the order in which it asks |
//! | `sound` `turn` | its sound as the model hears it; when its speaker is done |
//! | `intents` | commands as intents of Home Assistant |
//! | `voice` | the other end: text that a server elsewhere makes sound of |
//! | `zeroconf` | that the service is there, told to the local network |
//! | `info` | what the service says of itself |

mod client;
mod framing;
mod info;
mod intents;
mod options;
mod sound;
mod turn;
mod voice;
mod zeroconf;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::mqtt::{host_name, slug};
use super::{Door, Inside, Opening, Stopped};
use crate::report::{Cancel, Info, JobUpdate, Payload, Report, Request};
use client::Client;
use framing::Event;
use zeroconf::Announced;

pub use options::WyomingOptions;
pub use voice::{Sentences, Spoken, Voice};

/// Pause after the system refused a connection, most likely for want of descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// The server cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("wyoming.listen: cannot listen on {address}: {source}")]
pub struct WyomingError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What clients share.
struct Shared {
    config: WyomingOptions,
    /// Probability from which a frame is speech ([speech] threshold).
    threshold: f32,
    info: Mutex<Info>,
    requests: mpsc::Sender<Request>,
}

impl Shared {
    fn info(&self) -> MutexGuard<'_, Info> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that hands its clients' requests to the daemon.
pub struct Wyoming {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    announced: Option<Announced>,
}

impl Wyoming {
    /// Listens; has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        config: &WyomingOptions,
        threshold: f32,
        info: Info,
        requests: mpsc::Sender<Request>,
    ) -> Result<Wyoming, WyomingError> {
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| WyomingError { address, source })?;
        if !address.ip().is_loopback() {
            log::warn!(
                "wyoming.listen is {address}: whoever reaches it may have speech written down; the protocol knows no password"
            );
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            threshold,
            info: Mutex::new(info),
            requests,
        });
        let host = slug(&host_name());
        let announced = config.zeroconf.then(|| Announced::new(address, &host));
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Wyoming {
            shared,
            task,
            announced: announced.flatten(),
        })
    }

    /// Clients are told what runs; answers go to those that asked.
    pub fn publish(&self, report: &Report) {
        if let Report::Info(info) = report {
            *self.shared.info() = (**info).clone();
        }
    }

    /// Ends; clients see their connections close.
    pub async fn stop(self) {
        if let Some(announced) = self.announced {
            announced.take_back().await;
        }
        self.task.abort();
        self.task.await.ok();
    }
}

/// Listens as [`Wyoming::start`] does.
pub fn open(config: &WyomingOptions, threshold: f32, inside: Inside) -> Opening {
    let config = config.clone();
    Box::pin(async move {
        let wyoming = Wyoming::start(&config, threshold, inside.info, inside.requests).await;
        let wyoming = wyoming.map(|wyoming| Box::new(wyoming) as Box<dyn Door>);
        wyoming.map_err(|error| error.to_string())
    })
}

impl Door for Wyoming {
    fn publish(&self, report: &Report) {
        Wyoming::publish(self, report);
    }

    fn stop(self: Box<Self>, _: Duration) -> Stopped {
        Box::pin(Wyoming::stop(*self))
    }
}

/// A client's whole conversation; for each of its requests `answer` is called until it has an answer. Open to tests: what comes over
/// the network comes this way.
///
/// # Errors
/// Why the client was let go.
#[doc(hidden)]
pub async fn converse(
    config: &WyomingOptions,
    info: Info,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    answer: impl Fn(&Request) -> Option<JobUpdate>,
) -> Result<(), String> {
    let (requests, mut asked) = mpsc::channel(8);
    let shared = Arc::new(Shared {
        config: config.clone(),
        threshold: 0.5,
        info: Mutex::new(info),
        requests,
    });
    let mut client = Client::new(input, output, Arc::clone(&shared));
    let served = client.serve();
    let answered = async {
        let mut open: Vec<Request> = Vec::new();
        loop {
            match asked.try_recv() {
                Ok(Request {
                    payload: Payload::Cancel(Cancel::Job(job)),
                    ..
                }) => open.retain(|request| request.header.id != *job),
                Ok(request) => open.push(request),
                Err(_) => {}
            }
            open.retain(|request| {
                let update = answer(request);
                if let Some(update) = &update {
                    request.reply.tell(update);
                }
                update.is_none()
            });
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        ended = served => ended.map_err(|error| error.to_string()),
        () = answered => Ok(()),
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(shared.config.max_clients));
    // Dropped with this task, and with it every client's.
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::debug!("wyoming: a connection was refused: {error}");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let shared = Arc::clone(&shared);
                clients.spawn(async move {
                    serve(stream, shared, place).await;
                });
            }
            Err(_) => {
                let text = format!(
                    "{} clients are served already (wyoming.max_clients)",
                    shared.config.max_clients
                );
                clients.spawn(refuse(stream, text));
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, place: OwnedSemaphorePermit) {
    // Answers are short, and waited for.
    stream.set_nodelay(true).ok();
    let (input, output) = stream.into_split();
    let mut client = Client::new(input, output, shared);
    let served = client.serve().await;
    drop(place);
    if let Err(error) = served {
        log::debug!("wyoming: {error}");
        client.let_go().await;
    }
}

/// One event, then the end; who does not take it is left.
async fn refuse(stream: TcpStream, text: String) {
    let (mut input, mut output) = stream.into_split();
    let event = Event::new("error", json!({ "text": text, "code": "busy" }));
    let sent = framing::write(&mut output, &event);
    tokio::time::timeout(Duration::from_secs(1), sent)
        .await
        .ok();
    framing::let_go(&mut input, &mut output).await;
}
