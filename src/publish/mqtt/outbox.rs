//! What waits for the broker. Events stay until they are acknowledged, in order; of a state only the last value counts, and it
//! is kept to be said again; pictures, levels and pieces of answers are for those who listen now.

use std::collections::{HashMap, HashSet, VecDeque};

use super::client::Message;

/// Answers that wait at most, beside the events. Brokers hand over thousands of requests before they take the first answer.
const MAX_REPLIES: usize = 4096;

/// What becomes of a message while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// QoS 1, not retained: waits, and is sent again until it is acknowledged.
    Event,
    /// The same, for answers and the news that jobs ended: however many somebody asks for, they push no event out.
    Reply,
    /// QoS 1, retained: the last value waits, and is said again after every connection.
    State,
    /// The same, for what an event told of: the event, and whatever else waits before it, is sent first.
    Result,
    /// QoS 1, retained, said once: discovery, and what is taken back.
    Control,
    /// QoS 1, not retained, in line with events: dropped.
    Fleeting,
    /// QoS 0, not retained, before all that waits: dropped. It counts for a moment only.
    AtOnce,
    /// QoS 0, the newest of a topic only: dropped.
    Newest {
        /// Whether the broker keeps it.
        retain: bool,
    },
}

/// A message before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) delivery: Delivery,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

struct Event {
    /// Rises with every event; given back when the broker has it.
    token: u64,
    topic: String,
    payload: Vec<u8>,
    sent: bool,
    delivery: Delivery,
}

impl Event {
    /// No answer, and nothing that is for those who listen now.
    fn is_event(&self) -> bool {
        self.delivery == Delivery::Event
    }

    fn send(&mut self) -> (u64, Message) {
        self.sent = true;
        let message = Message {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            retain: false,
            acknowledged: true,
        };
        (self.token, message)
    }
}

/// An event that has to survive.
pub(super) struct Lasting {
    pub(super) token: u64,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// The last value of a topic.
struct State {
    payload: Vec<u8>,
    /// Events go first.
    after_events: bool,
}

/// The messages that wait.
pub(super) struct Outbox {
    /// Most events.
    capacity: usize,
    connected: bool,
    events: VecDeque<Event>,
    states: HashMap<String, State>,
    /// States that the broker has to be told, in order.
    unsaid: VecDeque<String>,
    control: VecDeque<Message>,
    at_once: VecDeque<Message>,
    /// By topic: a newer picture takes the place of an older one, and so does a newer level.
    newest: VecDeque<Message>,
    next_token: u64,
    in_flight: HashSet<u64>,
    dropped: u64,
    published: u64,
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Outbox {
        Outbox {
            capacity,
            connected: false,
            events: VecDeque::new(),
            states: HashMap::new(),
            unsaid: VecDeque::new(),
            control: VecDeque::new(),
            at_once: VecDeque::new(),
            newest: VecDeque::new(),
            next_token: 1,
            in_flight: HashSet::new(),
            dropped: 0,
            published: 0,
        }
    }

    /// Takes an event of an earlier life from the spool; they come before all others. Gives its token.
    pub(super) fn restore(&mut self, topic: String, payload: String) -> u64 {
        self.push_event(topic, payload.into_bytes(), Delivery::Event)
    }

