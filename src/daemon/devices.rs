//! Microphones and cameras: their threads, what they were started with, and how they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::Event;
use super::state::Switches;
use crate::capture::options::{CameraOptions, MicrophoneOptions};
use crate::capture::{Camera, EventSink, Microphone};
use crate::config::Config;
use crate::media::{CameraControl, DeviceState, MicrophoneControl};
use crate::report::{Header, Report, Wish};

/// How long microphones and cameras may take to close, and how often it is looked whether they have.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A microphone's thread, what it was started with, and how it is.
pub(super) struct Ear {
    config: MicrophoneOptions,
    thread: Microphone,
    pub(super) state: DeviceState,
    /// The job of what somebody says now.
    pub(super) utterance: Option<String>,
}

/// A camera's thread, what it was started with, and how it is.
pub(super) struct Eye {
    config: CameraOptions,
    thread: Camera,
    pub(super) state: DeviceState,
    /// Something moves.
    pub(super) moving: bool,
}

/// A picture that was asked for.
pub(super) struct Snapshot {
    camera: String,
    pub(super) asker: Header,
    pub(super) wish: Wish,
}

/// The devices that are configured.
pub(super) struct Devices {
    pub(super) ears: BTreeMap<String, Ear>,
    pub(super) eyes: BTreeMap<String, Eye>,
    events: mpsc::Sender<Event>,
    /// Some that were taken out, or changed, do not let go of their devices yet.
    is_closing: bool,
    /// Pictures that were asked for and have not come yet.
    snapshots: BTreeMap<u64, Snapshot>,
    next_snapshot: u64,
}

impl Devices {
    pub(super) fn start(
        config: &Config,
        switches: &Switches,
        events: mpsc::Sender<Event>,
    ) -> Devices {
        let mut devices = Devices {
            ears: BTreeMap::new(),
            eyes: BTreeMap::new(),
            events,
            is_closing: false,
            snapshots: BTreeMap::new(),
            next_snapshot: 0,
        };
        devices.start_new(config, switches);
        devices
    }

    fn sink(&self) -> EventSink {
        let events = self.events.clone();
        Box::new(move |event| events.blocking_send(Event::Captured(event)).is_ok())
    }

    /// Starts what is configured and does not run.
    fn start_new(&mut self, config: &Config, switches: &Switches) {
        for microphone in &config.microphone {
            let id = &microphone.id;
            if self.ears.contains_key(id) {
                continue;
            }
            let muted = switches.is_muted(id);
            match Microphone::start(microphone.clone(), muted, self.sink()) {
                Ok(thread) => {
                    let ear = Ear {
                        config: microphone.clone(),
                        thread,
                        state: DeviceState::default(),
                        utterance: None,
                    };
                    self.ears.insert(id.clone(), ear);
                }
                Err(error) => log::error!(source = id.as_str(); "cannot start a thread: {error}"),
            }
        }
        for camera in &config.camera {
            let id = &camera.id;
            if self.eyes.contains_key(id) {
                continue;
            }
            let (enabled, captions) = (switches.is_enabled(id), switches.has_captions(id));
            let limits = config.limits.image;
            match Camera::start(camera.clone(), limits, enabled, captions, self.sink()) {
                Ok(thread) => {
                    let eye = Eye {
                        config: camera.clone(),
                        thread,
                        state: DeviceState::default(),
                        moving: false,
                    };
                    self.eyes.insert(id.clone(), eye);
                }
                Err(error) => log::error!(source = id.as_str(); "cannot start a thread: {error}"),
            }
        }
    }

    /// Jobs of what is being said at microphones that are configured no more, or otherwise.
    pub(super) fn broken_off(&self, config: &Config) -> Vec<String> {
        let goes = |ear: &&Ear| !config.microphone.contains(&ear.config);
        let ears = self.ears.values().filter(goes);
        ears.filter_map(|ear| ear.utterance.clone()).collect()
    }

    /// Ends what is configured no more, or otherwise; [`Event::Closed`] follows once their devices are free. Gives those who asked
    /// for pictures that will not come.
    pub(super) fn close_others(&mut self, config: &Config) -> Vec<Header> {
        let same_ear = |ear: &Ear| config.microphone.contains(&ear.config);
        let same_eye = |eye: &Eye| config.camera.contains(&eye.config);
        let ears = std::mem::take(&mut self.ears);
        let (stay, ears) = ears.into_iter().partition(|(_, ear)| same_ear(ear));
        self.ears = stay;
        let eyes = std::mem::take(&mut self.eyes);
        let (stay, eyes) = eyes.into_iter().partition(|(_, eye)| same_eye(eye));
        self.eyes = stay;
        self.is_closing = true;
        let events = self.events.clone();
        tokio::spawn(async move {
            stop_threads(ears, eyes).await;
            events.send(Event::Closed).await.ok();
        });
        self.unseen()
    }

    /// Whether [`Event::Closed`] is still to come.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Starts what is configured, now that the devices are free.
    pub(super) fn open_others(&mut self, config: &Config, switches: &Switches) {
        self.is_closing = false;
        self.start_new(config, switches);
    }

