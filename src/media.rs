//! Leaf data that travels between the rooms: what was heard and seen, before any model looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::utterance;

/// Rate at which the model hears, Hz: whoever takes in sound makes it so.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// The longest clip that the model hears at once, seconds.
pub const LONGEST_CLIP_S: u32 = 30;

/// A stretch of mono audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AudioClip {
    /// Samples, full scale being -1 to 1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate_hz: u32,
}

impl AudioClip {
    /// Length in seconds; 0 for a clip that has no rate.
    pub fn duration_s(&self) -> f64 {
        if self.sample_rate_hz == 0 {
            return 0.0;
        }
        self.samples.len() as f64 / f64::from(self.sample_rate_hz)
    }
}

/// How log-mel frames are made of sound: what a model was trained to hear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMelSpec {
    /// Mel bands in a frame.
    pub bands: usize,
    /// Samples that a frame looks at.
    pub window_samples: usize,
    /// Samples from the start of one frame to the start of the next.
    pub hop_samples: usize,
    /// Zeros in front of the clip.
    pub lead_samples: usize,
    /// Samples of the Fourier transform; behind the window there are zeros.
    pub fft_samples: usize,
    /// The end of a clip is padded with zeros to a multiple of this.
    pub pad_multiple_samples: usize,
    /// Share of the sample before that is subtracted.
    pub pre_emphasis: f64,
    /// Lower end of the first band.
    pub min_frequency_hz: f64,
    /// Upper end of the last band.
    pub max_frequency_hz: f64,
    /// What keeps the logarithm of silence finite.
    pub floor: MelFloor,
}

/// What keeps the logarithm of a band without energy finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MelFloor {
    /// The least energy that counts.
    Least(f64),
    /// Added to every energy.
    Added(f64),
}

impl MelFloor {
    /// The number, whatever is done with it.
    pub fn value(self) -> f64 {
        match self {
            MelFloor::Least(floor) | MelFloor::Added(floor) => floor,
        }
    }
}

impl LogMelSpec {
    /// Samples that must exist for a frame to exist; the last of them only decides that.
    pub fn frame_samples(&self) -> usize {
        self.window_samples + 1
    }

    /// Samples that a clip must have for its first frame to exist.
    pub fn least_samples(&self) -> usize {
        self.frame_samples() - self.lead_samples
    }
}

/// How pictures are brought to another size: what a model was trained to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// A triangle filter.
    Bilinear,
    /// Keys' cubic filter with a = -0.5.
    Bicubic,
}

/// A picture as a camera gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoFrame {
    /// JPEG or PNG file bytes: devices that give raw pixels are encoded by the room that reads them, once a picture is wanted.
    pub encoded: Vec<u8>,
    /// Width, pixels.
    pub width_px: u32,
    /// Height, pixels.
    pub height_px: u32,
    /// When it was taken.
    pub taken_at: SystemTime,
}

/// What a microphone or a camera tells the daemon, in the order in which it happened.
#[derive(Debug)]
pub enum CaptureEvent {
    /// From a microphone.
    Microphone {
        /// Its id.
        id: String,
        /// What happened.
        event: MicrophoneEvent,
    },
    /// From a camera.
    Camera {
        /// Its id.
        id: String,
        /// What happened.
        event: CameraEvent,
    },
    /// From the speaker.
    Speaker(SpeakerEvent),
}

/// Whether a device can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It gives samples or pictures.
    Online,
    /// It is gone, or busy; it is tried again. The reason, and what to do about it.
    Offline {
        /// One line.
        reason: String,
    },
    /// Muted or disabled on purpose: the device is closed.
    Off,
}

impl Default for DeviceState {
    /// Before it was opened for the first time.
    fn default() -> DeviceState {
        DeviceState::Offline {
            reason: String::new(),
        }
    }
}

impl DeviceState {
    /// As it is published; `off` is what a device of that kind is called while it is [`DeviceState::Off`].
    pub fn name(&self, off: &'static str) -> &'static str {
        match self {
            DeviceState::Online => "online",
            DeviceState::Offline { .. } => "offline",
            DeviceState::Off => off,
        }
    }
}

/// What a microphone tells.
#[derive(Debug)]
pub enum MicrophoneEvent {
    /// The device came, went, or was muted.
    State(DeviceState),
    /// A word was said that ends what the speaker says.
    StopWord,
    /// A wake word was said; [`MicrophoneEvent::SpeechStarted`] follows.
    Woken {
        /// As its model's file has it.
        phrase: String,
        /// How sure the model is, 0 to 1.
        score: f64,
        /// How loud it was (RMS of a second), dB full scale; minus infinity for digital silence.
        dbfs: f32,
    },
    /// Somebody begins to speak: what is said comes this way, that from before the onset first.
    SpeechStarted(utterance::Receiver),
    /// Nobody speaks any more.
    SpeechEnded {
        /// It was an utterance; otherwise it was too short to be one, or broke off, and does not count.
        counts: bool,
    },
    /// A push-to-talk request, or a wake word, was followed by no speech.
    ListenTimedOut,
    /// Nobody went on after an answer.
    FollowTimedOut,
    /// How loud it is (RMS of a fifth of a second), dB full scale, minus infinity for digital silence; told while push-to-talk waits
    /// or takes down what is said.
    Level(f32),
    /// How sure a wake word's model is now, 0 to 1, the most of a fifth of a second; told where that has changed.
    Score(f64),
    /// Samples were lost: the device overran.
    Overrun,
}

/// What made a picture be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TriggerName")]
pub enum CaptionTrigger {
    /// Something moved.
    Motion,
    /// The time had come.
    Schedule,
    /// Somebody asked.
    Request,
    /// Frigate saw something.
    Frigate,
}

/// The extent of motion in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MotionExtent {
    /// Share of the watched area that changed, 0 to 1.
    pub area: f32,
    /// Smallest rectangle around it: x, y, width, height, each 0 to 1.
    pub bounds: [f32; 4],
}

