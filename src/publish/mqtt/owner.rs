//! The one task that has the connection: it sends what waits, receives what is asked, and connects again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use ulid::Ulid;

use super::advice::in_the_daemons_words;
use super::announce;
use super::answers::Answers;
use super::backoff::Backoff;
use super::client::{Connection, Event, Loss, Message, Options, WINDOW};
use super::namesake::Namesake;
use super::options::{Broker, MqttOptions};
use super::outbox::{Delivery, Outgoing};
use super::secure;
use super::shared::Shared;
use super::spool::{Appended, Spool};
use super::topics::Topics;
use crate::report::Request;

/// The list of announced devices comes with the answer to the subscription; after this time there is none.
const LIST_COMES_WITHIN: Duration = Duration::from_secs(5);
/// Smallest packet that can be received, whatever is configured: larger ones end the connection, and a retained one would end
/// every connection.
const LEAST_PACKET_BYTES: usize = 1 << 20;
/// Room for a topic and a packet's head.
const PACKET_HEAD_BYTES: usize = 70_000;
/// Events that are handed to the spool at a time.
const SPOOL_AT_ONCE: usize = 32;

/// The task.
pub(super) struct Owner {
    pub(super) config: MqttOptions,
    pub(super) broker: Broker,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) topics: Topics,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) answers: Answers,
    pub(super) spool: Option<Spool>,
    /// What the log was told last about the connection.
    pub(super) told: Option<Loss>,
    pub(super) backoff: Backoff,
    pub(super) namesake: Namesake,
    /// The newest value of each switch that the daemon had no room for yet, by topic.
    pub(super) switches: Vec<(String, Request)>,
    /// The last connection ended with too large a message.
    pub(super) oversized: bool,
}

/// What is to be done later on a connection.
#[derive(Default)]
pub(super) struct Later {
    connected_at: Option<Instant>,
    /// The subscription waits for what has to be said before.
    subscribe: bool,
    /// Commands are heard, which has been told.
    is_online: bool,
    /// Home Assistant started: it wants to hear everything again.
    pub(super) repeat: Option<Instant>,
    /// The list of announced devices is written, unless an older one comes first.
    pub(super) list: Option<Instant>,
}

