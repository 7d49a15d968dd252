//! What the daemon is asked from outside: a header, a payload that cannot be incomplete, and the way back.
//!
//! A payload is made of what a door read ([`AskFields`] and its kin). What is missing in it, and names that could be none, are
//! refused here, for every door alike.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::chat::Chat;
use super::claim::Claim;
use super::error::{ErrorBody, ErrorCode};
use super::fields::{
    AskFields, Attachment, CancelFields, DescribeFields, SayFields, TranscribeFields,
};
use super::frigate::Seen;
use super::header::{Header, Origin};
use super::name::{Name, check_name};
use super::names::Names;
use super::reply::ReplyTo;
use super::spoken::SpokenReply;
use super::wording::{Manner, Wording};
use crate::utterance;

/// Something that is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub header: Header,
    /// What is asked.
    pub payload: Payload,
    /// Where the answers go.
    pub reply: ReplyTo,
}

impl Request {
    /// A request for `payload`.
    pub fn new(
        id: String,
        origin: Origin,
        transaction: Option<String>,
        payload: Payload,
        reply: ReplyTo,
    ) -> Request {
        let header = Header {
            id,
            origin,
            transaction,
            kind: payload.kind(),
            timeout: payload.timeout_ms().map(Duration::from_millis),
        };
        Request {
            header,
            payload,
            reply,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Payload {
    /// An answer.
    Ask(Ask),
    /// An answer to a whole conversation.
    Chat(Box<Chat>),
    /// What a camera, or an attached picture, shows.
    Describe(Describe),
    /// What is said in attached audio.
    Transcribe(Transcribe),
    /// What a camera saw that Frigate watches.
    Seen(Box<Seen>),
    /// What somebody says, while it is said.
    Dictate(Dictation),
    /// Which of the configured commands a sentence is.
    Recognize {
        /// The sentence.
        text: String,
        /// Where it was said: ids of Home Assistant's devices and satellites, the nearest first.
        speaker: Vec<String>,
    },
    /// What a sentence is taken for, as another board asks it.
    Worded(Box<Wording>),
    /// End jobs.
    Cancel(Cancel),
    /// Read the configuration again.
    Reload,
    /// The figures of `health`, now.
    Stats,
    /// What was answered before is forgotten: it is no guess any more.
    Forget,
    /// Push-to-talk.
    Listen {
        /// The microphone.
        id: Name,
    },
    /// What things at home are called; nothing takes the names back.
    Names(Option<Box<Names>>),
    /// What was answered to what a microphone heard.
    Replied(SpokenReply),
    /// Another board was woken.
    Rival(Claim),
    /// Something to say, by the speaker.
    Say(Say),
    /// The speaker is to be silent: what is said ends, and what waits is forgotten.
    Silence,
    /// Change what stays.
    Set(Switch),
}

/// What people switch; it is kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Mute a microphone, or not.
    Mute {
        /// The microphone.
        id: Name,
        /// On or off.
        muted: bool,
    },
    /// Listen for a microphone's wake words, or not.
    Wake {
        /// The microphone.
        id: Name,
        /// On or off.
        on: bool,
    },
    /// Open or close a camera.
    Enable {
        /// The camera.
        id: Name,
        /// Open or closed.
        enabled: bool,
    },
    /// Describe pictures without being asked, or not.
    Captions {
        /// The camera.
        id: Name,
        /// On or off.
        enabled: bool,
    },
    /// The slice that answers unless a request names one.
    Matformer(Name),
    /// Tokens of an answer at most.
    MaxTokens(usize),
    /// How loud the speaker is, percent.
    Volume(u8),
}

impl Payload {
    fn kind(&self) -> &'static str {
        match self {
            Payload::Ask(_) => "ask",
            Payload::Chat(_) => "chat",
            Payload::Describe(_) => "describe",
            Payload::Transcribe(_) => "transcribe",
            Payload::Seen(_) => "seen",
            Payload::Dictate(_) => "dictate",
            Payload::Recognize { .. } | Payload::Worded(_) => "recognize",
            Payload::Cancel(_) => "cancel",
            Payload::Reload => "reload",
            Payload::Stats => "stats",
            Payload::Forget => "forget",
            Payload::Listen { .. } => "listen",
            Payload::Names(_) => "names",
            Payload::Replied(_) => "reply",
            Payload::Rival(_) => "rival",
            Payload::Say(_) => "say",
            Payload::Silence => "silence",
            Payload::Set(_) => "set",
        }
    }

    fn timeout_ms(&self) -> Option<u64> {
        match self {
            Payload::Ask(ask) => ask.timeout_ms,
            Payload::Describe(describe) => describe.timeout_ms,
            Payload::Transcribe(transcribe) => transcribe.timeout_ms,
            _ => None,
        }
    }
}

/// An answer of no token is no answer.
fn check_max_tokens(asked: Option<usize>) -> Result<(), ErrorBody> {
    match asked {
        Some(0) => Err(incomplete(
            "max_tokens 0: ask for 1 or more, or leave it out",
        )),
        _ => Ok(()),
    }
}

fn incomplete(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Invalid, message)
}

/// A question, or a picture or sound to say something about.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask(AskFields);

impl Ask {
    /// Whether its answer is told while it comes, to whoever asked or to the speaker.
    pub fn streams(&self) -> bool {
        self.stream || self.speak
    }
}

impl Deref for Ask {
    type Target = AskFields;

    fn deref(&self) -> &AskFields {
        &self.0
    }
}

impl TryFrom<AskFields> for Ask {
    type Error = ErrorBody;

