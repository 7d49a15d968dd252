//! A connection that is asked one thing after the other, for commands that try something and want to know what came of it.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::client::{Connection, Event, Loss, Message, Options};

/// How long the broker may take for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// What a broker passes on, it passes on about when it acknowledges; after this it did not.
const QUIET: Duration = Duration::from_secs(2);

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// The broker said that it has it.
    pub(super) acknowledged: bool,
    /// It came back, on a topic that was subscribed to.
    pub(super) came: bool,
}

impl Passed {
    /// The whole way.
    pub(super) fn whole(self) -> bool {
        self.acknowledged && self.came
    }
}

/// A message that came.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retained: bool,
}

/// The connection, and what came on it.
pub(super) struct Session {
    connection: Connection,
    token: u64,
    heard: Vec<Heard>,
}

impl Session {
    /// Connects.
    pub(super) async fn open(options: &Options) -> Result<Session, Loss> {
        let mut session = Session {
            connection: Connection::open(options),
            token: 0,
            heard: Vec::new(),
        };
        let connected = |event: &Event| matches!(event, Event::Connected);
        match session.until(ANSWERS_WITHIN, connected).await? {
            Some(_) => Ok(session),
            None => Err(Loss::Unreachable("no answer in time".to_owned())),
        }
    }

    /// Subscribes; gives the number of topics that the broker refuses.
    pub(super) async fn subscribe(&mut self, topics: Vec<String>) -> Result<usize, Loss> {
        self.connection.subscribe(topics);
        let answered = |event: &Event| matches!(event, Event::Subscribed { .. });
        match self.until(ANSWERS_WITHIN, answered).await? {
            Some(Event::Subscribed { refused }) => Ok(refused),
            _ => Err(Loss::Closed("it does not answer a subscription".to_owned())),
        }
    }

    /// Publishes, and waits for what comes of it. What came before on this topic is forgotten.
    pub(super) async fn pass(&mut self, message: Message) -> Result<Passed, Loss> {
        self.token += 1;
        let (token, topic, payload) = (self.token, message.topic.clone(), message.payload.clone());
        self.heard.retain(|heard| heard.topic != topic);
        if !self.connection.publish(token, message) {
            return Err(Loss::Closed("it takes nothing".to_owned()));
        }
        let mut passed = Passed::default();
        let mut deadline = Instant::now() + ANSWERS_WITHIN;
        while !passed.whole() {
            let Ok(event) = timeout_at(deadline, self.next()).await else {
                break;
            };
            match event? {
                Event::Delivered(delivered) => passed.acknowledged |= delivered == token,
                Event::Message {
                    topic: heard,
                    payload: same,
                    ..
                } => passed.came |= heard == topic && same == payload,
                _ => continue,
            }
            if passed.acknowledged || passed.came {
                deadline = deadline.min(Instant::now() + QUIET);
            }
        }
        Ok(passed)
    }

    /// Publishes, and waits for a message on another topic.
    pub(super) async fn ask(
        &mut self,
        message: Message,
        answer: impl Fn(&str, &[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Loss> {
        self.token += 1;
        self.connection.publish(self.token, message);
        let is_it = |event: &Event| match event {
            Event::Message { topic, payload, .. } => answer(topic, payload),
            _ => false,
        };
        match self.until(QUIET, is_it).await? {
            Some(Event::Message { payload, .. }) => Ok(Some(payload)),
            _ => Ok(None),
        }
    }

    /// Waits for a retained message on a topic.
    pub(super) async fn wait_retained(&mut self, topic: &str) -> Result<bool, Loss> {
        let is_it = |event: &Event| match event {
            Event::Message {
                topic: heard,
                retained,
                ..
            } => *retained && heard == topic,
            _ => false,
        };
        if self.retained(topic).is_some() {
            return Ok(true);
        }
        Ok(self.until(QUIET, is_it).await?.is_some())
    }

    /// What the broker kept there, as far as it came.
    pub(super) fn retained(&self, topic: &str) -> Option<&[u8]> {
        let mut heard = self.heard.iter().rev();
        let found = heard.find(|heard| heard.topic == topic && heard.retained)?;
        Some(&found.payload)
    }

    /// Says goodbye; a broker that does not close is left.
    pub(super) async fn close(self) {
        timeout(QUIET, self.connection.close()).await.ok();
    }

    /// The first event that is meant; none, if it does not come in time.
    async fn until(
        &mut self,
        limit: Duration,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<Option<Event>, Loss> {
        let deadline = Instant::now() + limit;
        loop {
            match timeout_at(deadline, self.next()).await {
                Err(_) => return Ok(None),
                Ok(event) => {
                    let event = event?;
                    if is_it(&event) {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Loss> {
        match self.connection.next().await {
            Event::Lost(loss) => Err(loss),
            event => {
                if let Event::Message {
                    topic,
                    payload,
                    retained,
                } = &event
                {
                    self.heard.push(Heard {
                        topic: topic.clone(),
                        payload: payload.clone(),
                        retained: *retained,
                    });
                }
                Ok(event)
            }
        }
    }
}
