//! MQTT 3.1.1: the topic tree of this node, Home Assistant's discovery, and requests.
//!
//! | part | what |
//! | --- | --- |
//! | `client` | the door to the client crate: one connection |
//! | `owner` `shared` | the one task that has the connection and connects again; what it shares with those who publish |
//! | `inbox` | what the broker hands over: requests, the list of devices, whoever has the same name |
//! | `backoff` `namesake` | how long to wait for the next connection; another process with this node's name |
//! | `outbox` `spool` | what waits for the broker, in memory and on disk |
//! | `payload` `body` `topics` | reports as messages; payloads that only MQTT has; names of topics |
//! | `command` `answers` | messages from outside as requests; the way back |
//! | `homeassistant` `component` `health_sensors` `voice_entities` `announce` | devices and entities; telling of them, and taking them back |
//! | `secure` | certificates and passwords |
//! | `clear` | removes what the broker keeps of a node |
//! | `probe` `session` | whether the broker does what the daemon needs, tried step by step |
//! | `advice` | what to do about a broker that cannot be used |
//! | `follow` | reads what a node publishes |
//! | `schemas` | JSON schemas of what is published and accepted |

mod advice;
mod announce;
mod answers;
mod backoff;
mod body;
mod clear;
mod client;
mod command;
mod component;
mod follow;
mod health_sensors;
mod homeassistant;
mod inbox;
mod namesake;
mod options;
mod outbox;
mod owner;
mod payload;
mod probe;
mod schemas;
mod secure;
mod session;
mod shared;
mod spool;
mod topics;
mod voice_entities;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Door, Inside, Opening, Stopped};
use crate::report::{ErrorBody, Info, MqttHealth, Payload, ReplyTo, Report, Request};
use crate::tls::TlsError;
use backoff::Backoff;
use namesake::Namesake;
use outbox::Outbox;
use owner::Owner;
use payload::Composer;
use shared::Shared;
use spool::Spool;
use topics::{Source, Topics};

pub use answers::Answers;
pub use clear::clear;
pub use follow::{Followed, Follower};
pub(super) use options::slug;
pub use options::{MqttOptions, host_name};
pub use probe::{Occupant, Probed, Unusable, probe};
pub use schemas::schemas;

/// How a command reaches the broker while a daemon may be connected: as that does, under a name of its own, and without a will.
fn beside_the_daemon(
    config: &MqttOptions,
    name: &str,
    max_packet_bytes: usize,
) -> Result<client::Options, MqttError> {
    config.check().map_err(MqttError::Config)?;
    let broker = config.broker().map_err(MqttError::Config)?;
    let tls = match broker.tls {
        true => Some(secure::tls(config)?),
        false => None,
    };
    Ok(client::Options {
        client_id: format!("{}-{name}", Topics::new(config).client_id()),
        host: broker.host,
        port: broker.port,
        tls,
        login: secure::login(config)?,
        keep_alive: Duration::from_secs(u64::from(config.keep_alive_s)),
        answers_within: Duration::from_secs(u64::from(config.ack_timeout_s)),
        will: None,
        max_packet_bytes,
    })
}

/// MQTT cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// A value that does not fit.
    #[error("{0}")]
    Config(String),
    /// A file that is named in `[mqtt]`.
    #[error("mqtt.{key}: {path}: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no directory of credentials.
    #[error(
        "mqtt.password_credential is {name:?}, but $CREDENTIALS_DIRECTORY is not set: start gemmad by systemd with LoadCredential={name}:FILE, or use mqtt.password_file"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// TLS cannot be set up.
    #[error("mqtt.url wants TLS: {0}")]
    Tls(TlsError),
    /// The broker does not do what is asked.
    #[error("the broker {broker} {reason}")]
    Broker {
        /// Its address.
        broker: String,
        /// What happened.
        reason: String,
    },
}

/// What Home Assistant knows the device of a microphone by.
pub fn device_of_microphone(config: &MqttOptions, id: &str) -> String {
    Topics::new(config).device_of(Source::Microphone, id)
}

/// What a message on `command`, a topic below those of the node, asks for; `None` where it takes no commands. Open to tests: what comes
/// from the broker comes this way.
#[doc(hidden)]
pub fn read_request(
    config: &MqttOptions,
    command: &str,
    payload: &[u8],
) -> Option<Result<Payload, ErrorBody>> {
    let topics = Topics::new(config);
    let topic = topics.of(command);
    let read = command::read(&topics, config.max_payload_bytes, &topic, payload)?;
    Some(match read {
        Ok(received) => Ok(received.payload),
        Err(refusal) => Err(refusal.error),
    })
}

/// A node on a broker: publishes reports, and hands requests to the daemon.
pub struct Mqtt {
    shared: Arc<Shared>,
    answers: Answers,
    topics: Topics,
    task: JoinHandle<()>,
}

