//! What things are called at the server: a stream for each kind of work, a queue of it for each ability that it needs, and the
//! subjects on which boards speak with each other.
//!
//! | subject | what is said there |
//! |---|---|
//! | `gemmad.GROUP.job.KIND.NEEDS.NODE[.CAMERA]` | work, on the stream `gemmad-GROUP-KIND` |
//! | `gemmad.GROUP.job.KIND.own.SESSION.NODE` | the same, for the worker that knows what it begins with |
//! | `gemmad.GROUP.to.NODE.SESSION` | workers ask a source whether a job is still wanted, and bring what it became |
//! | `gemmad.GROUP.sound.ID` | what is being said, for the worker that hears it |
//! | `gemmad.GROUP.bell` | there is work |
//! | `gemmad.GROUP.cancel` | a job is not wanted any more |
//! | `gemmad.GROUP.member`, `gemmad.GROUP.who` | each board tells how it is, now and then and when it is asked |

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};

use super::options::FleetOptions;

/// Of the words and files of this protocol. Boards of another number leave each other's jobs alone.
pub(super) const PROTOCOL: u32 = 1;

/// A job whose worker is silent this long goes to another one.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(4);

/// Workers that may die of a job.
pub(super) const MAX_DEATHS: usize = 3;

/// Nothing stays longer at the server: the longest deadline.
pub(super) const MAX_AGE: Duration = Duration::from_secs(900);

/// Within this time the server knows a job again that was sent twice.
const DUPLICATES: Duration = Duration::from_secs(120);

/// Jobs of a kind that wait at most; of pictures that nobody asked for, one a camera.
const MAX_JOBS: i64 = 256;

/// Utterances that wait at most: more are answered too late for anybody.
const MAX_UTTERANCES: i64 = 32;

/// The queue of a worker that nobody looks into is forgotten after this time, which is longer than any job.
const OWN_IS_KEPT: Duration = Duration::from_secs(1000);

/// A kind of work, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody spoke.
    Voice,
    /// Somebody asked.
    Ask,
    /// A picture that nobody asked for.
    Image,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Voice, Kind::Ask, Kind::Image];

    /// As in subjects.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Voice => "voice",
            Kind::Ask => "ask",
            Kind::Image => "image",
        }
    }
}

/// What a model must be able to for a job, and what a board's model can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) sees: bool,
    pub(super) hears: bool,
    /// It hears while somebody speaks.
    pub(super) live: bool,
    /// It thinks before it answers.
    pub(super) thinks: bool,
}

impl Needs {
    pub(super) const TEXT: Needs = Needs {
        sees: false,
        hears: false,
        live: false,
        thinks: false,
    };
    pub(super) const SEES: Needs = Needs {
        sees: true,
        ..Needs::TEXT
    };
    pub(super) const HEARS: Needs = Needs {
        hears: true,
        ..Needs::TEXT
    };
    pub(super) const BOTH: Needs = Needs {
        sees: true,
        ..Needs::HEARS
    };
    pub(super) const LIVE: Needs = Needs {
        live: true,
        ..Needs::HEARS
    };

    /// The same, and it thinks.
    const fn and_thinks(self) -> Needs {
        Needs {
            thinks: true,
            ..self
        }
    }

    /// As in subjects.
    pub(super) fn name(self) -> &'static str {
        match (self.thinks, self.live, self.sees, self.hears) {
            (_, true, ..) => "live",
            (false, _, false, false) => "text",
            (false, _, true, false) => "sees",
            (false, _, false, true) => "hears",
            (false, _, true, true) => "both",
            (true, _, false, false) => "thinks",
            (true, _, true, false) => "thinks-sees",
            (true, _, false, true) => "thinks-hears",
            (true, _, true, true) => "thinks-both",
        }
    }

    /// Whether a model that can do so much can do it.
    pub(super) fn are_met_by(self, can: Needs) -> bool {
        let all = [
            (self.sees, can.sees),
            (self.hears, can.hears),
            (self.live, can.live),
            (self.thinks, can.thinks),
        ];
        all.iter().all(|(needs, can)| *can || !needs)
    }

    /// In words behind a board: ` that sees and hears`; nothing, where it is text alone.
    pub(super) fn in_words(self) -> String {
        let all = [
            (self.sees, "sees"),
            (self.hears, "hears"),
            (self.thinks, "thinks"),
        ];
        let words: Vec<&str> = all
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, word)| *word)
            .collect();
        match words.split_last() {
            None => String::new(),
            Some((last, [])) => format!(" that {last}"),
            Some((last, first)) => format!(" that {} and {last}", first.join(", ")),
        }
    }
}

