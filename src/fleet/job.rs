//! A job on its way between two boards: the same JSON as a request over MQTT, and what it became.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{Kind, Needs};
use crate::media::SAMPLE_RATE_HZ;
use crate::report::{
    Ask, AskFields, Attachment, Describe, DescribeFields, ErrorBody, Name, Payload, Reply,
    Transcribe, TranscribeFields,
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

/// Bits of a sample as it is sent.
const SAMPLE_BITS: u16 = 16;

impl Work {
    /// Speech of 16 kHz, mono, to be written down; as a WAV file of whole numbers, which is what microphones give.
    pub fn speech(samples: &[f32], language: String, max_tokens: usize) -> Work {
        let bytes = SAMPLE_BITS / 8;
        let length = samples.len() as u32 * u32::from(bytes);
        let mut wav = Vec::with_capacity(44 + length as usize);
        wav.extend_from_slice(b"RIFF");
        wav.extend_from_slice(&(36 + length).to_le_bytes());
        wav.extend_from_slice(b"WAVEfmt ");
        wav.extend_from_slice(&16u32.to_le_bytes());
        let (pcm, channels): (u16, u16) = (1, 1);
        wav.extend_from_slice(&pcm.to_le_bytes());
        wav.extend_from_slice(&channels.to_le_bytes());
        wav.extend_from_slice(&SAMPLE_RATE_HZ.to_le_bytes());
        wav.extend_from_slice(&(SAMPLE_RATE_HZ * u32::from(bytes)).to_le_bytes());
        wav.extend_from_slice(&bytes.to_le_bytes());
        wav.extend_from_slice(&SAMPLE_BITS.to_le_bytes());
        wav.extend_from_slice(b"data");
        wav.extend_from_slice(&length.to_le_bytes());
        for sample in samples {
            // A float beyond the range is cut off.
            let whole = (sample * 32_768.0).round() as i16;
            wav.extend_from_slice(&whole.to_le_bytes());
        }
        Work::Transcribe {
            fields: TranscribeFields {
                audio: Some(Attachment(wav.into())),
                language: Some(language),
                max_tokens: Some(max_tokens),
                ..TranscribeFields::default()
            },
            in_pieces: false,
            into: None,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_goes_as_a_wav_file() {
        let Work::Transcribe { fields, .. } =
            Work::speech(&[0.0, 0.5, -1.0, 2.0], "German".to_owned(), 9)
        else {
            panic!("speech is written down");
        };
        let wav = fields.audio.unwrap().0;
        // As `sox -n -r 16000 -b 16 -c 1` begins a file of four samples.
        assert_eq!(&wav[..12], b"RIFF\x2c\0\0\0WAVE");
        assert_eq!(
            &wav[20..36],
            b"\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0"
        );
        assert_eq!(&wav[36..44], b"data\x08\0\0\0");
        assert_eq!(&wav[44..], b"\0\0\0\x40\0\x80\xff\x7f");
    }
}
