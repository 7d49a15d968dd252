//! What a job needs to know of the configuration, as it was when the job came.

use std::sync::Arc;

use super::state::Switches;
use crate::capture::options::{CameraOptions, MicrophoneOptions};
use crate::config::Config;
use crate::pipeline::Engine;
use crate::pipeline::commands::CommandGrammar;

/// The configuration in force, with what is computed from it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The file.
    pub(super) config: Arc<Config>,
    /// SHA-256 of its text.
    pub(super) config_sha256: String,
    /// The commands that are understood; `None` where none are configured.
    pub(super) commands: Option<Arc<CommandGrammar>>,
    /// The slice that answers unless a request names one.
    pub(super) matformer: Option<String>,
    /// Tokens of an answer at most.
    pub(super) max_tokens: usize,
    /// Threads that compute.
    pub(super) threads: usize,
    /// Whoever pauses is answered as if that were the end.
    pub(super) answers_early: bool,
}

impl Settings {
    /// The same, with what people switched, and with less while the board is degraded.
    pub(super) fn for_board(&self, switches: &Switches, degraded: bool) -> Settings {
        let config = &self.config;
        let all_threads = Engine::threads_for(config.threads.count);
        let usual = switches
            .matformer
            .clone()
            .or_else(|| config.matformer.slice.clone());
        let degraded_slice = config.matformer.degraded_slice.clone();
        let limit = config.queue.max_tokens;
        Settings {
            matformer: degraded_slice.filter(|_| degraded).or(usual),
            max_tokens: switches
                .max_tokens
                .map_or(limit, |tokens| tokens.min(limit)),
            threads: match (degraded, config.degrade.threads) {
                (false, _) => all_threads,
                (true, 0) => all_threads.div_ceil(2),
                (true, threads) => threads.min(all_threads),
            },
            // A board that is hot or short of memory has nothing to spare for work that may be thrown away.
            answers_early: !degraded,
            ..self.clone()
        }
    }

    /// A configured microphone.
    pub(super) fn microphone(&self, id: &str) -> Option<&MicrophoneOptions> {
        self.config.microphone.iter().find(|mic| mic.id == id)
    }

    /// A configured camera.
    pub(super) fn camera(&self, id: &str) -> Option<&CameraOptions> {
        self.config.camera.iter().find(|camera| camera.id == id)
    }

    /// What a camera's pictures are asked about.
    pub(super) fn camera_prompt(&self, camera: &CameraOptions) -> String {
        let prompt = camera.prompt.as_ref();
        let prompt = prompt.unwrap_or(&self.config.tasks.describe);
        prompt.replace("{camera}", camera.name.as_deref().unwrap_or(&camera.id))
    }
}
