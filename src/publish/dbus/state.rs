//! What the objects on the bus show, and what is still to be told; the daemon writes here and never waits for the bus.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc};
use zbus::Variant;

use super::jobs::Jobs;
use super::options::DbusOptions;
use super::values::{Dict, text};
use crate::media::DeviceState;
use crate::report::{CaptionEvent, Health, Info, JobUpdate, Report, Request, VoiceEvent};

/// Signals that wait while the bus is slow; the oldest go first.
const MAX_SIGNALS: usize = 256;
/// Calls that are read at a time, of all users.
const MAX_CALLS: usize = 64;
/// Files that are read at a time.
const MAX_READS: usize = 8;

/// What the door's objects and its task share.
pub(super) struct Shared {
    pub(super) config: DbusOptions,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) calls: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
    /// There is something to tell.
    pub(super) changed: Notify,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(
        config: &DbusOptions,
        info: &Info,
        requests: mpsc::Sender<Request>,
    ) -> Shared {
        let mut state = State::default();
        state.set_info(info);
        Shared {
            config: config.clone(),
            requests,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            changed: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// Takes in what the daemon tells of a job that was asked for here.
    pub(super) fn update(&self, update: &JobUpdate) {
        if self.state().update(update) {
            self.changed.notify_one();
        }
    }

    /// The state, for a moment: nothing waits while it is held.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known, and the signals that were not sent yet.
#[derive(Default)]
pub(super) struct State {
    pub(super) shown: Shown,
    /// The picture of each camera that was described last.
    pub(super) pictures: BTreeMap<String, Arc<[u8]>>,
    pub(super) jobs: Jobs,
    pub(super) signals: VecDeque<Signal>,
    /// Signals that were dropped since the start.
    pub(super) dropped: u64,
}

/// A signal with contents; the rest follows from [`Shown`] and [`Jobs`].
pub(super) enum Signal {
    Voice(Box<VoiceEvent>),
    Caption(Box<CaptionEvent>),
    /// A piece of an answer, for the one who asked.
    Partial {
        job: String,
        text: String,
    },
}

/// Properties of all objects but jobs.
#[derive(Clone, Default)]
pub(super) struct Shown {
    pub(super) manager: ManagerShown,
    pub(super) microphones: BTreeMap<String, MicrophoneShown>,
    pub(super) cameras: BTreeMap<String, CameraShown>,
}

/// Properties of `org.gemmad1.Manager`.
#[derive(Clone)]
pub(super) struct ManagerShown {
    pub(super) version: String,
    pub(super) model: String,
    pub(super) matformer: String,
    pub(super) state: String,
    pub(super) queue_depth: u32,
    /// Bytes.
    pub(super) memory_groups: BTreeMap<String, u64>,
    pub(super) mqtt_connected: bool,
}

impl Default for ManagerShown {
    fn default() -> ManagerShown {
        ManagerShown {
            version: String::new(),
            model: String::new(),
            matformer: String::new(),
            state: "loading".to_owned(),
            queue_depth: 0,
            memory_groups: BTreeMap::new(),
            mqtt_connected: false,
        }
    }
}

/// Properties of `org.gemmad1.Microphone`.
#[derive(Clone)]
pub(super) struct MicrophoneShown {
    pub(super) name: String,
    pub(super) device: String,
    pub(super) state: DeviceState,
    pub(super) speaking: bool,
}

impl MicrophoneShown {
    pub(super) fn state_name(&self) -> &'static str {
        self.state.name("muted")
    }
}

/// Properties of `org.gemmad1.Camera`.
#[derive(Clone)]
pub(super) struct CameraShown {
    pub(super) name: String,
    pub(super) device: String,
    pub(super) state: DeviceState,
    pub(super) motion: bool,
    pub(super) captions: bool,
}

impl CameraShown {
    pub(super) fn state_name(&self) -> &'static str {
        self.state.name("disabled")
    }
}

/// Whose properties can be compared with those that were told last.
pub(super) trait Properties {
    /// Those that change, under their names on the bus.
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)>;

    /// What is to be told after `before` was.
    fn changed(&self, before: &Self) -> Dict {
        let both = self.properties().into_iter().zip(before.properties());
        let different = both.filter(|(now, before)| now != before);
        different
            .map(|((name, value), _)| (name.to_owned(), value))
            .collect()
    }
}

impl Properties for ManagerShown {
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        vec![
            ("Model", self.model.clone().into()),
            ("MatFormer", self.matformer.clone().into()),
            ("State", self.state.clone().into()),
            ("QueueDepth", self.queue_depth.into()),
            ("MemoryGroups", self.memory_groups.clone().into()),
            ("MqttConnected", self.mqtt_connected.into()),
        ]
    }
}

impl Properties for MicrophoneShown {
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        vec![
            ("Name", self.name.clone().into()),
            ("Device", self.device.clone().into()),
            ("State", self.state_name().into()),
            ("Speaking", self.speaking.into()),
            ("Muted", (self.state == DeviceState::Off).into()),
        ]
    }
}

