//! Leaf data: what the daemon publishes, and what it is asked from outside. JSON schemas are derived from the payloads.
//!
//! Timestamps are RFC 3339 with the offset of local time; every payload has `schema`, the version of its layout, which only
//! ever gains fields.

pub mod chat;
mod claim;
mod error;
mod fields;
mod frigate;
mod header;
mod health;
mod model_card;
mod name;
mod names;
mod reply;
mod request;
mod result;
mod short;
mod spoken;
mod wording;

pub use claim::Claim;
pub use error::{ErrorBody, ErrorCode};
pub use fields::{
    AskFields, Attachment, CancelFields, DescribeFields, SayFields, TranscribeFields,
};
pub use frigate::{FrigateEvent, Scene, Seen};
pub use header::{Header, Origin};
pub use health::{
    CameraInfo, FleetBoard, FleetHealth, Health, Info, LogLine, MicrophoneInfo, MqttHealth, Queues,
};
pub use model_card::{Ability, ModelCard};
pub use name::{MAX_NAME_BYTES, Name};
pub use names::{AreaName, EntityName, FloorName, Names};
pub use reply::ReplyTo;
pub use request::{
    Ask, Cancel, Describe, Dictation, Payload, Picture, Request, Say, Switch, Transcribe,
    Utterable, Wish,
};
pub use result::{
    CaptionEvent, CommandCall, EventType, JobState, JobUpdate, Reply, ReportTiming, VoiceEvent,
};
pub use short::{Cut, short};
pub use spoken::{ReplyEvent, ReplyFields, SpokenReply};
pub use wording::{Manner, Wording};

use crate::media::DeviceState;

/// Version of every payload's layout.
pub const SCHEMA: u32 = 1;

/// What the daemon tells those who publish. Each kind has one place in the topic tree and on the bus.
#[derive(Clone, Debug)]
pub enum Report {
    /// What runs: once at the start, and after a reload.
    Info(Box<Info>),
    /// How it is: every minute, and when something changed for the worse.
    Health(Box<Health>),
    /// A warning or an error of the log.
    Log(Box<LogLine>),
    /// A microphone came, went or was muted.
    MicrophoneState {
        /// Its id.
        id: String,
        /// `online`, `offline` or `muted`.
        state: DeviceState,
    },
    /// Whether a microphone listens for its wake words.
    Wake {
        /// Its id.
        id: String,
        /// True if it does.
        on: bool,
    },
    /// How sure its model was of the last wake word.
    WakeScore {
        /// The microphone.
        id: String,
        /// 0 to 1.
        score: f64,
    },
    /// How sure it is now: for a meter.
    LiveScore {
        /// The microphone.
        id: String,
        /// 0 to 1.
        score: f64,
    },
    /// A wake word was heard, and which of several boards answers is to be settled.
    Woken(Claim),
    /// Whether somebody is speaking.
    Speech {
        /// The microphone.
        id: String,
        /// True from the first frame of speech on, false after its last.
        speaking: bool,
    },
    /// How loud it is while push-to-talk waits or takes down what is said: for a meter.
    Level {
        /// The microphone.
        id: String,
        /// RMS, dB full scale; minus infinity for digital silence.
        dbfs: f32,
    },
    /// What was heard.
    Voice(Box<VoiceEvent>),
    /// What was answered to it, by Home Assistant or whoever else.
    Replied(Box<ReplyEvent>),
    /// A camera came, went or was disabled.
    CameraState {
        /// Its id.
        id: String,
        /// `online`, `offline` or `disabled`.
        state: DeviceState,
    },
    /// Whether something moves.
    Motion {
        /// The camera.
        id: String,
        /// True while something moves.
        moving: bool,
    },
    /// Whether a camera describes pictures without being asked.
    Captions {
        /// The camera.
        id: String,
        /// True if it does.
        enabled: bool,
    },
    /// What was seen, and the picture as JPEG where it may be published.
    Caption {
        /// What is said of it.
        event: Box<CaptionEvent>,
        /// The picture.
        image: Option<std::sync::Arc<[u8]>>,
    },
    /// The speaker came or went.
    SpeakerState(DeviceState),
    /// Whether the speaker makes sound.
    Speaking(bool),
    /// How loud the speaker is, percent.
    Volume(u8),
    /// The slice that answers unless a request names one.
    Matformer(String),
    /// Tokens of an answer at most.
    MaxTokens(usize),
    /// A request ended, whoever asked; the asker has been told.
    JobEnded(Box<JobUpdate>),
    /// The daemon is stopping.
    Stopping,
}
