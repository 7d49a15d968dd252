//! Switches that people turn: whether one stands as it is wanted, and what turning it does.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinHandle;

use super::requests::{Source, error};
use super::{Daemon, job, speaking};
use crate::media::{CameraControl, MicrophoneControl, Sign, SpeakerControl};
use crate::report::{ErrorBody, ErrorCode, Report, Switch};

impl Daemon {
    /// Changes a switch, keeps it, and tells everybody. One that stands as it is wanted is left alone, and nobody is told.
    pub(super) fn switch(&mut self, switch: &Switch) -> Result<serde_json::Value, ErrorBody> {
        if self.stands(switch)? {
            return Ok(json!({ "unchanged": true }));
        }
        let report = match switch {
            Switch::Mute { id, muted } => {
                self.devices
                    .control_microphone(id, MicrophoneControl::Mute(*muted));
                self.switches.muted.insert(id.to_string(), *muted);
                let origin = job::origin_of_microphone(id);
                drop(self.forget_answers(Some(&origin)));
                if *muted {
                    self.sign(Sign::Muted);
                }
                None // its state follows when the device is closed or open
            }
            Switch::Wake { id, on } => {
                self.devices
                    .control_microphone(id, MicrophoneControl::Wake(*on));
                self.switches.wakes.insert(id.to_string(), *on);
                Some(Report::Wake {
                    id: id.to_string(),
                    on: *on,
                })
            }
            Switch::Enable { id, enabled } => {
                self.devices
                    .control_camera(id, CameraControl::Enable(*enabled));
                self.switches.enabled.insert(id.to_string(), *enabled);
                let origin = job::origin_of_camera(id);
                drop(self.forget_answers(Some(&origin)));
                None
            }
            Switch::Captions { id, enabled } => {
                self.devices
                    .control_camera(id, CameraControl::Captions(*enabled));
                self.switches.captions.insert(id.to_string(), *enabled);
                Some(Report::Captions {
                    id: id.to_string(),
                    enabled: *enabled,
                })
            }
            Switch::Matformer(name) => {
                self.switches.matformer = Some(name.to_string());
                Some(Report::Matformer(name.to_string()))
            }
            Switch::Volume(volume) => {
                if let Some(speaker) = &self.devices.speaker {
                    speaker.thread.control(SpeakerControl::Volume(*volume));
                }
                self.switches.volume = Some(*volume);
                Some(Report::Volume(*volume))
            }
            Switch::MaxTokens(tokens) => {
                self.switches.max_tokens = Some(*tokens);
                Some(Report::MaxTokens(*tokens))
            }
        };
        let kept = self.keeping.changed();
        if kept {
            self.state_file.save(&self.switches);
        }
        let degraded = self.monitor.degraded().is_degraded();
        self.settings = Arc::new(self.settings.for_board(&self.switches, degraded));
        // What could not be written yet is told with the next tick, which writes it.
        if let Some(report) = report.filter(|_| kept) {
            self.doors.publish(&report);
        }
        Ok(json!({}))
    }

    /// Whether a switch stands as it is wanted; an error where there is none, or no such value.
    fn stands(&self, switch: &Switch) -> Result<bool, ErrorBody> {
        let switches = &self.switches;
        Ok(match switch {
            Switch::Mute { id, muted } => {
                self.need_switch(Source::Microphone, id)?;
                switches.is_muted(id) == *muted
            }
            Switch::Wake { id, on } => {
                self.need_switch(Source::Microphone, id)?;
                switches.wakes(id) == *on
            }
            Switch::Enable { id, enabled } => {
                self.need_switch(Source::Camera, id)?;
                switches.is_enabled(id) == *enabled
            }
            Switch::Captions { id, enabled } => {
                self.need_switch(Source::Camera, id)?;
                switches.has_captions(id) == *enabled
            }
            Switch::Matformer(name) => {
                if !self.loaded.slices.contains(name) {
                    let slices = self.loaded.slices.join(", ");
                    let message = format!("the model has no slice {name:?}; it has {slices}");
                    return Err(error(ErrorCode::NotFound, message));
                }
                let configured = self.settings.config.matformer.slice.as_ref();
                let usual = (switches.matformer.as_ref())
                    .or(configured)
                    .or(self.loaded.slices.first());
                usual.is_some_and(|usual| *usual == **name)
            }
            Switch::Volume(volume) => {
                let speaker = &self.settings.config.speaker;
                if speaker.device.is_none() {
                    return Err(speaking::no_speaker());
                }
                if *volume > 100 {
                    let message = format!("volume {volume}: it must be 0 to 100 percent");
                    return Err(error(ErrorCode::Invalid, message));
                }
                switches.volume(speaker) == *volume
            }
            Switch::MaxTokens(tokens) => {
                let limit = self.settings.config.queue.max_tokens;
                if *tokens == 0 || *tokens > limit {
                    let message = format!(
                        "max_tokens {tokens}: it must be 1 to {limit} ([queue] max_tokens)"
                    );
                    return Err(error(ErrorCode::Invalid, message));
                }
                switches.max_tokens.unwrap_or(limit) == *tokens
            }
        })
    }

    /// Forgets what an origin was answered, or everybody. Gone from the disk as well is it once the task has ended: disks are slow.
    pub(super) fn forget_answers(&self, origin: Option<&str>) -> JoinHandle<()> {
        self.loaded.earlier.forget(origin);
        let earlier = self.loaded.earlier.clone();
        tokio::task::spawn_blocking(move || earlier.save())
    }
}
