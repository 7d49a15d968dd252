//! Another process with this node's name. A broker lets in one client of a name: two boards with one name take the connection from
//! each other, and neither is told why it lost it.
//!
//! Each process therefore writes on every connection who it is, retained, on `BASE/NODE/instance`, and reads before what stands there.
//! At its first connection that is whoever had the name before. If it is somebody else later, after this process has read its own
//! words there, then somebody else wrote in between, and is alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::options::host_name;
use super::outbox::{Delivery, Outgoing};
use super::payload::json;
use super::topics::Topics;
use crate::guard::harmless::short;
use crate::report::SCHEMA;

/// `instance`: which process has the node's name; retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Instance {
    /// Version of this layout.
    schema: u32,
    /// The process, a ULID.
    instance: String,
    /// The name of its host.
    host: String,
    /// When it was started, RFC 3339.
    started_at: String,
    /// How many times it has connected, so that no two messages are the same.
    connection: u64,
}

/// Whether the name is ours alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Another process has it too; who that is, in words.
    Contested(String),
    /// Nobody wrote there any more since our last connection.
    Ours,
}

/// What this process wrote and read.
#[derive(Debug)]
pub(super) struct Namesake {
    ours: Instance,
    /// This process has read its own words.
    had_it: bool,
    /// The last that stood there and was not ours. A broker that forgets the newest may come up with it again.
    before: Option<Instance>,
    /// Somebody else's words were read on this connection.
    foreign: bool,
    contested: bool,
}

impl Namesake {
    /// For a process that was started at that time.
    pub(super) fn new(started_at: &str) -> Namesake {
        Namesake {
            ours: Instance {
                schema: SCHEMA,
                instance: ulid::Ulid::generate().to_string(),
                host: host_name(),
                started_at: started_at.to_owned(),
                connection: 0,
            },
            had_it: false,
            before: None,
            foreign: false,
            contested: false,
        }
    }

    /// A connection stands.
    pub(super) fn connected(&mut self) {
        self.ours.connection += 1;
        self.foreign = false;
    }

    /// What is written once the subscription stands: the broker tells first what stood there, then this.
    pub(super) fn claim(&self, topics: &Topics) -> Outgoing {
        json(Delivery::Control, topics.instance(), &self.ours)
    }

    /// Reads a message on the topic, old or new. Tells of a change only.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<Name> {
        // Anybody may write there; what is no instance is not one.
        let read: Instance = serde_json::from_slice(payload).ok()?;
        if read.instance == self.ours.instance {
            self.had_it = true;
            let over = read == self.ours && !self.foreign && self.contested;
            if over {
                self.contested = false;
            }
            return over.then_some(Name::Ours);
        }
        let known = !self.had_it || self.before.as_ref() == Some(&read);
        let who = format!(
            "on host {:?}, started at {}",
            short(&read.host),
            short(&read.started_at)
        );
        self.before = Some(read);
        if known {
            return None;
        }
        self.foreign = true;
        let news = !std::mem::replace(&mut self.contested, true);
        news.then_some(Name::Contested(who))
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::MqttOptions;
    use super::*;

    /// What a broker does for the one topic: it keeps the last message, and tells a new connection of it.
    #[derive(Default)]
    struct Kept(Vec<u8>);

    impl Kept {
        /// A connection of `node`, until it has read its own words.
        fn connect(&mut self, node: &mut Namesake) -> Option<Name> {
            let topics = Topics::new(&MqttOptions::default());
            node.connected();
            let first = node.read(&self.0);
            self.0 = node.claim(&topics).payload;
            node.read(&self.0).or(first)
        }
    }

    #[test]
    fn two_processes_of_one_name_both_notice_and_see_when_it_is_over() {
        let mut broker = Kept::default();
        let (mut one, mut other) = (Namesake::new("1"), Namesake::new("2"));
        assert_eq!(broker.connect(&mut one), None);
        // What the other finds may be of a process that ended: that is how it is after every restart.
        assert_eq!(broker.connect(&mut other), None);
        let told = |name| match name {
            Some(Name::Contested(who)) => who,
            other => panic!("{other:?}"),
        };
        assert!(told(broker.connect(&mut one)).ends_with("started at 2"));
        assert!(told(broker.connect(&mut other)).ends_with("started at 1"));
        // It is told once.
        for _ in 0..3 {
            assert_eq!(broker.connect(&mut one), None);
            assert_eq!(broker.connect(&mut other), None);
        }
        // The other is gone; `one` finds its words once more, then its own.
        assert_eq!(broker.connect(&mut one), None);
        assert_eq!(broker.connect(&mut one), Some(Name::Ours));
        assert_eq!(broker.connect(&mut one), None);
    }

    #[test]
    fn a_broker_that_forgets_is_nobody_else() {
        let mut broker = Kept::default();
        let mut former = Namesake::new("1");
        broker.connect(&mut former);
        let old = broker.0.clone();
        let mut node = Namesake::new("2");
        assert_eq!(broker.connect(&mut node), None);
        // It comes up with what it had written to its disk last.
        for kept in [old, Vec::new(), b"{}".to_vec(), b"\xff".to_vec()] {
            broker.0 = kept;
            assert_eq!(broker.connect(&mut node), None);
        }
        // A message while we are connected is as good as one from before.
        former.connected();
        let topics = Topics::new(&MqttOptions::default());
        assert!(node.read(&former.claim(&topics).payload).is_some());
    }
}