impl Mqtt {
    /// Begins to connect, and keeps the connection up; has to be called within a tokio runtime. Requests that the channel has
    /// no room for are refused.
    ///
    /// # Errors
    /// The configuration cannot be used: a certificate, a password or the spool cannot be read. A broker that is down is no
    /// error.
    pub fn start(
        config: &MqttOptions,
        info: Info,
        requests: mpsc::Sender<Request>,
    ) -> Result<Mqtt, MqttError> {
        let inside = Inside {
            info,
            requests,
            card: Arc::default(),
        };
        Mqtt::start_for(config, inside, Answers::default())
    }

    /// The same, for answers to what an earlier connection was asked, too.
    fn start_for(
        config: &MqttOptions,
        inside: Inside,
        answers: Answers,
    ) -> Result<Mqtt, MqttError> {
        let Inside { info, requests, .. } = inside;
        config.check().map_err(MqttError::Config)?;
        let broker = config.broker().map_err(MqttError::Config)?;
        let tls = if broker.tls {
            Some(secure::tls(config)?)
        } else {
            None
        };
        let password = secure::login(config)?.is_some_and(|(_, password)| !password.is_empty());
        if password && !broker.tls && !broker.is_loopback() {
            log::warn!(
                target: "mqtt",
                "mqtt.url is {}: the password goes over the network in the clear; use mqtts://", config.url
            );
        }
        let mut outbox = Outbox::new(config.outbox_events);
        let spool = match &config.spool_file {
            Some(path) => {
                let (mut spool, events) =
                    Spool::open(path, config.spool_max_bytes, config.max_payload_bytes)?;
                if !events.is_empty() {
                    log::info!(target: "mqtt", "{} events wait in {}", events.len(), path.display());
                }
                for event in events {
                    let token = outbox.restore(event.topic, event.payload);
                    spool.has(token, event.offset);
                }
                Some(spool)
            }
            None => None,
        };
        let shared = Arc::new(Shared::new(
            outbox,
            Composer::new(config),
            info.clone(),
            config.max_payload_bytes,
        ));
        answers.go_to(&shared);
        let owner = Owner {
            config: config.clone(),
            broker,
            tls,
            topics: Topics::new(config),
            shared: Arc::clone(&shared),
            requests,
            answers: answers.clone(),
            spool,
            told: None,
            backoff: Backoff::new(),
            namesake: Namesake::new(&info.started_at),
            switches: Vec::new(),
            oversized: false,
        };
        let mqtt = Mqtt {
            shared,
            answers,
            topics: Topics::new(config),
            task: tokio::spawn(owner.run()),
        };
        mqtt.publish(&Report::Info(Box::new(info)));
        Ok(mqtt)
    }

    /// Puts a report into the outbox. Never waits.
    pub fn publish(&self, report: &Report) {
        self.shared.publish(&self.topics, report);
    }

    /// The way back for a request that nobody made. Open to tests.
    #[doc(hidden)]
    pub fn reply_to(&self) -> ReplyTo {
        self.answers.reply_to(false)
    }

    /// The connection's figures, now.
    pub fn health(&self) -> MqttHealth {
        self.shared.health()
    }

    /// Sends what waits, for no longer than `limit`, says that the node is offline, and says goodbye. Without a connection,
    /// what waits is left to the spool.
    pub async fn stop(mut self, limit: Duration) {
        self.shared.lock().stop_at = Some(Instant::now() + limit);
        self.shared.wake.notify_one();
        if let Err(error) = (&mut self.task).await {
            log::error!(target: "mqtt", "the connection's task failed: {error}");
        }
    }
}

/// Begins to connect as [`Mqtt::start`] does; each time with the same `answers`, so that they find the connection that is there.
pub fn open(config: &MqttOptions, inside: Inside, answers: &Answers) -> Opening {
    let mqtt = Mqtt::start_for(config, inside, answers.clone());
    let mqtt = mqtt.map(|mqtt| Box::new(mqtt) as Box<dyn Door>);
    Box::pin(std::future::ready(mqtt.map_err(|error| error.to_string())))
}

impl Door for Mqtt {
    fn publish(&self, report: &Report) {
        Mqtt::publish(self, report);
    }

    fn status(&self) -> Option<&'static str> {
        let health = self.health();
        Some(match health.namesake {
            Some(_) => "mqtt: another gemmad has this node's name",
            None if health.connected => "mqtt connected",
            None => "mqtt away",
        })
    }

    fn mqtt_health(&self) -> Option<MqttHealth> {
        Some(self.health())
    }

    fn stop(self: Box<Self>, limit: Duration) -> Stopped {
        Box::pin(Mqtt::stop(*self, limit))
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.answers.leave(&self.shared);
        self.task.abort();
    }
}
