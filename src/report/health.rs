//! What runs, and how it is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// `log`: a line of the log, where that is wanted; not retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogLine {
    /// Version of this layout.
    pub schema: u32,
    /// When it was written, RFC 3339.
    pub ts: String,
    /// `error` or `warn`.
    pub level: &'static str,
    /// The part of the program that it comes from.
    pub target: String,
    /// The microphone or camera that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What happened; neither what was said nor what was seen.
    pub message: String,
    /// Lines before this one that were too many to be published.
    pub suppressed: u64,
}

/// `info`: what runs; retained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Info {
    /// Version of this layout.
    pub schema: u32,
    /// gemmad's version.
    pub version: String,
    /// When it was started, RFC 3339.
    pub started_at: String,
    /// The model's name.
    pub model: String,
    /// How its weights are stored: `bf16`, `float`, `q8`, `balanced`, `q4_0`, `small`.
    pub quantisation: String,
    /// The slice that answers unless a request names one.
    pub matformer: String,
    /// The slices that the model serves.
    pub matformer_options: Vec<String>,
    /// Tokens of context, prompt and answer together.
    pub context: usize,
    /// Instructions that the kernels use.
    pub isa: String,
    /// Threads that compute.
    pub threads: usize,
    /// Microphones.
    pub microphones: Vec<MicrophoneInfo>,
    /// Cameras.
    pub cameras: Vec<CameraInfo>,
    /// ALSA PCM of the speaker, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// Names of the commands that are understood.
    pub commands: Vec<String>,
    /// SHA-256 of the configuration file.
    pub config_sha256: String,
}

/// A microphone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MicrophoneInfo {
    /// Name in topics.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// ALSA PCM.
    pub device: String,
    /// A wake word wakes it.
    pub wakes: bool,
}

/// A camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CameraInfo {
    /// Name in topics.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Device, address (without user and password) or directory.
    pub device: String,
}

/// `health`: how it is; retained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Health {
    /// Version of this layout.
    pub schema: u32,
    /// When, RFC 3339.
    pub ts: String,
    /// `loading`, `ready`, `degraded` or `stopping`.
    pub state: String,
    /// Why it is degraded.
    pub degraded: Vec<String>,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Resident memory of the process, MiB, mapped weights included.
    pub rss_mib: f64,
    /// Of that, memory that no file is behind, MiB.
    pub anonymous_mib: f64,
    /// Resident weights of each parameter group, MiB: text, ple, audio, vision. 0 while unloaded.
    pub memory_groups_mib: BTreeMap<String, f64>,
    /// Whether each tower is `unloaded`, `loading` or `resident`.
    pub group_states: BTreeMap<String, String>,
    /// Load average over a minute.
    pub load_1m: f64,
    /// Hottest thermal zone, °C.
    pub soc_temp_c: Option<f64>,
    /// What waits and was dropped.
    pub queues: Queues,
    /// The broker.
    pub mqtt: MqttHealth,
    /// The other boards, where there is a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetHealth>,
    /// Tokens per second of the last answer.
    pub tokens_per_second: f64,
    /// Prompt tokens per second of the last answer.
    pub prefill_tokens_per_second: f64,
    /// Rows of per-layer embeddings that were needed since the start.
    pub ple_rows: u64,
    /// Those of them that were read from flash.
    pub ple_row_reads: u64,
    /// Tokens of answers that were guessed since the start, by the source of the guesses.
    pub guessed_tokens: BTreeMap<String, u64>,
    /// Those of them that the model chose, too.
    pub accepted_tokens: BTreeMap<String, u64>,
    /// The last error, and when.
    pub last_error: Option<String>,
}

/// Work that waits, and what was dropped since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Queues {
    /// Jobs that wait or run.
    pub jobs: usize,
    /// Utterances that were dropped.
    pub dropped_voice: u64,
    /// Captions that were dropped because a newer picture came, or because the board is degraded.
    pub dropped_captions: u64,
    /// Requests that were refused.
    pub refused_requests: u64,
    /// Stretches of sound that were lost.
    pub audio_overruns: u64,
    /// Jobs given up because their time was over.
    pub timeouts: u64,
    /// Wake words that were heard.
    pub wake_words: u64,
    /// Those of them that the transcript contradicted.
    pub wake_rejects: u64,
    /// Wake words that another microphone in earshot answers, perhaps another board's.
    pub yielded: u64,
    /// Texts and sounds that were said.
    pub spoken: u64,
    /// Those that were not, because newer ones came.
    pub dropped_speech: u64,
    /// Utterances that were answered in a pause, as if they had ended.
    pub early_answers: u64,
    /// Of these, those whose speaker went on: the work was thrown away.
    pub early_thrown_away: u64,
}

/// How this board stands with the others of its fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FleetHealth {
    /// Whether the connection to the NATS server stands.
    pub connected: bool,
    /// `source`, `worker` or `both`.
    pub role: String,
    /// Other boards that work for this one and are there.
    pub workers: usize,
    /// Those of them that take no job now.
    pub busy: usize,
    /// Jobs that other boards have.
    pub away: usize,
    /// Jobs that came back since the start.
    pub came_back: u64,
    /// Those of them that workers died of.
    pub poison: u64,
    /// Results that nobody waited for any more: of jobs that were cancelled, or done twice.
    pub unwanted: u64,
    /// The other boards that are there, as each told last; 32 of them at most.
    pub boards: Vec<FleetBoard>,
}

/// Another board of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FleetBoard {
    /// Its name.
    pub node: String,
    /// `source`, `worker` or `both`.
    pub role: String,
    /// Its model, where it works for others.
    pub model: String,
    /// Why no job goes from or to it, where its version does not fit this one's.
    pub misfit: Option<String>,
    /// It takes no job now.
    pub busy: bool,
    /// Jobs that it has done for others since its start.
    pub done: u64,
    /// Those of them that came to an error.
    pub failed: u64,
    /// What a job took it, mean of all, milliseconds.
    pub job_ms: u64,
    /// Its own jobs that wait for other boards or are with them.
    pub away: usize,
    /// Its own jobs that workers died of since its start.
    pub poison: u64,
}

/// The connection to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MqttHealth {
    /// Whether it stands.
    pub connected: bool,
    /// Events that wait for the broker.
    pub queued: usize,
    /// Messages that the broker has.
    pub published: u64,
    /// Events that were dropped because too many waited.
    pub dropped: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Another gemmad that has this node's name and takes the connection from this one: its host, and when it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namesake: Option<String>,
}
