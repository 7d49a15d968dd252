//! What is looked at every second: jobs whose time is over, heat and memory, the bus, the watchdog; and `health` every minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Daemon;
use super::log_sink;
use super::reports;
use super::systemd;
use super::vitals::{Degraded, Vitals};
use super::worker::Heartbeat;
use crate::capture::options::{MicrophoneOptions, Trigger};
use crate::report::Report;

/// Between two `health` messages when nothing happens.
const HEALTH_EVERY: Duration = Duration::from_secs(60);

/// Between two looks at heat and memory.
const VITALS_EVERY: Duration = Duration::from_secs(5);

/// What is watched, and when it was looked at last.
pub(super) struct HealthMonitor {
    heartbeat: Arc<Heartbeat>,
    /// The worker's steps when the watchdog was fed last.
    steps: u64,
    watchdog: Option<Duration>,
    fed: Instant,
    degraded: Degraded,
    vitals_read: Instant,
    health_told: Instant,
    status: String,
}

impl HealthMonitor {
    pub(super) fn new() -> HealthMonitor {
        let now = Instant::now();
        HealthMonitor {
            heartbeat: Arc::default(),
            steps: 0,
            watchdog: systemd::watchdog_interval(),
            fed: now,
            degraded: Degraded::default(),
            vitals_read: now,
            health_told: now,
            status: String::new(),
        }
    }

    pub(super) fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    pub(super) fn degraded(&self) -> &Degraded {
        &self.degraded
    }

    /// Feeds the watchdog four times an interval, as long as the worker is idle or gets on.
    fn watch(&mut self) {
        let Some(interval) = self.watchdog else {
            return;
        };
        if self.fed.elapsed() >= interval / 4 && self.heartbeat.is_alive(&mut self.steps) {
            systemd::feed_watchdog();
            self.fed = Instant::now();
        }
    }
}

impl Daemon {
    pub(super) async fn tick(&mut self) {
        self.monitor.watch();
        for line in log_sink::take_lines() {
            self.doors.publish(&Report::Log(Box::new(line)));
        }
        for job in self.queue.expired() {
            if job.asker.is_none() {
                self.record.queues.timeouts += 1; // who asked is counted with the answer
            }
            if let Some(told) = reports::refused(&job, &self.loaded.model, job.too_late()) {
                self.told(told);
            }
        }
        if self.monitor.vitals_read.elapsed() >= VITALS_EVERY {
            self.monitor.vitals_read = Instant::now();
            self.look_at_the_board();
        }
        self.use_names();
        if self.keeping.tick() {
            self.state_file.save(&self.switches);
            self.publish_switches();
        }
        if self.doors.tick(&self.settings.config).await {
            self.publish_switches();
        }
        if let Some(trouble) = self.doors.trouble() {
            self.record.error(&trouble);
            self.publish_health();
        }
        if self.monitor.health_told.elapsed() >= HEALTH_EVERY {
            self.publish_health();
        }
        let status = self.status();
        if status != self.monitor.status {
            systemd::status(&status);
            self.monitor.status = status;
        }
    }

    /// Does less while the board is hot or short of memory, and says so.
    fn look_at_the_board(&mut self) {
        let before = self.monitor.degraded.clone();
        let vitals = Vitals::read(&self.options.board_root);
        self.monitor
            .degraded
            .update(&vitals, &self.settings.config.degrade);
        if self.monitor.degraded == before {
            return;
        }
        let reasons = self.monitor.degraded.reasons();
        if reasons.is_empty() {
            log::info!("the board is well again: everything is used");
        } else {
            log::warn!(
                "{}: fewer threads, no captions of motion, and the slice of [matformer] degraded_slice",
                reasons.join(", ")
            );
            let dropped = self.queue.unasked_captions().len();
            self.record.queues.dropped_captions += dropped as u64;
        }
        self.settings = Arc::new(
            self.settings
                .for_board(&self.switches, self.monitor.degraded.is_degraded()),
        );
        self.doors.publish(&Report::Matformer(self.slice()));
        self.publish_health();
    }

    pub(super) fn publish_health(&mut self) {
        self.monitor.health_told = Instant::now();
        let state = if self.monitor.degraded.is_degraded() {
            "degraded"
        } else {
            "ready"
        };
        let health = self.health(state);
        self.doors.publish(&Report::Health(Box::new(health)));
    }

    pub(super) fn health(&self, state: &str) -> crate::report::Health {
        let health = self.record.health(
            &self.options.board_root,
            state,
            &self.monitor.degraded,
            self.queue.len(),
            self.doors.mqtt_health(),
        );
        crate::report::Health {
            fleet: self.fleet.health(),
            ..health
        }
    }

    /// Every state that stays: for the start, and for a bus that came back.
    pub(super) fn publish_switches(&mut self) {
        let config = &self.settings.config;
        let mut reports = self.devices.states();
        reports.extend(config.camera.iter().map(|camera| Report::Captions {
            id: camera.id.clone(),
            enabled: self.switches.has_captions(&camera.id),
        }));
        let wakes = |it: &&MicrophoneOptions| it.trigger == Trigger::WakeWord;
        reports.extend(
            config
                .microphone
                .iter()
                .filter(wakes)
                .map(|it| Report::Wake {
                    id: it.id.clone(),
                    on: self.switches.wakes(&it.id),
                }),
        );
        reports.push(Report::Matformer(self.slice()));
        reports.push(Report::MaxTokens(self.settings.max_tokens));
        if config.speaker.device.is_some() {
            reports.push(Report::Volume(self.switches.volume(&config.speaker)));
        }
        for report in reports {
            self.doors.publish(&report);
        }
    }

    /// The one line that `systemctl status` shows.
    pub(super) fn status(&self) -> String {
        let sources = self.devices.status();
        let degraded = match self.monitor.degraded().reasons() {
            reasons if reasons.is_empty() => String::new(),
            reasons => format!("; degraded: {}", reasons.join(", ")),
        };
        let groups = self.record.memory.iter();
        let resident: u64 = groups.map(|group| group.resident_bytes).sum();
        format!(
            "{sources}; {}; {} {} ({}), {} MiB of weights resident{degraded}",
            self.doors.status(&self.settings.config),
            self.loaded.model,
            self.loaded.quantisation,
            self.settings.matformer.as_deref().unwrap_or("whole model"),
            resident >> 20,
        )
    }

    /// The slice that answers unless a request names one.
    pub(super) fn slice(&self) -> String {
        let whole = || self.loaded.slices.first().cloned().unwrap_or_default();
        self.settings.matformer.clone().unwrap_or_else(whole)
    }
}
