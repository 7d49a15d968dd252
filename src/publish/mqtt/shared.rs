//! What those who publish and the connection's task share: the outbox, and what reports become messages with.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::announce;
use super::outbox::{Delivery, Outbox, Outgoing};
use super::payload::Composer;
use super::topics::{Topics, sources};
use crate::report::{Info, JobUpdate, MqttHealth, Report};

/// What those who publish and the task share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wake: Notify,
    max_payload_bytes: usize,
}

pub(super) struct State {
    pub(super) outbox: Outbox,
    pub(super) composer: Composer,
    pub(super) info: Info,
    /// The devices may have changed since they were announced.
    pub(super) info_changed: bool,
    /// Until when the outbox may still empty itself.
    pub(super) stop_at: Option<Instant>,
    pub(super) connections: u64,
    /// Another process has this node's name; who that is.
    pub(super) namesake: Option<String>,
}

impl Shared {
    pub(super) fn new(
        outbox: Outbox,
        composer: Composer,
        info: Info,
        max_payload_bytes: usize,
    ) -> Shared {
        Shared {
            state: Mutex::new(State {
                outbox,
                composer,
                info,
                info_changed: false,
                stop_at: None,
                connections: 0,
                namesake: None,
            }),
            wake: Notify::new(),
            max_payload_bytes,
        }
    }

    /// The state, also after a panic elsewhere: it is changed in whole steps.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a report into the outbox.
    pub(super) fn publish(&self, topics: &Topics, report: &Report) {
        let mut state = self.lock();
        if let Report::Info(info) = report {
            remove_gone(&mut state, topics, info);
        }
        let messages = state.composer.messages(report);
        self.put(&mut state, messages);
    }

    /// Puts what whoever asked is told into the outbox; [`Composer::answer`] has the rest.
    pub(super) fn answer(&self, update: &JobUpdate, sequence: u64, plain: bool) {
        let mut state = self.lock();
        let messages = state.composer.answer(update, sequence, plain);
        self.put(&mut state, messages);
    }

    /// Those that are too large for the broker are left out.
    fn put(&self, state: &mut State, messages: Vec<Outgoing>) {
        for message in messages {
            let picture = matches!(message.delivery, Delivery::Newest { .. });
            if message.payload.len() > self.max_payload_bytes && !picture {
                log::warn!(
                    target: "mqtt", "a message of {} bytes for {} is dropped: mqtt.max_payload_bytes is {}",
                    message.payload.len(), message.topic, self.max_payload_bytes
                );
                state.outbox.drop_one();
                continue;
            }
            state.outbox.push(message);
        }
        self.wake.notify_one();
    }

    pub(super) fn health(&self) -> MqttHealth {
        let state = self.lock();
        MqttHealth {
            connected: state.outbox.is_connected(),
            queued: state.outbox.queued(),
            published: state.outbox.published(),
            dropped: state.outbox.dropped(),
            reconnects: state.connections.saturating_sub(1),
            namesake: state.namesake.clone(),
        }
    }
}

/// After a reload, what was said of what is gone is taken back.
fn remove_gone(state: &mut State, topics: &Topics, info: &Info) {
    let here: Vec<_> = sources(info).collect();
    let before = std::mem::replace(&mut state.info, info.clone());
    let gone = sources(&before).filter(|found| !here.contains(found));
    let mut gone: Vec<String> = gone
        .flat_map(|(source, id)| {
            let retained = source.retained().iter();
            retained.map(move |rest| topics.of_source(source, id, rest))
        })
        .collect();
    let was_idle = topics.idle(&before);
    let idle = topics.idle(info).into_iter();
    gone.extend(idle.filter(|topic| !was_idle.contains(topic)));
    for topic in gone {
        state.outbox.forget(&topic);
        state.outbox.push(announce::nothing(topic));
    }
    state.info_changed = true;
}
