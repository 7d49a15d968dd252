//! How everything is, kept from what the daemon tells, for a page that has just been opened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::events::{self, Event};
use crate::media::DeviceState;
use crate::publish::http::Shared;
use crate::publish::http::answer::{ask, json as answered};
use crate::publish::http::fault::Fault;
use crate::publish::mqtt;
use crate::report::{Payload, Report};

/// What was heard and seen before the page was opened, and is still shown.
const RECENT: usize = 50;

/// How memory was: an hour where it is told each minute, and as much again for when something changes.
const SAMPLES: usize = 120;

/// Events that may wait for a page; a slower one misses some.
const WAITING: usize = 256;

/// A microphone, a camera or the speaker, as it was told last.
#[derive(Debug, Default)]
struct Device {
    state: &'static str,
    reason: Option<String>,
    /// Whether somebody or the board speaks, or something moves.
    active: bool,
    captions: bool,
}

#[derive(Debug, Default)]
struct Known {
    microphones: BTreeMap<String, Device>,
    cameras: BTreeMap<String, Device>,
    speaker: Device,
    pictures: BTreeMap<String, Shown>,
    recent: VecDeque<Event>,
    memory: VecDeque<Value>,
}

/// A picture that may be shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// As in the event that told of it.
    pub(super) sha256: String,
    /// JPEG or PNG.
    pub(super) picture: Arc<[u8]>,
}

/// What is known, and who hears of more.
#[derive(Debug)]
pub(in crate::publish::http) struct State {
    known: Mutex<Known>,
    events: broadcast::Sender<Event>,
}

fn state_of(state: &DeviceState, off: &'static str) -> (&'static str, Option<String>) {
    let reason = match state {
        DeviceState::Offline { reason } => Some(reason.clone()),
        DeviceState::Online | DeviceState::Off => None,
    };
    (state.name(off), reason)
}

