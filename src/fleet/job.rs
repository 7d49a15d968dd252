//! A job on its way between two boards: the same JSON as a request over MQTT, and what it became.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::familiar::Beginning;
use super::letter::digest;
use super::names::{Kind, Needs};
use crate::report::chat::{Chat, Said, Speaker};
use crate::report::{
    Ask, AskFields, Attachment, Describe, DescribeFields, Dictation, ErrorBody, Manner, Name,
    Payload, Reply, Transcribe, TranscribeFields, Wording,
};
use crate::utterance;

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A question.
    Ask(AskFields),
    /// A conversation.
    Chat(Box<Chat>),
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
    /// A sentence that may be a command.
    Sentence(Wording),
    /// What somebody said.
    Speech {
        /// What is asked about it.
        wording: Wording,
        /// The answer is told while it comes.
        stream: bool,
        /// 16 kHz mono, 16 bits a sample, the low byte first; nothing where it comes while it is spoken.
        sound: Option<Attachment>,
    },
}

/// A sample of 1.0 as a whole number.
const FULL_SCALE: f32 = 32_768.0;

/// Samples as they are sent: whole numbers, which is what microphones give. What is beyond the range is cut off.
pub fn pcm(samples: &[f32]) -> Vec<u8> {
    let whole = |sample: &f32| (sample * FULL_SCALE).round() as i16;
    samples
        .iter()
        .flat_map(|s| whole(s).to_le_bytes())
        .collect()
}

/// The samples again.
pub(super) fn samples(pcm: &[u8]) -> Vec<f32> {
    let (whole, _) = pcm.as_chunks::<2>();
    let sample = |bytes: &[u8; 2]| f32::from(i16::from_le_bytes(*bytes)) / FULL_SCALE;
    whole.iter().map(sample).collect()
}

impl Work {
    pub(super) fn needs(&self) -> Needs {
        match self {
            Work::Ask(ask) => Needs {
                sees: ask.image.is_some(),
                hears: ask.audio.is_some(),
                thinks: ask.thinking == Some(true),
                ..Needs::TEXT
            },
            Work::Chat(chat) => Needs {
                sees: chat.has(|part| matches!(part, Said::Picture(_))),
                hears: chat.has(|part| matches!(part, Said::Sound(_))),
                thinks: chat.thinks,
                ..Needs::TEXT
            },
            Work::Sentence(_) => Needs::TEXT,
            Work::Describe(_) => Needs::SEES,
            Work::Speech { sound: None, .. } => Needs::LIVE,
            Work::Transcribe { .. } | Work::Speech { .. } => Needs::HEARS,
        }
    }

    /// What it begins with, where a worker that has done such work before gets on faster.
    pub(super) fn beginning(&self) -> Option<Beginning> {
        let of = |text: &str| Beginning {
            key: digest(text.as_bytes()),
            is_conversation: false,
        };
        match self {
            Work::Ask(AskFields {
                conversation: Some(name),
                ..
            }) => Some(Beginning {
                key: name.clone(),
                is_conversation: true,
            }),
            Work::Ask(ask) => ask.system.as_deref().map(of),
            Work::Chat(chat) => {
                let system = chat.messages.iter();
                let system = system.take_while(|message| message.speaker == Speaker::System);
                let written = serde_json::to_string(&(system.collect::<Vec<_>>(), &chat.tools));
                written.ok().as_deref().map(of)
            }
            Work::Sentence(wording) | Work::Speech { wording, .. } => {
                wording.instructions.as_deref().map(of)
            }
            Work::Describe(_) | Work::Transcribe { .. } => None,
        }
    }

    /// Whether its answer is told while it comes.
    pub(super) fn streams(&self) -> bool {
        match self {
            Work::Ask(ask) => ask.stream,
            Work::Chat(chat) => chat.stream,
            Work::Speech { stream, .. } => *stream,
            Work::Transcribe { in_pieces, .. } => *in_pieces,
            Work::Describe(_) | Work::Sentence(_) => false,
        }
    }

    /// As the worker's daemon is asked for the board of that name, checked as what comes by any door; with the end that is spoken into,
    /// where what is said is still to come.
    pub(super) fn payload(
        self,
        node: &str,
    ) -> Result<(Payload, Option<utterance::Sender>), ErrorBody> {
        let mut speaks = None;
        let payload = match self {
            Work::Ask(fields) => Payload::Ask(Ask::try_from(AskFields {
                // Boards may give the same name to conversations of theirs.
                conversation: fields
                    .conversation
                    .map(|name| digest(format!("{node}/{name}").as_bytes())),
                ..fields
            })?),
            Work::Chat(chat) => Payload::Chat(chat),
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
            Work::Sentence(wording) => Payload::Worded(Box::new(wording)),
            Work::Speech {
                wording,
                stream,
                sound,
            } => {
                let (speaker, receiver) = utterance::channel();
                match sound {
                    Some(sound) => {
                        speaker.push(&samples(&sound.0));
                        speaker.end(false);
                    }
                    None => speaks = Some(speaker),
                }
                Payload::Dictate(Dictation {
                    sound: Arc::new(receiver),
                    manner: Manner::Worded(Box::new(wording)),
                    stream,
                })
            }
        };
        Ok((payload, speaks))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chat::{Message, Shape};

    #[test]
    fn speech_goes_as_whole_numbers_and_comes_back_as_it_was() {
        let sent = pcm(&[0.0, 0.5, -1.0, 2.0]);
        // As `sox -r 16000 -b 16 -c 1 -t raw -L` writes them.
        assert_eq!(sent, b"\0\0\0\x40\0\x80\xff\x7f");
        assert_eq!(samples(&sent), [0.0, 0.5, -1.0, 32_767.0 / 32_768.0]);
        let all: Vec<u8> = (i16::MIN..=i16::MAX).flat_map(i16::to_le_bytes).collect();
        assert_eq!(pcm(&samples(&all)), all);
    }

    #[test]
    fn a_conversation_needs_what_is_in_it_and_comes_as_it_went() {
        let mut chat = Chat {
            messages: vec![Message {
                speaker: Speaker::User,
                said: vec![
                    Said::Text("What is this?".to_owned()),
                    Said::Picture(Attachment(vec![1, 2, 3].into())),
                ],
            }],
            shape: Some(Shape::Object),
            ..Chat::default()
        };
        assert_eq!(Work::Chat(Box::new(chat.clone())).needs(), Needs::SEES);
        let sound = Said::Sound(Attachment(vec![4].into()));
        chat.messages[0].said.push(sound);
        let work = Work::Chat(Box::new(chat.clone()));
        assert_eq!(work.needs(), Needs::BOTH);
        let written = serde_json::to_vec(&work).unwrap();
        let Work::Chat(read) = serde_json::from_slice(&written).unwrap() else {
            panic!("it is a chat");
        };
        assert_eq!(*read, chat);
    }
}
