//! What the daemon is asked from outside, after whoever received it has read and checked it.

use schemars::JsonSchema;
use serde::Deserialize;

/// Something that is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The job's id, a ULID made by whoever received the request; updates of the job carry it.
    pub id: String,
    /// Who asks, and so who may cancel.
    pub origin: Origin,
    /// The asker's own name for it, given back with every answer.
    pub transaction: Option<String>,
    /// What is asked.
    pub action: Action,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The broker.
    Mqtt,
    /// A peer on the bus.
    Bus {
        /// Its user.
        uid: u32,
        /// Its unique name.
        sender: String,
    },
    /// The daemon itself (microphones, cameras).
    Own,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Action {
    /// An answer.
    Ask(Ask),
    /// What a camera, or an attached picture, shows.
    Describe(Describe),
    /// What is said in attached audio.
    Transcribe(Transcribe),
    /// End jobs.
    Cancel(CancelRequest),
    /// Read the configuration again.
    Reload,
    /// The figures of `health`, now.
    Stats,
    /// Mute a microphone, or not.
    Mute {
        /// The microphone.
        id: String,
        /// Whether.
        muted: bool,
    },
    /// Push-to-talk.
    Listen {
        /// The microphone.
        id: String,
    },
    /// Open or close a camera.
    Enable {
        /// The camera.
        id: String,
        /// Whether.
        enabled: bool,
    },
    /// Describe pictures without being asked, or not.
    Captions {
        /// The camera.
        id: String,
        /// Whether.
        enabled: bool,
    },
    /// The slice that answers unless a request names one.
    Matformer(String),
    /// Tokens of an answer at most.
    MaxTokens(usize),
}

impl Action {
    /// What answers to it are called: [`super::JobUpdate::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Ask(_) => "ask",
            Action::Describe(_) => "describe",
            Action::Transcribe(_) => "transcribe",
            Action::Cancel(_) => "cancel",
            Action::Reload => "reload",
            Action::Stats => "stats",
            Action::Mute { .. }
            | Action::Listen { .. }
            | Action::Enable { .. }
            | Action::Captions { .. }
            | Action::Matformer(_)
            | Action::MaxTokens(_) => "set",
        }
    }
}

/// `request/ask`, and `Ask` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The question.
    pub prompt: String,
    /// Instructions before the conversation.
    #[serde(default)]
    pub system: Option<String>,
    /// JSON schema that the answer must fit.
    #[serde(default)]
    pub schema: Option<serde_json::Value>,
    /// The answer must be one of these.
    #[serde(default)]
    pub choices: Option<Vec<String>>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// 0 always takes the likeliest token.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// The same seed gives the same text.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Publish the answer while it comes.
    #[serde(default)]
    pub stream: bool,
    /// Goes on with the conversation of this name, or begins it.
    #[serde(default)]
    pub conversation: Option<String>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// An attached picture: base64 of a JPEG or PNG.
    #[serde(default)]
    pub image: Option<String>,
    /// Attached audio: base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<String>,
}

/// `request/describe`, `camera/ID/describe`, and `Describe` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Describe {
    /// The camera; or `image`.
    #[serde(default)]
    pub camera: Option<String>,
    /// An attached picture: base64 of a JPEG or PNG.
    #[serde(default)]
    pub image: Option<String>,
    /// What is asked about it; absent: the configured prompt.
    #[serde(default)]
    pub prompt: Option<String>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `request/transcribe`, and `Transcribe` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Transcribe {
    /// Base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<String>,
    /// Spoken language.
    #[serde(default)]
    pub language: Option<String>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `request/cancel`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The job to end.
    #[serde(default)]
    pub job: Option<String>,
    /// Or the asker's own name for it.
    #[serde(default)]
    pub target: Option<String>,
}
