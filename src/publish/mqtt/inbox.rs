//! What the broker hands over: requests, the list of announced devices, whoever has the node's name, and that Home Assistant started.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use ulid::Ulid;

use super::announce;
use super::command::{self, Received};
use super::namesake::Name;
use super::owner::{Later, Owner, random_below};
use crate::report::{Claim, ErrorBody, ErrorCode, Origin, Payload, ReplyTo, Request};

impl Owner {
    pub(super) fn receive(
        &mut self,
        topic: &str,
        payload: &[u8],
        retained: bool,
        later: &mut Later,
    ) {
        if topic == self.topics.birth() {
            if payload == b"online" {
                // Home Assistant is busy while it starts, and every device would answer at once.
                let pause = Duration::from_millis(1000 + random_below(9000));
                later.repeat = Some(Instant::now() + pause);
            }
            return;
        }
        if topic == self.topics.announced() {
            if retained {
                self.take_back(payload, later);
            }
            return;
        }
        if topic == self.topics.instance() {
            if let Some(name) = self.namesake.read(payload) {
                self.named(name);
            }
            return;
        }
        if topic == self.topics.woken() {
            self.rival(payload, retained);
            return;
        }
        let max_bytes = self.config.max_payload_bytes;
        let Some(result) = command::read(&self.topics, max_bytes, topic, payload) else {
            return;
        };
        let is_names = topic == self.topics.names();
        if is_names && let Err(refusal) = &result {
            // Whoever sent it may be gone for long, and it is found again at every connection.
            log::warn!(target: "mqtt", "what is on {topic} is ignored: {}", refusal.error.message);
        }
        if retained && !is_names {
            // It would be obeyed again after every connection.
            log::warn!(target: "mqtt", "a retained message on {topic} is not obeyed: publish commands without retain");
            return;
        }
        match result {
            Ok(received) => self.hand_over(topic, received),
            Err(command::Refusal {
                kind,
                error,
                transaction,
            }) => {
                log::debug!(target: "mqtt", "a message on {topic} is no request: {}", error.message);
                let mut state = self.shared.lock();
                let refusal = state.composer.refusal(kind, None, error, transaction);
                state.outbox.push(refusal);
            }
        }
    }

    /// Another board was woken. What is retained tells nothing of now, and one that is lost lets two boards answer.
    fn rival(&self, payload: &[u8], retained: bool) {
        let claim = serde_json::from_slice::<Claim>(payload);
        let Some(claim) = claim
            .ok()
            .filter(|it| it.node != self.topics.node && !retained)
        else {
            return;
        };
        let (id, payload) = (Ulid::generate().to_string(), Payload::Rival(claim));
        let request = Request::new(id, Origin::Mqtt, None, payload, ReplyTo::nobody());
        self.requests.try_send(request).ok();
    }

    /// Gives a request to the daemon. Of a switch that is set faster than the daemon takes it, the newest value counts; everything
    /// else that finds no room is refused.
    fn hand_over(&mut self, topic: &str, received: Received) {
        let Received {
            payload,
            transaction,
            plain,
        } = received;
        let id = Ulid::generate().to_string();
        let reply = self.answers.reply_to(plain);
        let request = Request::new(id, Origin::Mqtt, transaction, payload, reply);
        let is_switch = topic.ends_with("/set") || topic == self.topics.names();
        if is_switch && !self.switches.is_empty() {
            self.keep_switch(topic, request);
            return;
        }
        let (request, code, message) = match self.requests.try_send(request) {
            Ok(()) => return,
            Err(TrySendError::Full(request)) if is_switch => {
                self.keep_switch(topic, request);
                return;
            }
            Err(TrySendError::Full(request)) => (
                request,
                ErrorCode::QueueFull,
                "too many requests are waiting: try later",
            ),
            Err(TrySendError::Closed(request)) => (request, ErrorCode::Busy, "gemmad is stopping"),
        };
        let header = request.header;
        let error = ErrorBody::new(code, message);
        let mut state = self.shared.lock();
        let (id, transaction) = (Some(header.id), header.transaction);
        let refusal = (state.composer).refusal(header.kind, id, error, transaction);
        state.outbox.push(refusal);
    }

    /// Keeps the newest value of a switch until the daemon has room; one for each of the topics that are listened to.
    fn keep_switch(&mut self, topic: &str, request: Request) {
        match self.switches.iter_mut().find(|(kept, _)| kept == topic) {
            Some((_, kept)) => *kept = request,
            None => self.switches.push((topic.to_owned(), request)),
        }
    }

    /// The broker remembers which devices were announced: those that are gone are taken back, and the list is written anew.
    fn take_back(&self, payload: &[u8], later: &mut Later) {
        let listed = announce::read_list(&self.topics, payload);
        let mut state = self.shared.lock();
        let wanted = self.config.discovery;
        let mut messages = announce::removals(&self.topics, &listed, &state.info, wanted);
        for message in &messages {
            state.outbox.forget(&message.topic);
        }
        // Last: if the connection breaks before, the old list is found again.
        let list = announce::list(&self.topics, &state.info, wanted);
        if list.payload != payload {
            messages.push(list);
        }
        for message in messages {
            state.outbox.push(message);
        }
        later.list = None;
    }

    /// Another process has this node's name, or has it no more.
    fn named(&mut self, name: Name) {
        let node = &self.topics.node;
        let who = match name {
            Name::Contested(who) => {
                log::error!(
                    target: "mqtt",
                    "another gemmad, {who}, has the node name {node:?} at the broker {}, too, and each takes the connection from the other: \
                     give every board a name of its own in mqtt.node; until then connections are made rarely",
                    self.config.url
                );
                Some(who)
            }
            Name::Ours => {
                log::info!(target: "mqtt", "the node name {node:?} is ours alone again");
                None
            }
        };
        self.backoff.contest(who.is_some());
        self.shared.lock().namesake = who;
    }
}
