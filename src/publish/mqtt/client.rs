//! The door to the MQTT client: nothing outside this file names `rumqttc`, so that another crate can take its place.
//!
//! A [`Connection`] is one TCP connection with a session of its own. The client's reconnecting is not used, because it forgets
//! what it had accepted when the broker has no session any more; the outbox above knows what was not acknowledged, and gives it
//! to the next connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::secure::PEER;
use crate::tls;

/// Messages that may be on their way to the broker at a time.
pub(super) const WINDOW: usize = 32;
/// Twice the window: packet identifiers come round only after the messages that had them are acknowledged.
const INFLIGHT: u16 = 64;
/// The window, and what subscribes and disconnects.
const REQUESTS: usize = WINDOW + 8;
/// Events that wait to be read; each may hold a message of the largest size.
const EVENTS: usize = 8;

/// How to reach a broker.
pub(super) struct Options {
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    /// User and password.
    pub(super) login: Option<(String, String)>,
    pub(super) keep_alive: Duration,
    /// A broker that leaves a message unanswered for longer is given up, though it answers pings.
    pub(super) answers_within: Duration,
    /// What the broker says for us when the connection breaks.
    pub(super) will: Option<Message>,
    /// A larger packet ends the connection.
    pub(super) max_packet_bytes: usize,
}

/// A message to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    /// QoS 1, else 0.
    pub(super) acknowledged: bool,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker let us in.
    Connected,
    /// It answered a subscription; the number of topics that it refused.
    Subscribed { refused: usize },
    /// Somebody published.
    Message {
        topic: String,
        payload: Vec<u8>,
        /// It is older than the subscription.
        retained: bool,
    },
    /// The broker has the message with this token; with QoS 0, the message is on its way.
    Delivered(u64),
    /// The connection is over.
    Lost(Loss),
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Loss {
    /// There was none.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// There was one, but nothing that could be encrypted and trusted.
    #[error("cannot be reached by TLS: {0}")]
    Insecure(tls::Fault),
    /// It took the connection, and closed it before it let us in.
    #[error("closed the connection without an answer: {0}")]
    HungUp(String),
    /// Something answers, but not as MQTT has it.
    #[error("answers with something that is not MQTT 3.1.1: {0}")]
    Foreign(String),
    /// The broker does not want us.
    #[error("refused the connection: {0}")]
    Refused(Refusal),
    /// Somebody published more than we take; if it is retained, it waits for the next subscription.
    #[error("sent too large a message: {0}")]
    TooLarge(String),
    /// It stood, and broke.
    #[error("closed the connection: {0}")]
    Closed(String),
    /// It stands and answers pings, but what is sent is not acknowledged.
    #[error("has not acknowledged for {0} s what was sent to it (mqtt.ack_timeout_s)")]
    Unanswered(u64),
}

/// Why a broker does not let somebody in: the return codes of MQTT 3.1.1, and what brokers of MQTT 5 answer to a client of 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it does not speak MQTT 3.1.1")]
    Protocol,
    #[error("it does not take the client's name")]
    ClientName,
    #[error("it is not available")]
    Unavailable,
    #[error("wrong user or password")]
    Login,
    #[error("not authorised")]
    NotAuthorised,
    #[error("it does not take the last will")]
    Will,
    #[error("its answer has the code {0}, which MQTT 3.1.1 does not know")]
    Other(u8),
}

impl Refusal {
    fn of(code: u8) -> Refusal {
        match code {
            1 | 0x84 => Refusal::Protocol,
            2 | 0x85 => Refusal::ClientName,
            // Not available, busy, told to go elsewhere, too many connections.
            3 | 0x88 | 0x89 | 0x9c | 0x9d | 0x9f => Refusal::Unavailable,
            4 | 0x86 | 0x8c => Refusal::Login,
            5 | 0x87 | 0x8a => Refusal::NotAuthorised,
            // Its topic, its retaining, its QoS.
            0x90 | 0x9a | 0x9b => Refusal::Will,
            code => Refusal::Other(code),
        }
    }
}

