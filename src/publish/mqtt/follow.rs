//! Reads what a node, or another program at the broker, publishes; presses the button of the node's microphones for people at a terminal.

use std::time::Duration;

use serde_json::json;

use super::advice::in_words;
use super::client::{Connection, Event, Message, Options};
use super::options::MqttOptions;
use super::topics::{Source, Topics};
use super::{MqttError, beside_the_daemon};

/// First and longest pause before the broker is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Largest message that is taken, bytes: more than a picture.
const MAX_PACKET_BYTES: usize = 32 << 20;

/// What happens at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The node's messages come from now on, what was retained first.
    Connected,
    /// The connection is lost, or could not be made; why. It is tried again.
    Lost(String),
    /// Something was published.
    Message {
        /// What stands behind `BASE/NODE/`, or behind the other program's topic.
        topic: String,
        /// As it came.
        payload: Vec<u8>,
        /// It is older than the connection.
        retained: bool,
    },
}

/// A client that reads messages, and connects again where the broker goes.
pub struct Follower {
    config: MqttOptions,
    options: Options,
    topics: Topics,
    /// Whose messages are read, and which of them.
    root: String,
    wanted: String,
    connection: Option<Connection>,
    pause: Duration,
}

impl Follower {
    /// For the node that the configuration names. It has a name of its own at the broker, which begins with `purpose`, so that
    /// several can follow.
    ///
    /// # Errors
    /// The configuration cannot be used. A broker that is down is no error.
    pub fn new(config: &MqttOptions, purpose: &str) -> Result<Follower, MqttError> {
        let topics = Topics::new(config);
        let root = topics.of("#");
        Follower::of(config, purpose, root.trim_end_matches("/#"), "#")
    }

    /// For what another program publishes at the same broker: `wanted`, below the topic `root`.
    ///
    /// # Errors
    /// As [`Follower::new`].
    pub fn of(
        config: &MqttOptions,
        purpose: &str,
        root: &str,
        wanted: &str,
    ) -> Result<Follower, MqttError> {
        let name = format!("{purpose}-{}", ulid::Ulid::generate());
        Ok(Follower {
            config: config.clone(),
            options: beside_the_daemon(config, &name, MAX_PACKET_BYTES)?,
            topics: Topics::new(config),
            root: root.to_owned(),
            wanted: wanted.to_owned(),
            connection: None,
            pause: PAUSES.0,
        })
    }

    /// What happens next. Has to be called within a tokio runtime.
    pub async fn next(&mut self) -> Followed {
        loop {
            let connection = self
                .connection
                .get_or_insert_with(|| Connection::open(&self.options));
            match connection.next().await {
                Event::Connected => {
                    connection.subscribe(vec![format!("{}/{}", self.root, self.wanted)]);
                }
                Event::Subscribed { refused: 0 } => {
                    self.pause = PAUSES.0;
                    return Followed::Connected;
                }
                Event::Subscribed { .. } => {
                    let (root, wanted) = (&self.root, &self.wanted);
                    let told = format!("does not let this user read {root}/{wanted}");
                    return self.lost(told).await;
                }
                Event::Message {
                    topic,
                    payload,
                    retained,
                } => {
                    let below = topic.strip_prefix(&self.root);
                    if let Some(below) = below.and_then(|below| below.strip_prefix('/')) {
                        return Followed::Message {
                            topic: below.to_owned(),
                            payload,
                            retained,
                        };
                    }
                }
                Event::Lost(loss) => {
                    let told = in_words(&loss, &self.config, &self.options.client_id);
                    return self.lost(told).await;
                }
                Event::Delivered(_) => {}
            }
        }
    }

    /// Push-to-talk on a microphone of the node; the response has the same `transaction`. False: there is no connection.
    pub fn push_to_talk(&mut self, microphone: &str, transaction: &str) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let payload = json!({ "transaction": transaction });
        let message = Message {
            topic: (self.topics).of_source(Source::Microphone, microphone, "listen"),
            payload: payload.to_string().into_bytes(),
            retain: false,
            acknowledged: true,
        };
        connection.publish(0, message)
    }

    /// Tells the first loss at once, later ones after a pause.
    async fn lost(&mut self, reason: String) -> Followed {
        self.connection = None;
        if self.pause > PAUSES.0 {
            tokio::time::sleep(self.pause).await;
        }
        self.pause = (self.pause * 2).min(PAUSES.1);
        Followed::Lost(reason)
    }
}