    /// Ends all of them. Gives those who asked for pictures that will not come.
    pub(super) async fn stop(&mut self) -> Vec<Header> {
        let ears = std::mem::take(&mut self.ears);
        let eyes = std::mem::take(&mut self.eyes);
        stop_threads(ears, eyes).await;
        self.unseen()
    }

    /// Forgets the pictures of cameras that do not run.
    fn unseen(&mut self) -> Vec<Header> {
        let snapshots = std::mem::take(&mut self.snapshots);
        let runs = |snapshot: &Snapshot| self.eyes.contains_key(&snapshot.camera);
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = snapshots
            .into_iter()
            .partition(|(_, snapshot)| runs(snapshot));
        self.snapshots = stay;
        gone.into_values().map(|snapshot| snapshot.asker).collect()
    }

    /// In words, for the status line.
    pub(super) fn status(&self) -> String {
        let online = |state: &DeviceState| *state == DeviceState::Online;
        let listening = self.ears.iter().filter(|(_, ear)| online(&ear.state));
        let listening: Vec<&str> = listening.map(|(id, _)| id.as_str()).collect();
        let watching = self.eyes.iter().filter(|(_, eye)| online(&eye.state));
        let watching: Vec<&str> = watching.map(|(id, _)| id.as_str()).collect();
        let list = |verb: &str, names: &[&str], all: usize, nouns: &str| match (names.len(), all) {
            (_, 0) => format!("no {nouns} configured"),
            (0, all) => format!("none of {all} {nouns} online"),
            _ => format!("{verb} {}", names.join(", ")),
        };
        format!(
            "{}; {}",
            list("listening on", &listening, self.ears.len(), "microphones"),
            list("watching", &watching, self.eyes.len(), "cameras")
        )
    }

    /// Tells a microphone something; whether there is such a microphone.
    pub(super) fn control_microphone(&self, id: &str, control: MicrophoneControl) -> bool {
        let ear = self.ears.get(id);
        if let Some(ear) = ear {
            ear.thread.control(control);
        }
        ear.is_some()
    }

    /// Tells a camera something; whether there is such a camera.
    pub(super) fn control_camera(&self, id: &str, control: CameraControl) -> bool {
        let eye = self.eyes.get(id);
        if let Some(eye) = eye {
            eye.thread.control(control);
        }
        eye.is_some()
    }

    /// Asks a camera for a picture; whether there is such a camera.
    pub(super) fn snapshot(&mut self, camera: &str, asker: Header, wish: Wish) -> bool {
        let number = self.next_snapshot;
        let known = self.control_camera(camera, CameraControl::Snapshot(number));
        if known {
            let camera = camera.to_owned();
            self.next_snapshot += 1;
            self.snapshots.insert(
                number,
                Snapshot {
                    camera,
                    asker,
                    wish,
                },
            );
        }
        known
    }

    /// The picture with this number is there, or will not come; nothing where nobody waits for it any more.
    pub(super) fn take_snapshot(&mut self, number: u64) -> Option<Snapshot> {
        self.snapshots.remove(&number)
    }

    /// Pictures that are waited for: bounded like other requests.
    pub(super) fn waiting_snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Forgets a picture that was asked for, by the job's id.
    pub(super) fn cancel_snapshot(&mut self, job: &str) -> Option<Header> {
        let is_it = |snapshot: &Snapshot| snapshot.asker.id == job;
        let mut snapshots = self.snapshots.iter();
        let number = snapshots.find_map(|(number, snapshot)| is_it(snapshot).then_some(*number))?;
        self.take_snapshot(number).map(|snapshot| snapshot.asker)
    }

    /// Every state, for a broker or a bus that came back.
    pub(super) fn states(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for (id, ear) in &self.ears {
            let (id, state, speaking) = (id.clone(), ear.state.clone(), ear.utterance.is_some());
            let speech = Report::Speech {
                id: id.clone(),
                speaking,
            };
            reports.extend([Report::MicrophoneState { id, state }, speech]);
        }
        for (id, eye) in &self.eyes {
            let (id, state, moving) = (id.clone(), eye.state.clone(), eye.moving);
            let motion = Report::Motion {
                id: id.clone(),
                moving,
            };
            reports.extend([Report::CameraState { id, state }, motion]);
        }
        reports
    }
}

/// Asks all of them to end, then waits beside the loop, on no thread of its own: the system may have none left. A device may take a
/// moment, and its last events must find the loop.
async fn stop_threads(ears: BTreeMap<String, Ear>, eyes: BTreeMap<String, Eye>) {
    for ear in ears.values() {
        ear.thread.control(MicrophoneControl::Stop);
    }
    for eye in eyes.values() {
        eye.thread.control(CameraControl::Stop);
    }
    let hold = || {
        let ears = ears.iter().filter(|(_, ear)| !ear.thread.has_ended());
        let eyes = eyes.iter().filter(|(_, eye)| !eye.thread.has_ended());
        let ids = ears.map(|(id, _)| id).chain(eyes.map(|(id, _)| id));
        ids.map(String::as_str).collect::<Vec<&str>>()
    };
    let until = Instant::now() + CLOSES_WITHIN;
    while !hold().is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    for source in hold() {
        log::warn!(source; "{source} does not let go of its device, and is left");
    }
}
