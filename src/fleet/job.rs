//! A job on its way between two boards: the same JSON as a request over MQTT, and what it became.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{Kind, Needs};
use crate::report::{
    Ask, AskFields, Describe, DescribeFields, ErrorBody, Name, Payload, Reply, Transcribe,
    TranscribeFields,
};

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A question.
    Ask(AskFields),
    /// An attached picture.
    Describe(DescribeFields),
    /// Attached sound.
    Transcribe {
        /// The sound, and how it is written down.
        #[serde(flatten)]
        fields: TranscribeFields,
        /// Sound of any length, cut at pauses.
        in_pieces: bool,
        /// The language that it is translated into.
        into: Option<String>,
    },
}

impl Work {
    pub(super) fn needs(&self) -> Needs {
        match self {
            Work::Ask(ask) => Needs::of(ask.image.is_some(), ask.audio.is_some()),
            Work::Describe(_) => Needs::Sees,
            Work::Transcribe { .. } => Needs::Hears,
        }
    }

    /// As the worker's daemon is asked, checked as what comes by any door.
    pub(super) fn payload(self) -> Result<Payload, ErrorBody> {
        Ok(match self {
            Work::Ask(fields) => Payload::Ask(Ask::try_from(fields)?),
            Work::Describe(fields) => Payload::Describe(Describe::try_from(fields)?),
            Work::Transcribe {
                fields,
                in_pieces,
                into,
            } => {
                let into = into.map(|into| Name::new("into", into)).transpose()?;
                Payload::Transcribe(Transcribe {
                    in_pieces,
                    into,
                    ..Transcribe::try_from(fields)?
                })
            }
        })
    }
}

/// A job that goes out.
#[derive(Clone, Debug)]
pub struct Job {
    /// ULID, the same as at home.
    pub id: String,
    /// How urgent it is.
    pub kind: Kind,
    /// The camera, where nobody asked for its picture: of those that wait the newest counts.
    pub camera: Option<String>,
    /// What is to be done.
    pub work: Work,
    /// How long a worker may take.
    pub patience: Duration,
}

/// What a job became.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The board that did it.
    pub worker: String,
    /// Its model.
    pub model: String,
    /// The answer, or why there is none.
    pub result: Result<Reply, ErrorBody>,
}