impl State {
    pub(in crate::publish::http) fn new() -> State {
        State {
            known: Mutex::default(),
            events: broadcast::Sender::new(WAITING),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what happened, and tells every page.
    pub(in crate::publish::http) fn take(&self, report: &Report) {
        let mut known = self.known();
        match report {
            Report::MicrophoneState { id, state } => {
                let device = known.microphones.entry(id.clone()).or_default();
                (device.state, device.reason) = state_of(state, "muted");
                if *state == DeviceState::Off {
                    // Whoever mutes does not want what was said to stay where it can be read.
                    known.recent.retain(|event| !event.is_heard_by(id));
                }
            }
            Report::Speech { id, speaking } => {
                known.microphones.entry(id.clone()).or_default().active = *speaking;
            }
            Report::CameraState { id, state } => {
                let device = known.cameras.entry(id.clone()).or_default();
                (device.state, device.reason) = state_of(state, "disabled");
            }
            Report::Motion { id, moving } => {
                known.cameras.entry(id.clone()).or_default().active = *moving;
            }
            Report::Captions { id, enabled } => {
                known.cameras.entry(id.clone()).or_default().captions = *enabled;
            }
            Report::SpeakerState(state) => {
                (known.speaker.state, known.speaker.reason) = state_of(state, "off");
            }
            Report::Speaking(speaking) => known.speaker.active = *speaking,
            // One that is gone is wrong no more.
            Report::Info(info) if info.speaker.is_none() => known.speaker = Device::default(),
            Report::Caption {
                event,
                image: Some(image),
            } => {
                let shown = Shown {
                    sha256: event.image_sha256.clone(),
                    picture: Arc::clone(image),
                };
                known.pictures.insert(event.source.clone(), shown);
            }
            Report::Health(health) => {
                known.memory.truncate(SAMPLES - 1);
                known.memory.push_front(json!({
                    "ts": health.ts, "rss_mib": health.rss_mib, "groups": health.memory_groups_mib,
                }));
            }
            _ => {}
        }
        let Some(event) = events::of(report) else {
            return;
        };
        if event.stays() {
            known.recent.truncate(RECENT - 1);
            known.recent.push_front(event.clone());
        }
        drop(known);
        // Nobody may be listening.
        self.events.send(event).ok();
    }

    /// What happens from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The last picture of a camera.
    pub(super) fn picture(&self, camera: &str) -> Option<Shown> {
        self.known().pictures.get(camera).cloned()
    }
}

/// What is wrong, and what to do: as far as the running program knows. `gemmad doctor` looks deeper.
fn doctor(known: &Known, health: &Value) -> Vec<Value> {
    let mut findings = Vec::new();
    let mut add = |check: &str, found: &str, advice: &str| {
        findings
            .push(json!({ "check": check, "state": "warning", "found": found, "advice": advice }));
    };
    for reason in health["degraded"].as_array().into_iter().flatten() {
        let advice = "less is done until it is well: cool it, or give it more memory";
        add("board", reason.as_str().unwrap_or_default(), advice);
    }
    let devices = [
        ("microphone", &known.microphones),
        ("camera", &known.cameras),
    ];
    let advice = "see what `gemmad doctor` and `gemmad devices` say on the board";
    for (what, devices) in devices {
        for (id, device) in devices {
            if let Some(reason) = &device.reason {
                add(&format!("{what} {id}"), reason, advice);
            }
        }
    }
    if let Some(reason) = &known.speaker.reason {
        add("speaker", reason, advice);
    }
    findings
}

pub(super) async fn state(
    extract::State(shared): extract::State<Arc<Shared>>,
) -> Result<Response, Fault> {
    let health = Value::Object(ask(&shared, Payload::Stats)?.whole().await?.details);
    let info = shared.info().clone();
    let known = shared.page.known();
    let nothing = Device::default();
    let microphones = info.microphones.iter().map(|microphone| {
        let device = known.microphones.get(&microphone.id).unwrap_or(&nothing);
        json!({
            "id": microphone.id, "name": microphone.name, "state": device.state, "reason": device.reason,
            "muted": device.state == "muted", "speech": device.active, "wakes": microphone.wakes,
        })
    });
    let cameras = info.cameras.iter().map(|camera| {
        let device = known.cameras.get(&camera.id).unwrap_or(&nothing);
        json!({
            "id": camera.id, "name": camera.name, "state": device.state, "reason": device.reason,
            "enabled": device.state != "disabled", "motion": device.active, "captions": device.captions,
            "has_picture": known.pictures.contains_key(&camera.id),
        })
    });
    let speaker = info.speaker.as_ref().map(|_| {
        let device = &known.speaker;
        json!({ "state": device.state, "reason": device.reason, "speaking": device.active })
    });
    Ok(answered(&json!({
        "name": mqtt::host_name(),
        "version": info.version,
        "model": shared.card.name,
        "models": crate::publish::http::names::all(&shared.card),
        "modalities": { "vision": shared.card.sees, "audio": shared.card.hears },
        "listen": shared.options.listen.to_string(),
        "url": shared.options.url_for_others(),
        "has_key": shared.key.is_some(),
        "info": info,
        "microphones": microphones.collect::<Vec<_>>(),
        "cameras": cameras.collect::<Vec<_>>(),
        "speaker": speaker,
        "health": health,
        "queue": health["queues"],
        "memory": known.memory.iter().rev().collect::<Vec<_>>(),
        "doctor": doctor(&known, &health),
        "recent": known.recent.iter().map(Event::value).collect::<Vec<_>>(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{EventType, Health, ReportTiming, SCHEMA, VoiceEvent};

    fn heard(microphone: &str) -> Report {
        Report::Voice(Box::new(VoiceEvent {
            schema: SCHEMA,
            id: "01".to_owned(),
            event_type: EventType::Transcript,
            ts: String::new(),
            clock_synced: true,
            source: microphone.to_owned(),
            wake_word: None,
            conversation: None,
            language: "English".to_owned(),
            text: Some("words".to_owned()),
            command: None,
            commands: Vec::new(),
            confidence: None,
            audio_s: 1.0,
            truncated: false,
            reason: None,
            model: String::new(),
            matformer: String::new(),
            timing: ReportTiming::default(),
        }))
    }

    #[test]
    fn a_muted_microphone_leaves_no_words() {
        let state = State::new();
        state.take(&heard("kitchen"));
        state.take(&heard("hall"));
        state.take(&Report::MicrophoneState {
            id: "kitchen".to_owned(),
            state: DeviceState::Off,
        });
        let recent: Vec<Value> = state.known().recent.iter().map(Event::value).collect();
        let [event] = recent.as_slice() else {
            unreachable!("{recent:?}")
        };
        assert_eq!(event["data"]["source"], "hall");
    }

    #[test]
    fn memory_is_kept_within_a_bound_the_newest_first() {
        let state = State::new();
        for minute in 0..SAMPLES + 5 {
            let health = Health {
                ts: minute.to_string(),
                ..Health::default()
            };
            state.take(&Report::Health(Box::new(health)));
        }
        let known = state.known();
        assert_eq!(known.memory.len(), SAMPLES);
        assert_eq!(known.memory[0]["ts"], (SAMPLES + 4).to_string());
    }
}