/// One connection to the broker; dropping it closes it without a farewell.
pub(super) struct Connection {
    client: AsyncClient,
    events: mpsc::Receiver<Result<rumqttc::Event, ConnectionError>>,
    driver: JoinHandle<()>,
    connected: bool,
    /// Tokens of messages that have no packet identifier yet, in order.
    submitted: VecDeque<u64>,
    /// Packet identifiers of what the broker has to answer, oldest first, with the token of a message; none of a subscription.
    unanswered: VecDeque<(u16, Option<u64>)>,
    /// Since when the oldest of them waits, those before it being answered: a slow line is no fault.
    oldest_since: Instant,
    answers_within: Duration,
    /// When something happened last.
    heard: Instant,
    /// Pings come more often than this.
    silence: Duration,
}

impl Connection {
    /// Begins to connect; has to be called within a tokio runtime.
    pub(super) fn open(options: &Options) -> Connection {
        let mut settings = MqttOptions::new(&options.client_id, &options.host, options.port);
        settings
            .set_clean_session(true)
            .set_keep_alive(options.keep_alive)
            .set_max_packet_size(options.max_packet_bytes, options.max_packet_bytes)
            .set_inflight(INFLIGHT);
        if let Some((user, password)) = &options.login {
            settings.set_credentials(user, password);
        }
        if let Some(will) = &options.will {
            let payload = will.payload.clone();
            settings.set_last_will(LastWill::new(
                &will.topic,
                payload,
                quality(will),
                will.retain,
            ));
        }
        if let Some(tls) = &options.tls {
            let tls = TlsConfiguration::Rustls(Arc::clone(tls));
            settings.set_transport(Transport::tls_with_config(tls));
        }
        let (client, event_loop) = AsyncClient::new(settings, REQUESTS);
        let (sender, events) = mpsc::channel(EVENTS);
        Connection {
            client,
            events,
            // A task of its own: giving up a poll half-way would begin the connection anew.
            driver: tokio::spawn(drive(event_loop, sender)),
            connected: false,
            submitted: VecDeque::new(),
            unanswered: VecDeque::new(),
            oldest_since: Instant::now(),
            answers_within: options.answers_within,
            heard: Instant::now(),
            silence: options.keep_alive * 2 + Duration::from_secs(10),
        }
    }

    /// Subscribes to topics with QoS 1.
    pub(super) fn subscribe(&self, topics: Vec<String>) -> bool {
        let filter = |topic| SubscribeFilter::new(topic, QoS::AtLeastOnce);
        self.client
            .try_subscribe_many(topics.into_iter().map(filter))
            .is_ok()
    }

    /// Hands a message over; [`Event::Delivered`] will give the token back. False: too many are on their way.
    pub(super) fn publish(&mut self, token: u64, message: Message) -> bool {
        let quality = quality(&message);
        let taken = self
            .client
            .try_publish(message.topic, quality, message.retain, message.payload)
            .is_ok();
        if taken {
            self.submitted.push_back(token);
        }
        taken
    }

