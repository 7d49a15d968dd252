//! Microphones, cameras and the speaker: their threads, what they were started with, and how they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::dialogue::Dialogue;
use super::event::Event;
use super::settling::{Claims, Pending};
use super::speaking::RunningSpeaker;
use super::state::Switches;
use crate::capture::options::{CameraOptions, MicrophoneOptions};
use crate::capture::{Camera, EventSink, Microphone, Speaker};
use crate::config::Config;
use crate::media::{CameraControl, DeviceState, MicrophoneControl, Rest, SpeakerControl, Talking};
use crate::report::{Header, Report, Wish};

/// How long microphones and cameras may take to close, and how often it is looked whether they have.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A microphone's thread, what it was started with, and how it is.
pub(super) struct RunningMicrophone {
    config: MicrophoneOptions,
    thread: Microphone,
    is_left: Arc<AtomicBool>,
    pub(super) state: DeviceState,
    /// The job of what somebody says now.
    pub(super) utterance: Option<String>,
    pub(super) dialogue: Dialogue,
    /// A wake word of which it is not settled yet who answers.
    pub(super) pending: Option<Pending>,
    /// The wake word that was said last, until what followed it is over.
    pub(super) woken: Option<String>,
}

/// A camera's thread, what it was started with, and how it is.
pub(super) struct RunningCamera {
    config: CameraOptions,
    thread: Camera,
    is_left: Arc<AtomicBool>,
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
    pub(super) microphones: BTreeMap<String, RunningMicrophone>,
    pub(super) cameras: BTreeMap<String, RunningCamera>,
    pub(super) speaker: Option<RunningSpeaker>,
    pub(super) claims: Claims,
    /// For microphones: whether the speaker speaks.
    talking: Arc<Talking>,
    pub(super) events: mpsc::Sender<Event>,
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
            microphones: BTreeMap::new(),
            cameras: BTreeMap::new(),
            speaker: None,
            claims: Claims::default(),
            talking: Arc::default(),
            events,
            is_closing: false,
            snapshots: BTreeMap::new(),
            next_snapshot: 0,
        };
        devices.start_new(config, switches);
        devices
    }

    /// Where a thread tells what it takes in, until it is left: what it would say then would be taken for its successor's.
    fn sink(&self, is_left: &Arc<AtomicBool>) -> EventSink {
        let (events, is_left) = (self.events.clone(), Arc::clone(is_left));
        Box::new(move |event| {
            !is_left.load(Ordering::Acquire) && events.blocking_send(Event::Captured(event)).is_ok()
        })
    }

    /// Starts what is configured and does not run.
    fn start_new(&mut self, config: &Config, switches: &Switches) {
        for microphone in &config.microphone {
            let id = &microphone.id;
            if self.microphones.contains_key(id) {
                continue;
            }
            let muted = switches.is_muted(id);
            let is_left = Arc::default();
            let (talking, sink) = (Arc::clone(&self.talking), self.sink(&is_left));
            match Microphone::start(microphone.clone(), muted, talking, sink) {
                Ok(thread) => {
                    thread.control(MicrophoneControl::Wake(switches.wakes(id)));
                    let microphone = RunningMicrophone {
                        config: microphone.clone(),
                        thread,
                        is_left,
                        state: DeviceState::default(),
                        utterance: None,
                        woken: None,
                        pending: None,
                        dialogue: Dialogue::default(),
                    };
                    self.microphones.insert(id.clone(), microphone);
                }
                Err(error) => log::error!(source = id.as_str(); "cannot start a thread: {error}"),
            }
        }
        self.start_speaker(config, switches);
        for camera in &config.camera {
            let id = &camera.id;
            if self.cameras.contains_key(id) {
                continue;
            }
            let (enabled, captions) = (switches.is_enabled(id), switches.has_captions(id));
            let limits = config.limits.image;
            let is_left = Arc::default();
            let sink = self.sink(&is_left);
            match Camera::start(camera.clone(), limits, enabled, captions, sink) {
                Ok(thread) => {
                    let camera = RunningCamera {
                        config: camera.clone(),
                        thread,
                        is_left,
                        state: DeviceState::default(),
                        moving: false,
                    };
                    self.cameras.insert(id.clone(), camera);
                }
                Err(error) => log::error!(source = id.as_str(); "cannot start a thread: {error}"),
            }
        }
    }

    fn start_speaker(&mut self, config: &Config, switches: &Switches) {
        let options = &config.speaker;
        if self.speaker.is_some() || options.device.is_none() {
            return;
        }
        let is_left = Arc::default();
        let (talking, sink) = (Arc::clone(&self.talking), self.sink(&is_left));
        match Speaker::start(options.clone(), switches.volume(options), talking, sink) {
            Ok(thread) => {
                self.speaker = Some(RunningSpeaker::new(options.clone(), thread, is_left));
            }
            Err(error) => log::error!("cannot start a thread for the speaker: {error}"),
        }
    }

    /// Microphones that are configured no more, or otherwise.
    pub(super) fn going(&self, config: &Config) -> Vec<String> {
        let microphones = self.microphones.iter();
        microphones
            .filter(|(_, microphone)| !config.microphone.contains(&microphone.config))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Ends what is configured no more, or otherwise; [`Event::Closed`] follows once their devices are free. Gives those who asked
    /// for pictures that will not come.
    pub(super) fn close_others(&mut self, config: &Config) -> Vec<Header> {
        let same_microphone =
            |microphone: &RunningMicrophone| config.microphone.contains(&microphone.config);
        let same_camera = |camera: &RunningCamera| config.camera.contains(&camera.config);
        let microphones = std::mem::take(&mut self.microphones);
        let (stay, microphones) = microphones
            .into_iter()
            .partition(|(_, microphone)| same_microphone(microphone));
        self.microphones = stay;
        let cameras = std::mem::take(&mut self.cameras);
        let (stay, cameras) = cameras
            .into_iter()
            .partition(|(_, camera)| same_camera(camera));
        self.cameras = stay;
        let mut speaker = self.speaker.take_if(|it| it.options != config.speaker);
        let unheard = speaker.as_mut().map(|it| it.askers().collect());
        if speaker.is_some() {
            // One that hangs in its driver says so no more.
            self.talking.set(Rest::Silent);
        }
        self.is_closing = true;
        let events = self.events.clone();
        tokio::spawn(async move {
            stop_threads(microphones, cameras, speaker).await;
            events.send(Event::Closed).await.ok();
        });
        let mut gone: Vec<Header> = unheard.unwrap_or_default();
        gone.extend(self.unseen());
        gone
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

    /// Ends all of them. Gives those who asked for pictures that will not come, or for something that will not be said.
    pub(super) async fn stop(&mut self) -> Vec<Header> {
        let microphones = std::mem::take(&mut self.microphones);
        let cameras = std::mem::take(&mut self.cameras);
        let mut speaker = self.speaker.take();
        let unheard = speaker.as_mut().map(|it| it.askers().collect());
        stop_threads(microphones, cameras, speaker).await;
        let mut gone: Vec<Header> = unheard.unwrap_or_default();
        gone.extend(self.unseen());
        gone
    }

    /// Forgets the pictures of cameras that do not run.
    fn unseen(&mut self) -> Vec<Header> {
        let snapshots = std::mem::take(&mut self.snapshots);
        let runs = |snapshot: &Snapshot| self.cameras.contains_key(&snapshot.camera);
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = snapshots
            .into_iter()
            .partition(|(_, snapshot)| runs(snapshot));
        self.snapshots = stay;
        gone.into_values().map(|snapshot| snapshot.asker).collect()
    }

    /// In words, for the status line.
    pub(super) fn status(&self) -> String {
        let online = |state: &DeviceState| *state == DeviceState::Online;
        let listening = self
            .microphones
            .iter()
            .filter(|(_, microphone)| online(&microphone.state));
        let listening: Vec<&str> = listening.map(|(id, _)| id.as_str()).collect();
        let watching = self
            .cameras
            .iter()
            .filter(|(_, camera)| online(&camera.state));
        let watching: Vec<&str> = watching.map(|(id, _)| id.as_str()).collect();
        let list = |verb: &str, names: &[&str], all: usize, nouns: &str| match (names.len(), all) {
            (_, 0) => format!("no {nouns} configured"),
            (0, all) => format!("none of {all} {nouns} online"),
            _ => format!("{verb} {}", names.join(", ")),
        };
        format!(
            "{}; {}",
            list(
                "listening on",
                &listening,
                self.microphones.len(),
                "microphones"
            ),
            list("watching", &watching, self.cameras.len(), "cameras")
        )
    }

    /// Tells a microphone something; whether there is such a microphone.
    pub(super) fn control_microphone(&self, id: &str, control: MicrophoneControl) -> bool {
        let microphone = self.microphones.get(id);
        if let Some(microphone) = microphone {
            microphone.thread.control(control);
        }
        microphone.is_some()
    }

    /// Tells a camera something; whether there is such a camera.
    pub(super) fn control_camera(&self, id: &str, control: CameraControl) -> bool {
        let camera = self.cameras.get(id);
        if let Some(camera) = camera {
            camera.thread.control(control);
        }
        camera.is_some()
    }

    /// Ends a speech; whether there is such a one.
    pub(super) fn silence(&self, job: &str) -> bool {
        let speaker = self.speaker.as_ref();
        speaker.is_some_and(|speaker| speaker.silence(job))
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
        for (id, microphone) in &self.microphones {
            let (id, state, speaking) = (
                id.clone(),
                microphone.state.clone(),
                microphone.utterance.is_some(),
            );
            let speech = Report::Speech {
                id: id.clone(),
                speaking,
            };
            reports.extend([Report::MicrophoneState { id, state }, speech]);
        }
        for (id, camera) in &self.cameras {
            let (id, state, moving) = (id.clone(), camera.state.clone(), camera.moving);
            let motion = Report::Motion {
                id: id.clone(),
                moving,
            };
            reports.extend([Report::CameraState { id, state }, motion]);
        }
        if let Some(speaker) = &self.speaker {
            reports.push(Report::SpeakerState(speaker.state.clone()));
            reports.push(Report::Speaking(speaker.speaking));
        }
        reports
    }
}

/// Asks all of them to end, then waits beside the loop, on no thread of its own: the system may have none left. A device may take a
/// moment, and its last events must find the loop.
async fn stop_threads(
    microphones: BTreeMap<String, RunningMicrophone>,
    cameras: BTreeMap<String, RunningCamera>,
    speaker: Option<RunningSpeaker>,
) {
    if let Some(speaker) = &speaker {
        speaker.thread.control(SpeakerControl::Stop);
    }
    for microphone in microphones.values() {
        microphone.thread.control(MicrophoneControl::Stop);
    }
    for camera in cameras.values() {
        camera.thread.control(CameraControl::Stop);
    }
    let hold = || {
        let microphones = microphones
            .iter()
            .filter(|(_, microphone)| !microphone.thread.has_ended());
        let cameras = cameras
            .iter()
            .filter(|(_, camera)| !camera.thread.has_ended());
        let ids = microphones
            .map(|(id, _)| id)
            .chain(cameras.map(|(id, _)| id));
        let speaker = speaker.iter().filter(|it| !it.thread.has_ended());
        let speaker = speaker.map(|_| "speaker");
        ids.map(String::as_str)
            .chain(speaker)
            .collect::<Vec<&str>>()
    };
    let until = Instant::now() + CLOSES_WITHIN;
    while !hold().is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    let left = microphones.values().map(|microphone| &microphone.is_left);
    let left = left.chain(cameras.values().map(|camera| &camera.is_left));
    let left = left.chain(speaker.iter().map(|speaker| &speaker.is_left));
    left.for_each(|is_left| is_left.store(true, Ordering::Release));
    for source in hold() {
        log::warn!(source; "{source} does not let go of its device, and is left");
    }
}