    /// Takes a message.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        let Outgoing {
            delivery,
            topic,
            payload,
        } = outgoing;
        let message = |topic, payload, retain, acknowledged| Message {
            topic,
            payload,
            retain,
            acknowledged,
        };
        match delivery {
            Delivery::Event | Delivery::Reply => {
                self.push_event(topic, payload, delivery);
            }
            Delivery::Fleeting if self.connected => {
                self.push_event(topic, payload, delivery);
            }
            Delivery::Newest { retain } if self.connected => {
                self.newest.retain(|waiting| waiting.topic != topic);
                self.newest
                    .push_back(message(topic, payload, retain, false));
            }
            Delivery::AtOnce if self.connected => {
                let message = message(topic, payload, false, false);
                self.at_once.push_back(message);
            }
            Delivery::Fleeting | Delivery::AtOnce | Delivery::Newest { .. } => {}
            Delivery::Control => self.control.push_back(message(topic, payload, true, true)),
            Delivery::State | Delivery::Result => {
                if !self.unsaid.contains(&topic) {
                    self.unsaid.push_back(topic.clone());
                }
                let after_events = delivery == Delivery::Result;
                let state = State {
                    payload,
                    after_events,
                };
                self.states.insert(topic, state);
            }
        }
    }

    fn push_event(&mut self, topic: String, payload: Vec<u8>, delivery: Delivery) -> u64 {
        let is_event = delivery == Delivery::Event;
        let capacity = match is_event {
            true => self.capacity,
            false => MAX_REPLIES,
        };
        let alike = |event: &&Event| event.is_event() == is_event;
        if self.events.iter().filter(alike).count() >= capacity
            && let Some(oldest) = self.events.iter().position(|event| alike(&event))
        {
            self.events.remove(oldest);
            self.dropped += 1;
        }
        let token = self.token();
        self.events.push_back(Event {
            token,
            topic,
            payload,
            sent: false,
            delivery,
        });
        token
    }

    fn token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    /// Forgets a state: it is said no more.
    pub(super) fn forget(&mut self, topic: &str) {
        self.states.remove(topic);
        self.unsaid.retain(|waiting| waiting != topic);
    }

    /// Every state is to be said again.
    pub(super) fn repeat_states(&mut self) {
        let mut topics: Vec<_> = self.states.keys().cloned().collect();
        topics.sort_unstable();
        self.unsaid = topics.into();
    }

    /// A connection stands, and the broker remembers nothing.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.repeat_states();
    }

    /// The connection is lost: what was not acknowledged goes to the next one, in order.
    pub(super) fn lost(&mut self) {
        self.connected = false;
        self.in_flight.clear();
        self.newest.clear();
        self.control.clear();
        self.at_once.clear();
        self.events
            .retain(|event| event.delivery != Delivery::Fleeting);
        for event in &mut self.events {
            event.sent = false;
        }
    }

    /// Whether a connection stands.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The next message, with the token that [`Outbox::delivered`] wants back; none if `window` messages are on their way.
    ///
    /// What counts for a moment only goes first, past those, too. Pictures go before the events that tell of them, and results after. Answers come last: however many somebody asks for, no event
    /// waits for them.
    pub(super) fn next(&mut self, window: usize) -> Option<(u64, Message)> {
        if let Some(message) = self.at_once.pop_front() {
            let token = self.token();
            self.in_flight.insert(token);
            return Some((token, message));
        }
        if self.in_flight.len() >= window {
            return None;
        }
        let (token, message) = if let Some(message) = self.control.pop_front() {
            (self.token(), message)
        } else if let Some(message) = self.next_state(false) {
            (self.token(), message)
        } else if let Some(message) = self.newest.pop_front() {
            (self.token(), message)
        } else if (self.events.iter()).any(|event| !event.sent && event.is_event()) {
            self.next_event()?
        } else if let Some(message) = self.next_state(true) {
            (self.token(), message)
        } else {
            self.events.iter_mut().find(|event| !event.sent)?.send()
        };
        self.in_flight.insert(token);
        Some((token, message))
    }

    /// The oldest event that was not sent on this connection, of a topic whose event before it the broker has. What comes twice
    /// after a loss is then at most one event of a topic, the last one, and whoever reads it needs to remember one id only.
    fn next_event(&mut self) -> Option<(u64, Message)> {
        let events = self.events.iter().filter(|event| event.is_event());
        let mut unanswered: Vec<&str> = Vec::new();
        let mut found = None;
        for event in events {
            if event.sent {
                unanswered.push(&event.topic);
            } else if !unanswered.contains(&event.topic.as_str()) {
                found = Some(event.token);
                break;
            }
        }
        let token = found?;
        let event = self.events.iter_mut().find(|event| event.token == token)?;
        Some(event.send())
    }

    /// The next state that the broker has to be told, of those that events go before, or of the others.
    fn next_state(&mut self, after_events: bool) -> Option<Message> {
        let states = &self.states;
        let fits = |topic: &String| {
            states
                .get(topic)
                .is_some_and(|state| state.after_events == after_events)
        };
        let at = self.unsaid.iter().position(fits)?;
        let topic = self.unsaid.remove(at)?;
        let payload = states.get(&topic)?.payload.clone();
        Some(Message {
            topic,
            payload,
            retain: true,
            acknowledged: true,
        })
    }

    /// The broker has a message.
    pub(super) fn delivered(&mut self, token: u64) {
        if !self.in_flight.remove(&token) {
            return;
        }
        self.published += 1;
        if let Ok(at) = self
            .events
            .binary_search_by_key(&token, |event| event.token)
        {
            self.events.remove(at);
        }
    }

    /// Whether something is still to be handed over that comes before everything else.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Nothing waits, and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.in_flight.is_empty()
            && self.unsaid.is_empty()
            && self.control.is_empty()
            && self.at_once.is_empty()
            && self.newest.is_empty()
    }

    /// The first `most` of the events with tokens above `token` that have to survive, oldest first.
    pub(super) fn lasting(&self, token: u64, most: usize) -> Vec<Lasting> {
        self.events
            .iter()
            .filter(|event| event.token > token && event.delivery != Delivery::Fleeting)
            .take(most)
            .map(|event| Lasting {
                token: event.token,
                topic: event.topic.clone(),
                payload: event.payload.clone(),
            })
            .collect()
    }

    /// Events that wait.
    pub(super) fn queued(&self) -> usize {
        self.events.len()
    }

    /// Events that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts an event that cannot be sent.
    pub(super) fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// Messages that the broker has.
    pub(super) fn published(&self) -> u64 {
        self.published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_for_a_moment_goes_before_all_that_waits() {
        let mut outbox = Outbox::new(10);
        outbox.connected();
        let outgoing = |delivery, topic: &str| Outgoing {
            delivery,
            topic: topic.to_owned(),
            payload: Vec::new(),
        };
        outbox.push(outgoing(Delivery::Control, "discovery"));
        assert!(outbox.next(1).is_some() && outbox.next(1).is_none());
        for (delivery, topic) in [
            (Delivery::Control, "discovery"),
            (Delivery::State, "state"),
            (Delivery::Newest { retain: false }, "picture"),
            (Delivery::Event, "event"),
            (Delivery::AtOnce, "woken"),
            (Delivery::AtOnce, "woken"),
        ] {
            outbox.push(outgoing(delivery, topic));
        }
        // Both, though the broker has not acknowledged what was sent before.
        for _ in 0..2 {
            let (token, message) = outbox.next(1).unwrap();
            assert_eq!(message.topic, "woken");
            assert!(!message.acknowledged && !message.retain);
            outbox.delivered(token);
        }
        assert!(outbox.next(1).is_none());
        outbox.push(outgoing(Delivery::AtOnce, "woken"));
        outbox.lost();
        outbox.push(outgoing(Delivery::AtOnce, "woken"));
        outbox.connected();
        let topics = std::iter::from_fn(|| outbox.next(10).map(|(_, message)| message.topic));
        assert_eq!(topics.collect::<Vec<_>>(), ["state", "event"]);
    }
}