impl Owner {
    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let requests = self.requests.clone();
        let mut connection = None;
        let mut retry_at = Instant::now();
        let mut later = Later::default();
        loop {
            self.save();
            let stop_at = shared.lock().stop_at;
            if stop_at.is_some() && connection.is_none() {
                return;
            }
            if let Some(open) = &mut connection {
                self.send(open);
                if later.subscribe && !shared.lock().outbox.has_control() {
                    later.subscribe = false;
                    self.subscribe(open);
                }
                let done = later.connected_at.is_some() && shared.lock().outbox.is_empty();
                if let Some(deadline) = stop_at
                    && (done || deadline <= Instant::now())
                {
                    break;
                }
            } else if retry_at <= Instant::now() {
                match self.options() {
                    Ok(options) => connection = Some(Connection::open(&options)),
                    Err(error) => {
                        self.tell(Loss::Unreachable(error.to_string()));
                        retry_at = Instant::now() + self.backoff.lost(None, spread());
                    }
                }
                continue;
            }
            tokio::select! {
                event = next(&mut connection) => match event {
                    Event::Lost(loss) => {
                        connection = None;
                        self.oversized = matches!(loss, Loss::TooLarge(_));
                        shared.lock().outbox.lost();
                        // One that answers nothing was none, however long it stood: all is sent to it again each time.
                        let stood = later.connected_at.filter(|_| !matches!(loss, Loss::Unanswered(_)));
                        let held = stood.map(|since| since.elapsed());
                        later = Later::default();
                        retry_at = Instant::now() + self.backoff.lost(held, spread());
                        self.tell(loss);
                    }
                    event => self.handle(event, &mut later),
                },
                () = sleep_until(retry_at), if connection.is_none() => {}
                () = shared.wake.notified() => {
                    if later.connected_at.is_some() {
                        self.renew(&mut later);
                    }
                }
                permit = requests.reserve(), if !self.switches.is_empty() => {
                    let (_, request) = self.switches.remove(0);
                    if let Ok(permit) = permit {
                        permit.send(request);
                    }
                }
                () = until(later.repeat) => {
                    later.repeat = None;
                    self.repeat();
                }
                () = until(later.list) => {
                    later.list = None;
                    let mut state = shared.lock();
                    let list = announce::list(&self.topics, &state.info, self.config.discovery);
                    state.outbox.push(list);
                }
                () = until(stop_at) => {}
            }
        }
        if let Some(open) = connection {
            self.farewell(open, later.connected_at.is_some()).await;
        }
    }

    /// How to reach the broker, with the password of now: it may have been mended since the last try.
    fn options(&self) -> Result<Options, super::MqttError> {
        let largest = self
            .config
            .max_payload_bytes
            .max(self.config.max_image_bytes);
        Ok(Options {
            client_id: self.topics.client_id(),
            host: self.broker.host.clone(),
            port: self.broker.port,
            tls: self.tls.clone(),
            login: secure::login(&self.config)?,
            keep_alive: Duration::from_secs(u64::from(self.config.keep_alive_s)),
            answers_within: Duration::from_secs(u64::from(self.config.ack_timeout_s)),
            will: Some(self.offline()),
            max_packet_bytes: LEAST_PACKET_BYTES.max(largest + PACKET_HEAD_BYTES),
        })
    }

    /// Said at the end: by the broker, if we cannot.
    fn offline(&self) -> Message {
        Message {
            topic: self.topics.availability(),
            payload: b"offline".to_vec(),
            retain: true,
            acknowledged: true,
        }
    }

    fn online(&self) -> Outgoing {
        Outgoing {
            delivery: Delivery::Control,
            topic: self.topics.availability(),
            payload: b"online".to_vec(),
        }
    }

    /// Tells the log of a change, not of every try.
    fn tell(&mut self, loss: Loss) {
        let same = |told: &Loss| std::mem::discriminant(told) == std::mem::discriminant(&loss);
        if self.told.as_ref().is_some_and(same) {
            log::debug!(target: "mqtt", "the broker {} {loss}", self.config.url);
        } else {
            let told = in_the_daemons_words(&loss, &self.config, &self.topics.client_id());
            log::warn!(target: "mqtt", "the broker {} {told}; it is tried again", self.config.url);
        }
        if matches!(loss, Loss::Closed(_)) && self.backoff.is_flapping() {
            log::warn!(
                target: "mqtt",
                "the broker {} closes each connection soon: it restarts again and again, or another client has our name there, {:?}",
                self.config.url, self.topics.client_id()
            );
        }
        self.told = Some(loss);
    }

    fn push(&self, message: Outgoing) {
        self.shared.lock().outbox.push(message);
    }

    /// Writes new events to the spool, and those that it could not take before; empties it once the broker has them all.
    fn save(&mut self) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        loop {
            let new = {
                let state = self.shared.lock();
                if state.outbox.queued() == 0 {
                    break;
                }
                state.outbox.lasting(spool.newest(), SPOOL_AT_ONCE)
            };
            if new.is_empty() {
                return;
            }
            match spool.append(&new) {
                Appended::All => {}
                Appended::Failed => return,
                Appended::Full => {
                    let all = self.shared.lock().outbox.lasting(0, usize::MAX);
                    if !spool.replace(&all) {
                        return;
                    }
                }
            }
        }
        spool.clear();
    }

    /// The broker has a message.
    fn delivered(&mut self, token: u64) {
        self.shared.lock().outbox.delivered(token);
        if let Some(spool) = &mut self.spool {
            spool.strike(token);
        }
    }

    /// Sends what waits, as far as the window allows.
    fn send(&self, connection: &mut Connection) {
        let mut state = self.shared.lock();
        if !state.outbox.is_connected() {
            return;
        }
        while let Some((token, message)) = state.outbox.next(WINDOW) {
            if !connection.publish(token, message) {
                // The connection is over; its end is told next, and what is on its way goes back.
                return;
            }
        }
    }

    fn handle(&mut self, event: Event, later: &mut Later) {
        match event {
            Event::Connected => {
                log::info!(target: "mqtt", "connected to {} as {}", self.config.url, self.topics.node);
                self.told = None;
                let first = {
                    let mut state = self.shared.lock();
                    state.connections += 1;
                    state.info_changed = false;
                    state.outbox.connected();
                    state.connections == 1
                };
                later.connected_at = Some(Instant::now());
                self.namesake.connected();
                self.announce(later);
                self.forget_earlier(first);
            }
            Event::Subscribed { refused } => {
                // What stood there before is told first.
                self.push(self.namesake.claim(&self.topics));
                // Whoever sees that it is online may command it at once.
                if !std::mem::replace(&mut later.is_online, true) {
                    self.push(self.online());
                }
                if refused > 0 {
                    log::warn!(
                        target: "mqtt",
                        "the broker refuses {refused} subscriptions: allow {}/# and {} in its access list", self.topics.of("").trim_end_matches('/'), self.topics.birth()
                    );
                }
            }
            Event::Message {
                topic,
                payload,
                retained,
            } => self.receive(&topic, &payload, retained, later),
            Event::Delivered(token) => self.delivered(token),
            // Handled by the caller, who has the connection.
            Event::Lost(_) => {}
        }
    }

    fn subscribe(&self, connection: &Connection) {
        let topics = self.topics.subscriptions(&self.shared.lock().info);
        if !connection.subscribe(topics) {
            log::warn!(target: "mqtt", "cannot subscribe: the connection takes no more");
        }
    }

    /// Tells Home Assistant of the devices; the subscription follows.
    fn announce(&self, later: &mut Later) {
        let mut state = self.shared.lock();
        if self.oversized {
            // What may be retained there would end this connection too, and every one after it.
            for topic in self.topics.subscriptions(&state.info) {
                if topic != self.topics.birth() {
                    state.outbox.push(announce::nothing(topic));
                }
            }
        }
        later.subscribe = true;
        for message in announce::announcements(&self.topics, &state.info, self.config.discovery) {
            if message.payload.len() > self.config.max_payload_bytes {
                log::warn!(
                    target: "mqtt", "{} is not announced: {} bytes are more than mqtt.max_payload_bytes",
                    message.topic, message.payload.len()
                );
                continue;
            }
            state.outbox.push(message);
        }
        later.list = Some(Instant::now() + LIST_COMES_WITHIN);
    }

    /// The devices may have changed.
    fn renew(&self, later: &mut Later) {
        if std::mem::take(&mut self.shared.lock().info_changed) {
            self.announce(later);
        }
    }

    /// What an earlier configuration had retained, and this one does not, is not to stay on the broker.
    fn forget_earlier(&self, first: bool) {
        let mut state = self.shared.lock();
        let idle = self.topics.idle(&state.info).into_iter();
        let mut messages: Vec<Outgoing> = idle.map(announce::nothing).collect();
        if first && !self.config.retain_results {
            messages.extend(announce::no_results(&self.topics, &state.info));
        }
        for message in messages {
            state.outbox.push(message);
        }
    }

    /// Says availability and states again.
    fn repeat(&self) {
        let mut state = self.shared.lock();
        state.outbox.repeat_states();
        state.outbox.push(self.online());
    }

    /// `offline`, and the protocol's goodbye: the broker says the will only where it is missing.
    async fn farewell(mut self, mut connection: Connection, connected: bool) {
        if !connected {
            return;
        }
        let goodbye = async {
            const LAST: u64 = u64::MAX;
            if connection.publish(LAST, self.offline()) {
                loop {
                    match connection.next().await {
                        Event::Delivered(LAST) => break,
                        Event::Lost(_) => return,
                        Event::Delivered(token) => self.delivered(token),
                        _ => {}
                    }
                }
            }
            connection.close().await;
        };
        if tokio::time::timeout(FAREWELL, goodbye).await.is_err() {
            log::warn!(target: "mqtt", "the broker does not answer; it will say itself that gemmad is offline");
        }
    }
}

/// How long the broker may take to hear that we go.
const FAREWELL: Duration = Duration::from_secs(1);

/// What happens next on a connection; never, without one.
async fn next(connection: &mut Option<Connection>) -> Event {
    match connection {
        Some(open) => open.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// From 0 to 1, so that boards do not come back in step.
fn spread() -> f64 {
    random_below(1000) as f64 / 1000.0
}

/// A number below `bound`, spread well enough for pauses.
pub(super) fn random_below(bound: u64) -> u64 {
    (Ulid::generate().random() % u128::from(bound)) as u64
}
