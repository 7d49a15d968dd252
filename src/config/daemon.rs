//! The daemon's own sections. The daemon is given the whole configuration and so stands above this room, which may not name it: that is why
//! they are here.

use std::path::PathBuf;

use serde::Deserialize;

use crate::model::decoder::kv_cache::KvType;
use crate::pipeline::MAX_ANSWERS;

/// `[model]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A pack, or a checkpoint in the published layout.
    pub path: PathBuf,
    /// Tokens of context: prompt and answer together.
    pub context: usize,
    /// Element type of the K/V cache: `f16`, `f32` or `int8`.
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

/// `[queue]`: how much waits, and for how long.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Jobs that wait at most; more are refused.
    pub jobs: usize,
    /// Utterances at most that are being spoken or are not answered yet; one more is refused.
    pub utterances: usize,
    /// Memory for their sound, keys and values, MiB: where it is used up, one more utterance is refused.
    pub utterances_mib: usize,
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
    /// Answers that are decoded together, at most.
    pub answers: usize,
}

impl Queue {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// As many answers together as no pass has room for.
    pub fn check(&self) -> Result<(), String> {
        match (1..=MAX_ANSWERS).contains(&self.answers) {
            true => Ok(()),
            false => Err(format!(
                "queue.answers is {}; it must be 1 to {MAX_ANSWERS}",
                self.answers
            )),
        }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            jobs: 8,
            utterances: 8,
            utterances_mib: 256,
            deadline_s: 120,
            max_tokens: 256,
            max_prompt_chars: 4096,
            drain_s: 10,
            conversations_mib: 256,
            answers: 4,
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
    /// Publish warnings and errors over MQTT too.
    pub publish: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".to_owned(),
            content: false,
            publish: false,
        }
    }
}