/// The queues of all streams, in the order in which a worker looks into them.
pub(super) const QUEUES: [(Kind, Needs); 12] = [
    (Kind::Voice, Needs::LIVE),
    (Kind::Voice, Needs::HEARS),
    (Kind::Voice, Needs::TEXT),
    (Kind::Ask, Needs::TEXT),
    (Kind::Ask, Needs::SEES),
    (Kind::Ask, Needs::HEARS),
    (Kind::Ask, Needs::BOTH),
    (Kind::Ask, Needs::TEXT.and_thinks()),
    (Kind::Ask, Needs::SEES.and_thinks()),
    (Kind::Ask, Needs::HEARS.and_thinks()),
    (Kind::Ask, Needs::BOTH.and_thinks()),
    (Kind::Image, Needs::SEES),
];

/// The names of a fleet.
#[derive(Clone, Debug)]
pub(super) struct Names {
    group: String,
}

impl Names {
    pub(super) fn new(options: &FleetOptions) -> Names {
        Names {
            group: options.group.clone(),
        }
    }

    pub(super) fn stream(&self, kind: Kind) -> String {
        format!("gemmad-{}-{}", self.group, kind.name())
    }

    /// Where payloads wait that are too large for a message.
    pub(super) fn bucket(&self) -> String {
        format!("gemmad-{}", self.group)
    }

    /// A subject of the fleet.
    pub(super) fn subject(&self, rest: &str) -> String {
        format!("gemmad.{}.{rest}", self.group)
    }

    /// Where work of a kind goes, for whoever takes it from that queue.
    pub(super) fn job(&self, kind: Kind, queue: &str, place: &str) -> String {
        self.subject(&format!("job.{}.{queue}.{place}", kind.name()))
    }

    /// The queue of one worker.
    pub(super) fn own(session: &str) -> String {
        format!("own.{session}")
    }

    /// As the server keeps the queue of one worker, until that is gone.
    pub(super) fn own_config(&self, kind: Kind, session: &str) -> consumer::pull::Config {
        consumer::pull::Config {
            durable_name: Some(format!("own-{session}")),
            filter_subject: self.job(kind, &Names::own(session), ">"),
            inactive_threshold: OWN_IS_KEPT,
            ..self.queue_config((kind, Needs::TEXT))
        }
    }

    pub(super) fn source(&self, node: &str, session: &str) -> String {
        self.subject(&format!("to.{node}.{session}"))
    }

    /// Where what is being said goes.
    pub(super) fn sound(&self, id: &str) -> String {
        self.subject(&format!("sound.{id}"))
    }

    /// Work of a kind, as the server keeps it.
    pub(super) fn stream_config(&self, kind: Kind, options: &FleetOptions) -> stream::Config {
        let (max_messages, a_subject, discard) = match kind {
            Kind::Voice => (MAX_UTTERANCES, -1, DiscardPolicy::New),
            Kind::Ask => (MAX_JOBS, -1, DiscardPolicy::New),
            // Of a camera's pictures the newest counts.
            Kind::Image => (MAX_JOBS, 1, DiscardPolicy::Old),
        };
        stream::Config {
            name: self.stream(kind),
            description: Some(format!(
                "{} work of gemmad's fleet {}",
                kind.name(),
                self.group
            )),
            subjects: vec![self.subject(&format!("job.{}.>", kind.name()))],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            max_messages,
            max_messages_per_subject: a_subject,
            max_bytes: store_bytes(options),
            discard,
            max_age: MAX_AGE,
            duplicate_window: DUPLICATES,
            num_replicas: options.replicas,
            ..stream::Config::default()
        }
    }

    /// A queue of a stream, which all workers of the fleet share.
    pub(super) fn queue_config(&self, (kind, needs): (Kind, Needs)) -> consumer::pull::Config {
        consumer::pull::Config {
            durable_name: Some(needs.name().to_owned()),
            filter_subject: self.job(kind, needs.name(), ">"),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // A job's source counts who takes it, and ends it: the server would count what it gave away while nobody heard, and its
            // advisory comes once.
            max_deliver: -1,
            ..consumer::pull::Config::default()
        }
    }
}

pub(super) fn store_bytes(options: &FleetOptions) -> i64 {
    i64::try_from(options.store_mib << 20).unwrap_or(i64::MAX)
}
