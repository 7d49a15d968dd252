//! What the daemon is asked from outside, after whoever received it has read and checked it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// An attached file: its bytes on the bus, their base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment(pub Arc<[u8]>);

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Attachment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attachment, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| {
            D::Error::custom(format!(
                "an attached file is not base64 (RFC 4648, padded): {error}"
            ))
        })?;
        Ok(Attachment(bytes.into()))
    }
}

impl JsonSchema for Attachment {
    fn schema_name() -> Cow<'static, str> {
        "Attachment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

use super::{ErrorBody, ErrorCode, JobState, JobUpdate, Reply, Report};
use crate::utterance;

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
    /// A client of the Wyoming server.
    Wyoming,
    /// The daemon itself (microphones, cameras).
    Own,
}

impl Request {
    /// An update of this request's job.
    pub fn update(&self, state: JobState, result: Result<Reply, ErrorBody>) -> Report {
        let (reply, error) = match result {
            Ok(reply) => (Some(reply), None),
            Err(error) => (None, Some(error)),
        };
        Report::Job(Box::new(JobUpdate {
            state,
            reply,
            error,
            ..self.job_update()
        }))
    }

    /// An update that tells nothing yet but whose it is.
    pub fn job_update(&self) -> JobUpdate {
        JobUpdate {
            id: self.id.clone(),
            origin: self.origin.clone(),
            transaction: self.transaction.clone(),
            kind: self.action.kind(),
            state: JobState::Queued,
            partial: None,
            progress: None,
            reply: None,
            error: None,
        }
    }
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
    /// What somebody says, while it is said.
    Dictate(Dictation),
    /// Which of the configured commands a sentence is.
    Recognize {
        /// The sentence.
        text: String,
    },
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

/// Longest name that a request may give or mean, bytes: of a camera, a slice, a conversation, a job, of the request itself.
pub const MOST_NAME_BYTES: usize = 256;

impl Action {
    /// Looks whether every name in it could be one; what longer ones do is at best to fill the answer that refuses them.
    ///
    /// # Errors
    /// The first that is too long.
    pub fn check_names(&self) -> Result<(), ErrorBody> {
        let names: [(&str, Option<&String>); 2] = match self {
            Action::Ask(ask) => [
                ("matformer", ask.matformer.as_ref()),
                ("conversation", ask.conversation.as_ref()),
            ],
            Action::Describe(describe) => [
                ("camera", describe.camera.as_ref()),
                ("matformer", describe.matformer.as_ref()),
            ],
            Action::Transcribe(transcribe) => [
                ("language", transcribe.language.as_ref()),
                ("matformer", transcribe.matformer.as_ref()),
            ],
            Action::Cancel(cancel) => [
                ("job", cancel.job.as_ref()),
                ("target", cancel.target.as_ref()),
            ],
            Action::Listen { id } | Action::Mute { id, .. } => {
                [("microphone", Some(id)), ("", None)]
            }
            Action::Enable { id, .. } | Action::Captions { id, .. } => {
                [("camera", Some(id)), ("", None)]
            }
            Action::Matformer(name) => [("matformer", Some(name)), ("", None)],
            Action::Dictate(_)
            | Action::Recognize { .. }
            | Action::Reload
            | Action::Stats
            | Action::MaxTokens(_) => return Ok(()),
        };
        for (key, name) in names {
            let bytes = name.map_or(0, String::len);
            if bytes > MOST_NAME_BYTES {
                return Err(ErrorBody {
                    code: ErrorCode::TooLarge,
                    message: format!(
                        "`{key}` has {bytes} bytes; no name has more than {MOST_NAME_BYTES}"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Names the response topic, and the kind of job on the bus.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Ask(_) => "ask",
            Action::Describe(_) => "describe",
            Action::Transcribe(_) => "transcribe",
            Action::Dictate(_) => "dictate",
            Action::Recognize { .. } => "recognize",
            Action::Cancel(_) => "cancel",
            Action::Reload => "reload",
            Action::Stats => "stats",
            Action::Listen { .. } => "listen",
            Action::Mute { .. }
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
    pub image: Option<Attachment>,
    /// Attached audio: base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<Attachment>,
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
    pub image: Option<Attachment>,
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
    pub audio: Option<Attachment>,
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

/// Sound that comes while it is spoken.
#[derive(Clone, Debug)]
pub struct Dictation {
    /// The sound, and its end.
    pub sound: Arc<utterance::Receiver>,
    /// Spoken language, in the prompt's words.
    pub language: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_files_are_base64_in_json() {
        // RFC 4648, section 10.
        let ask: Ask = serde_json::from_str(r#"{"prompt": "", "image": "Zm9vYmE="}"#).unwrap();
        assert_eq!(ask.image, Some(Attachment(b"fooba"[..].into())));
        assert_eq!(ask.audio, None);
        for wrong in ["Zm9vYmE", "Zm9v YmE=", "####"] {
            let json = format!(r#"{{"prompt": "", "audio": "{wrong}"}}"#);
            let error = serde_json::from_str::<Ask>(&json).unwrap_err().to_string();
            assert!(error.contains("not base64"), "{error}");
        }
        let schema = serde_json::to_value(schemars::schema_for!(Ask)).unwrap();
        let image = schema["properties"]["image"].to_string();
        assert!(image.contains(r#""contentEncoding":"base64""#), "{image}");
    }
}
