//! THE line: what was heard, seen or asked becomes an answer.

mod answer;
mod audio_stream;
mod engine;
mod error;
mod media;
mod speech;

pub use answer::{Answer, GroupMemory, Timing};
pub use audio_stream::{AudioStream, AudioStreamError, SoftTokenPadding};
pub use engine::{Engine, EngineOptions, FinishReason, Generation, Media, Request, UserPart};
pub use error::EngineError;
pub use media::TowerOptions;
pub use speech::Speech;
