//! What is asked of a model.

use std::collections::VecDeque;

use crate::features::audio_file::{AudioFileError, AudioLimits, AudioReader};
use crate::features::image::{ImageError, ImageLimits, RgbImage};
use crate::features::speech_split::SpeechSplitter;
use crate::media::{AudioClip, SAMPLE_RATE_HZ};
use crate::model::encoder::PictureOptions;
use crate::model::grammar::Grammar;
use crate::model::prompt::Role;
use crate::model::sampler::Sampling;
use crate::model::tools::{CallRules, Tool, ToolCall, ToolResult};

/// What a user message holds besides text, in the order in which it stands in the prompt.
#[derive(Clone, Debug)]
pub enum Media {
    /// A picture of any size, and how it is encoded; what is left open is as the engine has it.
    Image(RgbImage, PictureOptions),
    /// Mono audio at 16 kHz, at most 30 s.
    Clip(AudioClip),
    /// One of these that is sent again with what is said next: its soft tokens are kept, within a bound of memory.
    Again(Box<Media>),
}

impl Media {
    /// A picture from the bytes of a JPEG or PNG file.
    ///
    /// # Errors
    /// It is neither, is damaged, or exceeds a limit.
    pub fn image(
        encoded: &[u8],
        limits: &ImageLimits,
        options: PictureOptions,
    ) -> Result<Media, ImageError> {
        Ok(Media::Image(RgbImage::decode(encoded, limits)?, options))
    }

    /// What it is, whether it comes again or not.
    pub fn bare(&self) -> &Media {
        match self {
            Media::Again(media) => media.bare(),
            media => media,
        }
    }

    /// A clip from the bytes of a WAV, FLAC, OGG or MP3 file of at most 30 s.
    ///
    /// # Errors
    /// It is none of them, is damaged, or exceeds a limit; that it is longer than 30 s shows when it is encoded.
    pub fn clip(encoded: &[u8], limits: &AudioLimits) -> Result<Media, AudioFileError> {
        let mut reader = AudioReader::from_bytes("attached audio", encoded, limits)?;
        let mut clip = AudioClip {
            samples: Vec::new(),
            sample_rate_hz: SAMPLE_RATE_HZ,
        };
        while reader.read(&mut clip.samples)? {}
        Ok(Media::Clip(clip))
    }
}

/// Sound of any length, in pieces that the model hears at once.
pub struct Pieces {
    reader: Option<AudioReader>,
    splitter: SpeechSplitter,
    ready: VecDeque<Vec<f32>>,
}

impl Pieces {
    /// Of the bytes of a WAV, FLAC, OGG or MP3 file.
    ///
    /// # Errors
    /// It is none of them, or exceeds a limit.
    pub fn new(encoded: &[u8], limits: &AudioLimits) -> Result<Pieces, AudioFileError> {
        Ok(Pieces {
            reader: Some(AudioReader::from_bytes("attached audio", encoded, limits)?),
            splitter: SpeechSplitter::new(),
            ready: VecDeque::new(),
        })
    }

    /// The next piece, 16 kHz mono, at most 30 s; `None` after the last.
    ///
    /// # Errors
    /// The file is damaged, or exceeds a limit.
    pub fn take(&mut self) -> Result<Option<Vec<f32>>, AudioFileError> {
        let mut samples = Vec::new();
        while self.ready.is_empty() {
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            samples.clear();
            let more = reader.read(&mut samples)?;
            self.ready.extend(self.splitter.push(&samples));
            if !more {
                self.reader = None;
                self.ready
                    .extend(std::mem::take(&mut self.splitter).finish());
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// A part of a message.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture or a clip.
    Media(Media),
    /// A call that the model made.
    ToolCall(ToolCall),
    /// What came of a call.
    ToolResult(ToolResult),
}

/// A message of a conversation.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// What the user says and shows, without instructions.
    pub fn user(content: Vec<Part>) -> Vec<Message> {
        Message::with_instructions(None, content)
    }

    /// Instructions, where there are any, and what the user says and shows.
    pub fn with_instructions(instructions: Option<String>, user: Vec<Part>) -> Vec<Message> {
        let system = instructions.map(|text| Message {
            role: Role::System,
            content: vec![Part::Text(text)],
        });
        let user = Message {
            role: Role::User,
            content: user,
        };
        system.into_iter().chain([user]).collect()
    }
}

/// How an answer is chosen and when it ends.
#[derive(Clone, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed gives the same text.
    pub seed: u64,
    /// Tokens at most, those of thoughts included.
    pub max_tokens: usize,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What the answer may look like, thoughts left out; `None` for anything.
    pub grammar: Option<Grammar>,
    /// What the model may call instead.
    pub tools: Option<Tools>,
}

/// What the model may call.
#[derive(Clone, Debug)]
pub struct Tools {
    /// As the model is told of them.
    pub offered: Vec<Tool>,
    /// Those that may be called; their schemas may allow less than what the model is told.
    pub callable: Vec<Tool>,
    /// How often, and whether at all.
    pub rules: CallRules,
}

impl Generation {
    /// The tools that the model is told of.
    pub fn offered(&self) -> &[Tool] {
        self.tools.as_ref().map_or(&[], |tools| &tools.offered)
    }
}

/// One thing to answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// Instructions, perhaps, and what was said so far, the user's message last.
    pub messages: Vec<Message>,
    /// The MatFormer slice that answers, by name; `None` for the whole model.
    pub matformer: Option<String>,
    /// The model thinks before it answers ([`super::Answer::thoughts`]); `None` for not, or as its conversation did before.
    pub thinking: Option<bool>,
    /// How the answer is chosen.
    pub generation: Generation,
    /// Goes on with the conversation of this name, or begins it. It begins anew where it is not known, or no more, where
    /// instructions are given and other ones than before, where thoughts are asked for and were not before, or no more, or where the context has no room for what is asked: the answer says so
    /// ([`super::Answer::resumed`]).
    pub conversation: Option<String>,
}