    /// What happens next. The future may be dropped and asked for again: nothing is lost.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let silent = self.heard + self.silence;
            let unanswered = (!self.unanswered.is_empty())
                .then(|| self.oldest_since + self.answers_within)
                .filter(|deadline| *deadline < silent);
            let deadline = unanswered.unwrap_or(silent);
            let raw = match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(Ok(raw))) => raw,
                Ok(Some(Err(error))) => return Event::Lost(loss(error, self.connected)),
                Ok(None) => return Event::Lost(Loss::Closed("the client ended".to_owned())),
                Err(_) if unanswered.is_some() => {
                    return Event::Lost(Loss::Unanswered(self.answers_within.as_secs()));
                }
                Err(_) => return Event::Lost(Loss::Closed("it does not answer".to_owned())),
            };
            self.heard = Instant::now();
            match raw {
                rumqttc::Event::Incoming(Packet::ConnAck(_)) => {
                    self.connected = true;
                    return Event::Connected;
                }
                rumqttc::Event::Incoming(Packet::SubAck(answer)) => {
                    self.answered(answer.pkid);
                    let refused =
                        |code: &&SubscribeReasonCode| matches!(code, SubscribeReasonCode::Failure);
                    let refused = answer.return_codes.iter().filter(refused).count();
                    return Event::Subscribed { refused };
                }
                rumqttc::Event::Incoming(Packet::Publish(message)) => {
                    return Event::Message {
                        topic: message.topic,
                        payload: message.payload.to_vec(),
                        retained: message.retain,
                    };
                }
                rumqttc::Event::Outgoing(Outgoing::Publish(packet)) => {
                    // Messages leave in the order in which they were handed over.
                    match self.submitted.pop_front() {
                        Some(token) if packet == 0 => return Event::Delivered(token),
                        Some(token) => self.sent(packet, Some(token)),
                        None => {}
                    }
                }
                rumqttc::Event::Outgoing(Outgoing::Subscribe(packet)) => self.sent(packet, None),
                rumqttc::Event::Incoming(Packet::PubAck(answer)) => {
                    if let Some(token) = self.answered(answer.pkid) {
                        return Event::Delivered(token);
                    }
                }
                _ => {}
            }
        }
    }

    /// Something is on its way that the broker has to answer.
    fn sent(&mut self, packet: u16, token: Option<u64>) {
        if self.unanswered.is_empty() {
            self.oldest_since = Instant::now();
        }
        self.unanswered.push_back((packet, token));
    }

    /// It has; gives the token of a message.
    fn answered(&mut self, packet: u16) -> Option<u64> {
        let at = self.unanswered.iter().position(|(id, _)| *id == packet)?;
        if at == 0 {
            self.oldest_since = Instant::now();
        }
        self.unanswered.remove(at)?.1
    }

    /// Says goodbye, so that the broker does not publish the will; waits until the broker has closed.
    pub(super) async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            while let Some(Ok(_)) = self.events.recv().await {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    mut event_loop: EventLoop,
    events: mpsc::Sender<Result<rumqttc::Event, ConnectionError>>,
) {
    loop {
        let event = event_loop.poll().await;
        let over = event.is_err();
        if events.send(event).await.is_err() || over {
            return;
        }
    }
}

fn quality(message: &Message) -> QoS {
    if message.acknowledged {
        QoS::AtLeastOnce
    } else {
        QoS::AtMostOnce
    }
}

fn loss(error: ConnectionError, connected: bool) -> Loss {
    if let Some(fault) = tls::fault(PEER, &error) {
        return Loss::Insecure(fault);
    }
    match error {
        ConnectionError::ConnectionRefused(code) => Loss::Refused(Refusal::of(code as u8)),
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::Error::InvalidConnectReturnCode(code),
        )) if !connected => Loss::Refused(Refusal::of(code)),
        ConnectionError::MqttState(StateError::Deserialization(
            error @ rumqttc::Error::PayloadSizeLimitExceeded { .. },
        )) if connected => Loss::TooLarge(error.to_string()),
        error if connected => Loss::Closed(words(&error)),
        ConnectionError::NetworkTimeout => Loss::Unreachable("no answer in time".to_owned()),
        // The address is not there, or there is no way to it.
        error @ (ConnectionError::Io(_) | ConnectionError::Tls(_)) => {
            Loss::Unreachable(words(&error))
        }
        // It said something before it hung up, but no whole packet.
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::Error::Io(error)))
            if error.kind() == std::io::ErrorKind::Other =>
        {
            Loss::Foreign("half a packet".to_owned())
        }
        ConnectionError::MqttState(
            error @ (StateError::ConnectionAborted
            | StateError::Io(_)
            | StateError::Deserialization(rumqttc::Error::Io(_))),
        ) => Loss::HungUp(words(&error)),
        // Whatever it was, it is not repeated: it may be of any size.
        ConnectionError::NotConnAck(_) => Loss::Foreign("its first packet is another".to_owned()),
        error => Loss::Foreign(words(&error)),
    }
}

/// What lies at the bottom of an error: the libraries put their own names before it.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
