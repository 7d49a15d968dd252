//! THE line: what was heard, seen or asked becomes an answer.

mod answer;
mod audio_stream;
mod engine;
mod error;
mod media;
mod options;
mod residency;
mod speech;

pub use crate::model::weights::{Group, GroupState, PleOptions, Residency};
pub use answer::{Answer, GroupMemory, Timing};
pub use audio_stream::{AudioStream, AudioStreamError, SoftTokenPadding};
pub use engine::{Engine, FinishReason, Generation, Media, Request, UserPart};
pub use error::EngineError;
pub use media::TowerOptions;
pub use options::EngineOptions;
pub use speech::Speech;
