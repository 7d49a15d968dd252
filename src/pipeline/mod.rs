//! THE line: what was heard, seen or asked becomes an answer.

mod accept;
mod answer;
mod answering;
mod audio_stream;
mod batches;
mod calling;
mod choose;
pub mod commands;
mod conversation;
mod conversations;
mod decode;
mod dialogue;
mod encode;
mod encoders;
mod engine;
mod engine_info;
mod error;
mod guesses;
mod hints;
mod house_names;
mod kept_media;
mod memory_lock;
mod options;
mod prefill;
mod prefix_cache;
mod prefixes;
mod request;
mod residency;
mod rounds;
mod script;
mod seats;
mod sharing;
mod speech;
mod turns;
mod writing;

pub use crate::model::encoder::{PictureOptions, VisionError};
pub use crate::model::grammar::{Grammar, GrammarError};
pub use crate::model::prompt::{PromptError, Role};
pub use crate::model::spec::PictureSpec;
pub use crate::model::tools::{CallRules, Tool, ToolCall, ToolError, ToolResult};
pub use crate::model::weights::{Group, GroupState, PleOptions, Residency, RowCounts};
pub use answer::{Answer, FinishReason, GroupMemory, Piece, Timing};
pub use audio_stream::{AudioStream, AudioStreamError, SoftTokenPadding};
pub use batches::Gathering;
pub use dialogue::in_turns;
pub use encoders::EncoderOptions;
pub use engine::{Engine, GiveWay};
pub use error::EngineError;
pub use guesses::{
    DAY_COMMANDS, DAY_TRANSCRIPTS, EarlierAnswers, GuessCounts, GuessOptions, Guessing, Known,
    Lessons, STRENGTHS, Source, Stand, Topic,
};
pub use house_names::HouseNames;
pub use options::{AudioSection, EngineOptions, VisionSection};
pub use prefix_cache::PrefixCacheOptions;
pub use request::{Generation, Media, Message, Part, Pieces, Request, Tools};
pub use seats::{MAX_ANSWERS, OnSeatPiece, OnStep, SeatId, Sitter};
pub use speech::Speech;
