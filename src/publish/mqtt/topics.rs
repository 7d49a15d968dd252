//! The topic tree: every name below `BASE/NODE`, and those of Home Assistant that concern this node.

use super::options::MqttOptions;
use crate::report::Info;

/// What can be wrong with a message from outside is told on `response/KIND`; commands to the daemon itself are of this kind.
pub(super) const KIND_SET: &str = "set";

/// Names of topics.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    base: String,
    /// `BASE/NODE`
    root: String,
    pub(super) node: String,
    discovery_prefix: String,
}

/// A microphone or a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Microphone,
    Camera,
}

impl Source {
    /// Its level in topics, and its part in names.
    pub(super) fn level(self) -> &'static str {
        match self {
            Source::Microphone => "mic",
            Source::Camera => "camera",
        }
    }

    /// What is retained below it.
    pub(super) fn retained(self) -> &'static [&'static str] {
        match self {
            Source::Microphone => &[
                "state",
                "speech",
                "mute",
                "transcript",
                "wake",
                "wake_score",
            ],
            Source::Camera => &["state", "motion", "enabled", "captions", "caption", "image"],
        }
    }

    /// What is asked of it.
    fn commands(self) -> &'static [&'static str] {
        match self {
            Source::Microphone => &["mute/set", "wake/set", "listen", "reply", "say"],
            Source::Camera => &["enabled/set", "captions/set", "describe"],
        }
    }
}

/// What is retained of the speaker.
const SPEAKER: &[&str] = &["speaker/state", "speaker/speaking", "speaker/volume"];

/// What is retained of a microphone that wake words wake.
const WAKING: &[&str] = &["wake", "wake_score"];

/// What is asked of the node.
const COMMANDS: &[&str] = &[
    "ask",
    "request/ask",
    "request/describe",
    "request/transcribe",
    "request/cancel",
    "request/reload",
    "request/forget",
    "request/stats",
    "matformer/set",
    "max_tokens/set",
    "names",
    "speaker/volume/set",
    "speaker/stop",
];

impl Topics {
    pub(super) fn new(config: &MqttOptions) -> Topics {
        let node = config.node_name();
        Topics {
            base: config.base_topic.clone(),
            root: format!("{}/{node}", config.base_topic),
            node,
            discovery_prefix: config.discovery_prefix.clone(),
        }
    }

    /// `BASE/NODE/REST`
    pub(super) fn of(&self, rest: &str) -> String {
        format!("{}/{rest}", self.root)
    }

    /// `BASE/NODE/mic/ID/REST` and its like.
    pub(super) fn of_source(&self, source: Source, id: &str, rest: &str) -> String {
        format!("{}/{}/{id}/{rest}", self.root, source.level())
    }

    /// What is left of a topic without `BASE/NODE/`.
    pub(super) fn below<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.root)?.strip_prefix('/')
    }

    /// `online` or `offline`; the will.
    pub(super) fn availability(&self) -> String {
        self.of("state")
    }

    /// The devices that Home Assistant was told of, so that those that are gone can be taken back after a restart.
    pub(super) fn announced(&self) -> String {
        self.of("announced")
    }

    /// What things at home are called; retained.
    pub(super) fn names(&self) -> String {
        self.of("names")
    }

    /// Which process has the node's name, so that two of them notice.
    pub(super) fn instance(&self) -> String {
        self.of("instance")
    }

    /// Where all boards of the broker tell that they were woken.
    pub(super) fn woken(&self) -> String {
        format!("{}/woken", self.base)
    }

    /// The name at the broker, which lets in one client of a name: the topics' own, so that nodes whose topics differ do not push each
    /// other off.
    pub(super) fn client_id(&self) -> String {
        self.root.replace('/', "-")
    }

    /// Where Home Assistant says that it started.
    pub(super) fn birth(&self) -> String {
        format!("{}/status", self.discovery_prefix)
    }

    /// Where a device is announced.
    pub(super) fn discovery(&self, device: &str) -> String {
        format!("{}/device/{device}/config", self.discovery_prefix)
    }

    /// Home Assistant's name of the node.
    pub(super) fn device(&self) -> String {
        format!("gemmad_{}", self.node)
    }

    /// Home Assistant's name of a microphone or a camera. The kind is in it: one of each may have the same id.
    pub(super) fn device_of(&self, source: Source, id: &str) -> String {
        format!("gemmad_{}_{}_{id}", self.node, source.level())
    }

    /// The source that [`Topics::device_of`] named.
    pub(super) fn source_of<'a>(&self, device: &'a str) -> Option<(Source, &'a str)> {
        let rest = device.strip_prefix(&self.device())?.strip_prefix('_')?;
        [Source::Microphone, Source::Camera]
            .into_iter()
            .find_map(|source| {
                let id = rest.strip_prefix(source.level())?.strip_prefix('_')?;
                (!id.is_empty()).then_some((source, id))
            })
    }

    /// Home Assistant's name of the source that a topic is about.
    pub(super) fn source_in(&self, topic: &str) -> Option<String> {
        let (level, rest) = self.below(topic)?.split_once('/')?;
        let (id, _) = rest.split_once('/')?;
        let sources = [Source::Microphone, Source::Camera];
        let source = sources.into_iter().find(|s| s.level() == level)?;
        Some(self.device_of(source, id))
    }

    /// Every topic that is listened to, by its exact name: with a wildcard a stranger's large message would end the connection.
    pub(super) fn subscriptions(&self, info: &Info) -> Vec<String> {
        let mut topics: Vec<String> = COMMANDS.iter().map(|command| self.of(command)).collect();
        for (source, id) in sources(info) {
            let commands = source.commands().iter();
            topics.extend(commands.map(|command| self.of_source(source, id, command)));
        }
        if info.microphones.iter().any(|found| found.wakes) {
            topics.push(self.woken());
        }
        topics.push(self.announced());
        topics.push(self.instance());
        topics.push(self.birth());
        topics
    }
}

impl Topics {
    /// What an earlier configuration may have retained of a speaker and of wake words, where this one has none.
    pub(super) fn idle(&self, info: &Info) -> Vec<String> {
        let speaker = match info.speaker {
            None => SPEAKER,
            Some(_) => &[],
        };
        let asleep = info.microphones.iter().filter(|found| !found.wakes);
        let asleep = asleep.flat_map(|found| {
            let topic = |rest: &&str| self.of_source(Source::Microphone, &found.id, rest);
            WAKING.iter().map(topic)
        });
        let topics = speaker.iter().map(|rest| self.of(rest));
        topics.chain(asleep).collect()
    }
}

/// The microphones and cameras.
pub(super) fn sources(info: &Info) -> impl Iterator<Item = (Source, &str)> {
    let microphones = info.microphones.iter();
    let cameras = info.cameras.iter();
    microphones
        .map(|found| (Source::Microphone, found.id.as_str()))
        .chain(cameras.map(|found| (Source::Camera, found.id.as_str())))
}