/// What a camera tells.
#[derive(Debug)]
pub enum CameraEvent {
    /// The device came, went, or was disabled.
    State(DeviceState),
    /// Something began to move; the vision tower may be loaded.
    MotionStarted(MotionExtent),
    /// Nothing has moved for the off-delay.
    MotionEnded,
    /// A picture to describe.
    Frame {
        /// The newest one.
        frame: VideoFrame,
        /// Why.
        trigger: CaptionTrigger,
        /// With [`CaptionTrigger::Motion`]: where.
        motion: Option<MotionExtent>,
        /// With [`CaptionTrigger::Request`]: the number that the request was given.
        request: Option<u64>,
    },
    /// A requested picture cannot be had.
    FrameFailed {
        /// The number that the request was given.
        request: u64,
        /// One line.
        reason: String,
    },
}

/// What the daemon tells a microphone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicrophoneControl {
    /// Close the device, or open it again.
    Mute(bool),
    /// Listen for wake words, or not.
    Wake(bool),
    /// Push-to-talk: the next utterance counts, and the level is told until it is over.
    Listen,
    /// The next utterance counts if it begins within so many seconds, without a word where none does.
    Follow(u32),
    /// End.
    Stop,
}

/// What the daemon tells a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraControl {
    /// Open the device, or close it.
    Enable(bool),
    /// Describe pictures without being asked, or not.
    Captions(bool),
    /// Give the newest picture as [`CameraEvent::Frame`] with this number.
    Snapshot(u64),
    /// End.
    Stop,
}

/// What the speaker does now: what microphones need to know at once, without a way through the loop.
#[derive(Debug, Default)]
pub struct Talking(AtomicU8);

/// Whether microphones are to rest while the speaker makes sound: what they hear then is the board's own voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It makes none.
    Silent,
    /// They are not.
    No,
    /// They are, but for one at which somebody is speaking.
    UnlessSpokenTo,
    /// They are.
    Yes,
}

impl Talking {
    /// What it does from now on.
    pub fn set(&self, rest: Rest) {
        self.0.store(rest as u8, Ordering::Release);
    }

    /// Something sounds, and may be stopped.
    pub fn sounds(&self) -> bool {
        self.0.load(Ordering::Acquire) != Rest::Silent as u8
    }

    /// Whether a microphone is to rest; `spoken_to` says that somebody is speaking at it.
    pub fn wants_rest(&self, spoken_to: bool) -> bool {
        let now = self.0.load(Ordering::Acquire);
        now == Rest::Yes as u8 || now == Rest::UnlessSpokenTo as u8 && !spoken_to
    }
}

/// A short sound that says how it stands with what somebody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is listened now.
    Listening,
    /// It was understood.
    Understood,
    /// It was not understood, or nothing was said.
    NotUnderstood,
    /// It could not be worked on.
    Failed,
    /// A microphone is closed now.
    Muted,
}

/// Something that the speaker says.
#[derive(Debug)]
pub struct Speech {
    /// The job's id.
    pub id: String,
    /// What is heard.
    pub sound: Audible,
    /// It goes before what waits, and ends what is being said.
    pub urgent: bool,
}

/// Where the sound of a speech comes from.
#[derive(Debug)]
pub enum Audible {
    /// An audio file's bytes.
    File(Arc<[u8]>),
    /// Sound that is made while it is heard.
    Stream {
        /// Stretches of it as they are made, or why there are no more.
        pieces: Receiver<Result<AudioClip, String>>,
        /// It is to be made when this comes, and as long as this is there.
        turn: Turn,
    },
}

/// The turn of sound that is made while it is heard. It is dropped when nobody wants the sound any more.
pub struct Turn(Box<dyn Fn() + Send>);

impl Turn {
    /// One of which `has_come` tells whoever makes the sound.
    pub fn new(has_come: impl Fn() + Send + 'static) -> Turn {
        Turn(Box::new(has_come))
    }

    /// Tells that it has come.
    pub fn comes(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

/// How a speech ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpeechEnd {
    /// It was heard to its end.
    Heard,
    /// It was cut at the longest length, seconds.
    Cut(u32),
    /// Somebody stopped it, or something urgent took its place.
    Stopped,
    /// Newer ones came while it waited.
    Dropped,
    /// It could not be said; one line.
    Failed(String),
}

/// What the speaker tells.
#[derive(Debug)]
pub enum SpeakerEvent {
    /// The device came or went.
    State(DeviceState),
    /// It begins to make sound, or has ended: [`Talking`] says the same at once.
    Speaking(bool),
    /// A speech begins.
    Began(String),
    /// A speech is over.
    Ended {
        /// Its id.
        id: String,
        /// How.
        end: SpeechEnd,
    },
}

/// What the daemon tells the speaker.
#[derive(Debug)]
pub enum SpeakerControl {
    /// Say this when its turn comes.
    Say(Speech),
    /// Make a sound, over whatever is said.
    Sign(Sign),
    /// End what is said and forget what waits; with an id, only that.
    Silence(Option<String>),
    /// How loud, percent.
    Volume(u8),
    /// Somebody is listened to: what is said goes on more quietly, or as before.
    Duck(bool),
    /// End.
    Stop,
}
