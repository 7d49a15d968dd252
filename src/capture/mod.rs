//! Microphones, cameras and the speaker: each is one thread, which opens its device, tells what happens there, survives its going, and
//! closes it when told to.

mod access;
mod camera;
mod card;
mod digest;
mod frigate;
mod level;
mod listener;
mod microphone;
pub mod motion;
mod occasion;
pub mod options;
mod pace;
mod picture;
mod recording;
mod replay;
mod source;
mod speaker;
pub mod speech;
mod spotter;
mod still;
mod supervise;
mod trial;
mod watcher;

use std::io;
use std::sync::Arc;

use crate::features::image::ImageLimits;
use crate::media::{
    CameraControl, CameraEvent, CaptureEvent, MicrophoneControl, MicrophoneEvent, Talking,
};
use listener::{Listener, Sound};
use microphone::Pcm;
use options::{CameraOptions, MicrophoneOptions, MicrophoneType};
use recording::Recording;
use supervise::{Supervised, Teller, Unavailable};
use watcher::Watcher;

pub use camera::{CameraAbout, CameraDevice, CameraFormat, cameras};
pub use microphone::{MicrophoneDevice, SampleFormats, microphones};
pub use speaker::{Speaker, SpeakerDevice, speakers, try_speaker};
pub use trial::{hear_all, hear_once, try_camera, try_microphone};

/// Where events go; false says that nobody takes them any more, and ends the thread.
///
/// It is called on the device's thread: while it blocks, the device is not read.
pub type EventSink = Box<dyn FnMut(CaptureEvent) -> bool + Send>;

/// Opens the source of sound that `config` names.
///
/// # Errors
/// It is not there, or cannot be used.
fn open_sound(config: &MicrophoneOptions) -> Result<Box<dyn Sound>, Unavailable> {
    Ok(match config.kind {
        MicrophoneType::Alsa => Box::new(Pcm::open(&config.device)?),
        MicrophoneType::Replay => Box::new(Recording::open(&config.device)?),
    })
}

/// A microphone that is listened to.
pub struct Microphone(Supervised<MicrophoneControl>);

impl Microphone {
    /// Starts listening, and rests while the speaker wants it. That the device is there is no condition:
    /// [`MicrophoneEvent::State`] tells.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        config: MicrophoneOptions,
        muted: bool,
        talking: Arc<Talking>,
        events: EventSink,
    ) -> io::Result<Microphone> {
        let name = config.id.clone();
        let teller = Teller::new(
            name.clone(),
            |id, state| CaptureEvent::Microphone {
                id,
                event: MicrophoneEvent::State(state),
            },
            events,
        );
        let mut listener = Listener::new(config, muted, talking, teller, Box::new(open_sound));
        let run = move |controls: &_| listener.run(controls);
        Supervised::start(&name, run).map(Microphone)
    }

    /// Tells the thread what to do; it does so within a fifth of a second.
    pub fn control(&self, control: MicrophoneControl) {
        self.0.control(control);
    }

    /// Whether the thread, which was told to end, has.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    /// Ends the thread and waits for it, some seconds at most.
    pub fn stop(self) {
        self.control(MicrophoneControl::Stop);
        self.0.join();
    }
}

/// A camera that is watched.
pub struct Camera(Supervised<CameraControl>);

impl Camera {
    /// Starts watching; `captions` says whether pictures are given without being asked for. That the device is there is no
    /// condition: [`CameraEvent::State`] tells.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        config: CameraOptions,
        limits: ImageLimits,
        enabled: bool,
        captions: bool,
        events: EventSink,
    ) -> io::Result<Camera> {
        let name = config.id.clone();
        let teller = Teller::new(
            name.clone(),
            |id, state| CaptureEvent::Camera {
                id,
                event: CameraEvent::State(state),
            },
            events,
        );
        let mut watcher = Watcher::new(config, limits, enabled, captions, teller);
        let run = move |controls: &_| watcher.run(controls);
        Supervised::start(&name, run).map(Camera)
    }

    /// Tells the thread what to do; it does so within a fifth of a second, with `type = "http"` after the answer that it
    /// waits for.
    pub fn control(&self, control: CameraControl) {
        self.0.control(control);
    }

    /// Whether the thread, which was told to end, has.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    /// Ends the thread and waits for it, some seconds at most.
    pub fn stop(self) {
        self.control(CameraControl::Stop);
        self.0.join();
    }
}