    fn try_from(fields: AskFields) -> Result<Ask, ErrorBody> {
        if fields.prompt.trim().is_empty() && fields.image.is_none() && fields.audio.is_none() {
            return Err(incomplete("`prompt` is empty"));
        }
        if fields.schema.is_some() && fields.choices.is_some() {
            return Err(incomplete(
                "schema and choices exclude each other: give one of them",
            ));
        }
        if fields.speak && fields.schema.is_some() {
            return Err(incomplete(
                "speak and schema exclude each other: JSON is not made to be heard",
            ));
        }
        check_max_tokens(fields.max_tokens)?;
        for (key, name) in [
            ("matformer", &fields.matformer),
            ("conversation", &fields.conversation),
        ] {
            check_name(key, name.as_deref().unwrap_or_default())?;
        }
        Ok(Ask(fields))
    }
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Describe {
    /// The picture.
    pub picture: Picture,
    /// How it is described.
    pub wish: Wish,
    /// Milliseconds after which the job is given up.
    pub timeout_ms: Option<u64>,
}

/// Which picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// What this camera sees.
    Camera(Name),
    /// A JPEG or PNG that came with the request.
    Attached(Attachment),
}

/// How a picture is to be described; what is absent is as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Soft tokens that it becomes at most.
    pub soft_tokens: Option<usize>,
    /// What is asked about it.
    pub prompt: Option<String>,
    /// MatFormer slice that answers.
    pub matformer: Option<Name>,
    /// Tokens of the answer at most.
    pub max_tokens: Option<usize>,
}

impl TryFrom<DescribeFields> for Describe {
    type Error = ErrorBody;

    fn try_from(fields: DescribeFields) -> Result<Describe, ErrorBody> {
        check_max_tokens(fields.max_tokens)?;
        let picture = match (fields.camera, fields.image) {
            (Some(camera), None) => Picture::Camera(Name::new("camera", camera)?),
            (None, Some(image)) => Picture::Attached(image),
            (None, None) => return Err(incomplete("needs `camera` or `image`")),
            (Some(_), Some(_)) => {
                return Err(incomplete("has both `camera` and `image`: give one"));
            }
        };
        Ok(Describe {
            picture,
            wish: Wish {
                soft_tokens: fields.soft_tokens,
                prompt: fields.prompt,
                matformer: Name::optional("matformer", fields.matformer)?,
                max_tokens: fields.max_tokens,
            },
            timeout_ms: fields.timeout_ms,
        })
    }
}

/// What is said in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcribe {
    /// A WAV, FLAC, OGG or MP3.
    pub audio: Attachment,
    /// Spoken language.
    pub language: Option<Name>,
    /// MatFormer slice that answers.
    pub matformer: Option<Name>,
    /// Tokens of the answer at most.
    pub max_tokens: Option<usize>,
    /// Milliseconds after which the job is given up.
    pub timeout_ms: Option<u64>,
    /// Sound of any length, cut at pauses: the reply's details have the pieces, and their texts are told as they come.
    pub in_pieces: bool,
    /// The language that it is translated into.
    pub into: Option<Name>,
}

impl TryFrom<TranscribeFields> for Transcribe {
    type Error = ErrorBody;

    fn try_from(fields: TranscribeFields) -> Result<Transcribe, ErrorBody> {
        check_max_tokens(fields.max_tokens)?;
        let missing = || incomplete("needs `audio`, base64 of an audio file");
        Ok(Transcribe {
            audio: fields.audio.ok_or_else(missing)?,
            language: Name::optional("language", fields.language)?,
            matformer: Name::optional("matformer", fields.matformer)?,
            max_tokens: fields.max_tokens,
            timeout_ms: fields.timeout_ms,
            in_pieces: false,
            into: None,
        })
    }
}

/// Something to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// The microphone at which it was asked for.
    pub microphone: Option<Name>,
    /// The event to which it is the answer.
    pub id: Option<Name>,
    /// What is said.
    pub what: Utterable,
    /// It goes before what waits, and ends what is being said.
    pub urgent: bool,
}

/// What can be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Utterable {
    /// A text, which a text-to-speech server makes sound of.
    Text(String),
    /// A WAV, FLAC, OGG or MP3.
    Audio(Attachment),
}

impl TryFrom<SayFields> for Say {
    type Error = ErrorBody;

    fn try_from(fields: SayFields) -> Result<Say, ErrorBody> {
        let what = match (fields.text, fields.audio) {
            (Some(text), None) if !text.trim().is_empty() => Utterable::Text(text),
            (None, Some(audio)) if !audio.0.is_empty() => Utterable::Audio(audio),
            (Some(_), Some(_)) => {
                return Err(incomplete("has both `text` and `audio`: give one"));
            }
            _ => return Err(incomplete("needs `text` or `audio`, and neither empty")),
        };
        Ok(Say {
            microphone: Name::optional("microphone", fields.microphone)?,
            id: Name::optional("id", fields.id)?,
            what,
            urgent: fields.urgent,
        })
    }
}

/// Sound that comes while it is spoken.
#[derive(Clone, Debug)]
pub struct Dictation {
    /// The sound, and its end.
    pub sound: Arc<utterance::Receiver>,
    /// What is made of it.
    pub manner: Manner,
    /// Tell the text while it comes.
    pub stream: bool,
}

/// Which jobs are to end: of the same asker only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The one with this id.
    Job(Name),
    /// Those to which the asker gave this name.
    Target(Name),
}

impl TryFrom<CancelFields> for Cancel {
    type Error = ErrorBody;

    fn try_from(fields: CancelFields) -> Result<Cancel, ErrorBody> {
        match (fields.job, fields.target) {
            (Some(job), None) => Ok(Cancel::Job(Name::new("job", job)?)),
            (None, Some(target)) => Ok(Cancel::Target(Name::new("target", target)?)),
            _ => Err(incomplete("needs either `job` or `target`")),
        }
    }
}

#[cfg(test)]
mod tests;
