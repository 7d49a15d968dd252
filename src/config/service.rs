//! What only the daemon reads: the model it runs, where it publishes, what it accepts, how it logs.

use std::path::PathBuf;

use serde::Deserialize;

use crate::model::kv_cache::KvType;

/// `[model]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A pack, or a checkpoint in the published layout.
    pub path: PathBuf,
    /// Tokens of context: prompt and answer together.
    pub context: usize,
    /// Element type of the K/V cache: `f16` or `f32`.
    pub kv_cache: KvType,
    /// Keep text weights in memory once they were read, whatever else needs memory.
    pub mlock: bool,
    /// Seconds without use after which the audio tower is unloaded.
    pub audio_idle_unload_s: u32,
    /// Seconds without use after which the vision tower is unloaded.
    pub vision_idle_unload_s: u32,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            path: PathBuf::from("/var/lib/gemmad/models/default.pack"),
            context: 4096,
            kv_cache: KvType::F16,
            mlock: false,
            audio_idle_unload_s: 120,
            vision_idle_unload_s: 120,
        }
    }
}

/// `[matformer]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Matformer {
    /// The slice that answers unless a request names one; absent: the whole model.
    pub slice: Option<String>,
    /// The slice that answers while the board is too hot or short of memory; absent: as always.
    pub degraded_slice: Option<String>,
}

/// `[threads]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Threads {
    /// Threads that compute; 0 for one on each fast core.
    pub count: usize,
}

/// `[mqtt]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Publish over MQTT.
    pub enabled: bool,
    /// `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
    pub url: String,
    /// Name of this board in topics, `[a-z0-9_-]`; empty: the host's name.
    pub node: String,
    /// First part of every topic.
    pub base_topic: String,
    /// User at the broker; empty for none.
    pub username: String,
    /// File with the password, its trailing newline ignored.
    pub password_file: Option<PathBuf>,
    /// Name of the systemd credential with the password (`LoadCredential=`).
    pub password_credential: Option<String>,
    /// Certificates of the authorities to trust, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub client_certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key_file: Option<PathBuf>,
    /// Announce the devices to Home Assistant.
    pub discovery: bool,
    /// First part of Home Assistant's discovery topics.
    pub discovery_prefix: String,
    /// Keep the last transcript, caption and picture on the broker, where every client can read them.
    pub retain_results: bool,
    /// Largest message that is accepted or sent, bytes.
    pub max_payload_bytes: usize,
    /// Largest picture that is published, bytes.
    pub max_image_bytes: usize,
    /// Events kept while the broker is away; the oldest go first.
    pub outbox_events: usize,
    /// Where events wait on disk while the broker is away; absent: in memory only.
    pub spool_file: Option<PathBuf>,
    /// Largest spool, bytes.
    pub spool_max_bytes: u64,
    /// Seconds between two pings to the broker.
    pub keep_alive_s: u16,
}

impl Default for Mqtt {
    fn default() -> Mqtt {
        Mqtt {
            enabled: false,
            url: "mqtt://localhost:1883".to_owned(),
            node: String::new(),
            base_topic: "gemmad".to_owned(),
            username: String::new(),
            password_file: None,
            password_credential: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            discovery: true,
            discovery_prefix: "homeassistant".to_owned(),
            retain_results: true,
            max_payload_bytes: 65_536,
            max_image_bytes: 262_144,
            outbox_events: 1024,
            spool_file: None,
            spool_max_bytes: 4 << 20,
            keep_alive_s: 30,
        }
    }
}

/// `[dbus]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Dbus {
    /// Own `org.gemmad1` on a bus.
    pub enabled: bool,
    /// `system`, `session`, or a bus address such as `unix:path=/run/…`.
    pub bus: String,
    /// Jobs that one user may have at a time.
    pub jobs_per_user: usize,
    /// Seconds for which a finished job can be asked for its result.
    pub keep_finished_s: u32,
}

impl Default for Dbus {
    fn default() -> Dbus {
        Dbus {
            enabled: true,
            bus: "system".to_owned(),
            jobs_per_user: 4,
            keep_finished_s: 60,
        }
    }
}

/// `[[command]]`: something that may be said, with the values of its slots.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What the event calls it, such as `turn_on`.
    pub name: String,
    /// Said to the model, to choose among the commands; may be left out.
    #[serde(default)]
    pub description: Option<String>,
    /// Slots in the order in which the model gives them.
    #[serde(default)]
    pub slots: Vec<Slot>,
}

/// `[[command.slots]]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its key in the event.
    pub name: String,
    /// The values that may come out: strings or whole numbers.
    pub values: Vec<SlotValue>,
    /// The command may come without it.
    #[serde(default)]
    pub optional: bool,
}

/// A value of a slot.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum SlotValue {
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

/// `[commands]`: how the model is asked for a command.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// The prompt behind the speech or its transcript; `{commands}` becomes the list of commands and slots.
    pub prompt: String,
    /// The key of the command's name in the JSON that the model gives.
    pub name_key: String,
    /// Least share of the model's probability that the listed commands must have at every token of an answer, 0 to 1; speech
    /// below it is `not_understood`.
    pub min_confidence: f32,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            prompt: "Which of these commands was that? Answer with one JSON object.\n{commands}"
                .to_owned(),
            name_key: "command".to_owned(),
            min_confidence: 0.5,
        }
    }
}

/// `[queue]`: how much waits, and for how long.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Jobs that wait at most; more are refused.
    pub jobs: usize,
    /// Seconds from its request after which a job is given up.
    pub deadline_s: u32,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Characters of a prompt at most.
    pub max_prompt_chars: usize,
    /// Seconds within which a stop lets running work end.
    pub drain_s: u32,
    /// Memory for keys and values of conversations that may go on, MiB.
    pub conversations_mib: usize,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            jobs: 8,
            deadline_s: 120,
            max_tokens: 256,
            max_prompt_chars: 4096,
            drain_s: 10,
            conversations_mib: 256,
        }
    }
}

/// `[degrade]`: when less is done, so that the board stays well.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Degrade {
    /// Hottest thermal zone from which fewer threads and the degraded slice are used, °C; 0 for never.
    pub hot_c: f32,
    /// It must cool down to this before everything is used again, °C.
    pub cool_c: f32,
    /// Share of time that something waited for memory (`/proc/pressure/memory`, some avg10), percent; 0 for never.
    pub memory_pressure_percent: f32,
    /// Threads while degraded; 0 for half of them.
    pub threads: usize,
}

impl Default for Degrade {
    fn default() -> Degrade {
        Degrade {
            hot_c: 80.0,
            cool_c: 75.0,
            memory_pressure_percent: 20.0,
            threads: 0,
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// Write what was said and seen to the log, at level debug.
    pub content: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".to_owned(),
            content: false,
        }
    }
}