impl Properties for CameraShown {
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        vec![
            ("Name", self.name.clone().into()),
            ("Device", self.device.clone().into()),
            ("State", self.state_name().into()),
            ("Enabled", (self.state != DeviceState::Off).into()),
            ("Motion", self.motion.into()),
            ("CaptionsEnabled", self.captions.into()),
        ]
    }
}

impl State {
    /// Takes in what the daemon tells; whether there is something to pass on.
    pub(super) fn apply(&mut self, report: &Report) -> bool {
        let Shown {
            manager,
            microphones,
            cameras,
        } = &mut self.shown;
        match report {
            Report::Info(info) => self.set_info(info),
            Report::Health(health) => manager.set_health(health),
            Report::Matformer(slice) => manager.matformer = text(slice),
            Report::Stopping => manager.state = "stopping".to_owned(),
            // Not shown on the bus; the log's own place is the journal, and a meter is read at the broker. Who asked on the bus is
            // told by the job's object.
            Report::Replied(_)
            | Report::Log(_)
            | Report::MaxTokens(_)
            | Report::SpeakerState(_)
            | Report::Speaking(_)
            | Report::Woken(_)
            | Report::Wake { .. }
            | Report::WakeScore { .. }
            | Report::LiveScore { .. }
            | Report::Volume(_)
            | Report::Level { .. }
            | Report::JobEnded(_) => {
                return false;
            }
            Report::MicrophoneState { id, state } => {
                if let Some(microphone) = microphones.get_mut(id) {
                    microphone.state = state.clone();
                }
            }
            Report::Speech { id, speaking } => {
                if let Some(microphone) = microphones.get_mut(id) {
                    microphone.speaking = *speaking;
                }
            }
            Report::CameraState { id, state } => {
                if let Some(camera) = cameras.get_mut(id) {
                    camera.state = state.clone();
                }
            }
            Report::Motion { id, moving } => {
                if let Some(camera) = cameras.get_mut(id) {
                    camera.motion = *moving;
                }
            }
            Report::Captions { id, enabled } => {
                if let Some(camera) = cameras.get_mut(id) {
                    camera.captions = *enabled;
                }
            }
            Report::Voice(event) => self.push(Signal::Voice(event.clone())),
            Report::Caption { event, image } => {
                if let Some(image) = image {
                    self.pictures.insert(event.source.clone(), image.clone());
                }
                self.push(Signal::Caption(event.clone()));
            }
        }
        true
    }

    /// Whether there is something to pass on of a job.
    fn update(&mut self, update: &JobUpdate) -> bool {
        let known = self.jobs.update(update);
        if let (true, Some(partial)) = (known, &update.partial) {
            self.push(Signal::Partial {
                job: update.header.id.clone(),
                text: text(partial),
            });
        }
        known
    }

    fn push(&mut self, signal: Signal) {
        if self.signals.len() == MAX_SIGNALS {
            self.signals.pop_front();
            self.dropped += 1;
        }
        self.signals.push_back(signal);
    }

    /// Microphones and cameras that stay keep their state.
    fn set_info(&mut self, info: &Info) {
        let Shown {
            manager,
            microphones,
            cameras,
        } = &mut self.shown;
        manager.version = text(&info.version);
        manager.model = text(&info.model);
        manager.matformer = text(&info.matformer);
        let mut before = std::mem::take(microphones);
        for found in &info.microphones {
            let known = before.remove(&found.id);
            let microphone = MicrophoneShown {
                name: text(&found.name),
                device: text(&found.device),
                state: known
                    .as_ref()
                    .map_or_else(DeviceState::default, |known| known.state.clone()),
                speaking: known.is_some_and(|known| known.speaking),
            };
            microphones.insert(found.id.clone(), microphone);
        }
        let mut before = std::mem::take(cameras);
        for found in &info.cameras {
            let known = before.remove(&found.id);
            let camera = CameraShown {
                name: text(&found.name),
                device: text(&found.device),
                state: known
                    .as_ref()
                    .map_or_else(DeviceState::default, |known| known.state.clone()),
                motion: known.as_ref().is_some_and(|known| known.motion),
                captions: known.is_some_and(|known| known.captions),
            };
            cameras.insert(found.id.clone(), camera);
        }
        self.pictures.retain(|id, _| cameras.contains_key(id));
    }
}

impl ManagerShown {
    fn set_health(&mut self, health: &Health) {
        self.state = text(&health.state);
        self.queue_depth = u32::try_from(health.queues.jobs).unwrap_or(u32::MAX);
        self.mqtt_connected = health.mqtt.connected;
        let bytes = |mib: f64| (mib * f64::from(1 << 20)).round() as u64;
        let groups = health.memory_groups_mib.iter();
        self.memory_groups = groups
            .map(|(group, mib)| (text(group), bytes(*mib)))
            .collect();
    }
}
