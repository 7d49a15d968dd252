//! The line: what was heard becomes features, and the features soft tokens.

mod audio_stream;

pub use audio_stream::{AudioStream, AudioStreamError, SoftTokenPadding};
