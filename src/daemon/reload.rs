//! From a configuration file to what is in force, at the start and again on SIGHUP: a valid file whole, or the old one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::queue::Cancelled;
use super::settings::Settings;
use super::state::Switches;
use super::{Daemon, DaemonError, log_sink, names, reports, systemd};
use crate::config::Config;
use crate::guard::regular;
use crate::pipeline::{EncoderOptions, EngineOptions};
use crate::report::{ErrorBody, ErrorCode, Header, JobUpdate, Names, Report};

/// What is computed from a configuration.
pub(super) fn settings(
    config: Config,
    names: Option<&Names>,
    switches: &Switches,
    file: &Path,
) -> Result<Settings, DaemonError> {
    let commands = names::commands(&config, names)
        .map_err(|error| DaemonError::Setting(format!("{}: {error}", file.display())))?;
    // What came from a pipe is gone: nobody waits for more.
    let text = regular::open(file).and_then(std::io::read_to_string);
    let digest = Sha256::digest(text.unwrap_or_default());
    let settings = Settings {
        config_sha256: hex::encode(digest),
        commands,
        matformer: None,
        max_tokens: 0,
        threads: 0,
        answers_early: false,
        config: Arc::new(config),
    };
    Ok(settings.for_board(switches, false))
}

/// How the model is run.
pub fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        threads: config.threads.count,
        context: config.model.context,
        kv_type: config.model.kv_cache,
        ple: config.ple.clone(),
        prefix_cache: config.prefix_cache.clone(),
        prefix_bytes: (config.prefix_cache.memory_mib as u64) << 20,
        guess: config.guess.clone(),
        mlock: config.model.mlock,
        conversation_bytes: (config.queue.conversations_mib as u64) << 20,
        answers: config.queue.answers,
        encoders: EncoderOptions::new(&config.audio, &config.vision),
        ..EngineOptions::default()
    }
}

/// Leaves a section that only a restart can change as it was; its name, where the new file has it otherwise.
pub(super) fn kept<T: Clone + PartialEq>(
    name: &'static str,
    new: &mut T,
    old: &T,
) -> Option<&'static str> {
    let changed = new != old;
    new.clone_from(old);
    changed.then_some(name)
}

/// One that waits for devices to be free.
#[derive(Debug)]
struct Reload {
    asker: Option<Header>,
    /// What only a restart can change.
    restart: Vec<&'static str>,
}

/// Reloads, one after the other; SIGHUP has no asker.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    now: Option<Reload>,
    next: VecDeque<Option<Header>>,
}

impl Reloads {
    /// Those who asked and have no answer.
    pub(super) fn askers(&mut self) -> Vec<Header> {
        let now = self.now.take().and_then(|reload| reload.asker);
        now.into_iter()
            .chain(self.next.drain(..).flatten())
            .collect()
    }
}

impl Daemon {
    /// Reads the file again, for whoever asked or for SIGHUP. What only a restart can change is named and left as it was. One that comes
    /// while another waits for devices to be free has its turn after that.
    pub(super) async fn reload(&mut self, asker: Option<Header>) {
        if self.devices.is_closing() {
            self.reload_later(asker);
            return;
        }
        systemd::reloading();
        match self.apply().await {
            Ok(restart) => self.reloads.now = Some(Reload { asker, restart }),
            Err(message) => {
                systemd::ready(&self.status());
                self.record.error(&message);
                log::error!("the old configuration stays: {message}");
                if let Some(asker) = asker {
                    self.refuse(&asker, ErrorBody::new(ErrorCode::Invalid, message));
                }
            }
        }
    }

    /// So many wait as jobs may, and one SIGHUP: another would read the same file.
    fn reload_later(&mut self, asker: Option<Header>) {
        let waiting = &mut self.reloads.next;
        let most = self.settings.config.queue.jobs;
        match asker {
            None if waiting.contains(&None) => {}
            Some(asker) if waiting.len() >= most => {
                let why = format!("{most} reloads wait already (queue.jobs): ask again later");
                self.refuse(&asker, ErrorBody::new(ErrorCode::QueueFull, why));
            }
            asker => waiting.push_back(asker),
        }
    }

    /// What was taken out has let go of its devices: what is new is opened, and the reload is done.
    pub(super) async fn closed(&mut self) {
        let settings = Arc::clone(&self.settings);
        self.devices.open_others(&settings.config, &self.switches);
        let info = reports::info(&settings, &self.loaded, &self.started_at);
        self.doors.publish(&Report::Info(Box::new(info)));
        self.publish_switches();
        self.publish_health();
        // A microphone that was closed while somebody spoke at it tells no end of that, and a new speaker knows of nobody.
        self.duck();
        if let Some(Reload { asker, restart }) = self.reloads.now.take() {
            match restart.as_slice() {
                [] => log::info!("the configuration was read again"),
                keys => log::warn!(
                    "the configuration was read again; these sections need a restart: {}",
                    keys.join(", ")
                ),
            }
            systemd::ready(&self.status());
            if let Some(asker) = asker {
                let reply = reports::done(json!({ "needs_restart": restart }));
                self.answered(JobUpdate::end(&asker, Ok(reply)));
            }
        }
        while !self.devices.is_closing()
            && let Some(asker) = self.reloads.next.pop_front()
        {
            self.reload(asker).await;
        }
    }

    async fn apply(&mut self) -> Result<Vec<&'static str>, String> {
        let file = &self.options.config_file;
        if file.exists() && !file.is_file() {
            // A pipe would be waited for, and everything with it.
            return Err(format!("{} is no file", file.display()));
        }
        let mut config = Config::load(file).map_err(|error| error.to_string())?;
        let level = log_sink::level(&config.log)?;
        let old = Arc::clone(&self.settings.config);
        let restart: Vec<&'static str> = [
            kept("[model]", &mut config.model, &old.model),
            kept("[ple]", &mut config.ple, &old.ple),
            kept(
                "[prefix_cache]",
                &mut config.prefix_cache,
                &old.prefix_cache,
            ),
            kept("[threads]", &mut config.threads, &old.threads),
            kept("[audio]", &mut config.audio, &old.audio),
            kept("[vision]", &mut config.vision, &old.vision),
            kept("[fleet]", &mut config.fleet, &old.fleet),
        ]
        .into_iter()
        .chain(self.doors.keep(&mut config, &old))
        .flatten()
        .collect();
        let names = self.household.names();
        let new =
            settings(config, names, &self.switches, file).map_err(|error| error.to_string())?;
        self.loaded
            .check(&new.config)
            .map_err(|error| error.to_string())?;
        let degraded = self.monitor.degraded().is_degraded();
        let new = Arc::new(new.for_board(&self.switches, degraded));
        self.doors
            .reload(&old, &new.config)
            .await
            .map_err(|error| error.to_string())?;
        log::set_max_level(level);
        log_sink::keep_lines(new.config.log.publish);
        for id in self.devices.going(&new.config) {
            self.settle(&id, None);
            self.break_off(&id);
        }
        self.settings = new;
        for asker in self.devices.close_others(&self.settings.config) {
            let error = ErrorBody::new(
                ErrorCode::NotFound,
                "the camera or the speaker was taken out of the configuration, or changed",
            );
            self.answered(JobUpdate::end(&asker, Err(error)));
        }
        Ok(restart)
    }

    /// Forgets what is being said at a microphone that goes: half a sentence is none. It is told as that.
    fn break_off(&mut self, microphone: &str) {
        const WHY: &str =
            "the microphone was taken out of the configuration, or changed, while somebody spoke";
        let microphone = self.devices.microphones.get(microphone);
        let Some(utterance) = microphone.and_then(|it| it.utterance.clone()) else {
            return;
        };
        if let Cancelled::Waiting(job) = self.queue.cancel(&utterance, WHY) {
            let error = ErrorBody::new(ErrorCode::Cancelled, WHY);
            let told = reports::refused(&job, &self.loaded.model, error);
            told.into_iter().for_each(|told| self.told(told));
        }
    }
}
