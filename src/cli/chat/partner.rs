//! Who answers: a model of this process, or the running daemon, which has one in memory.

use std::path::PathBuf;

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::pipeline::{Group, Media};

/// A file that goes with a question.
pub(super) struct Attached {
    pub(super) path: PathBuf,
    pub(super) media: Media,
}

impl Attached {
    pub(super) fn group(&self) -> Group {
        match self.media.bare() {
            Media::Image(..) => Group::Vision,
            _ => Group::Audio,
        }
    }
}

/// What holds for a conversation from its beginning.
pub(super) struct Settings {
    pub(super) system: Option<String>,
    /// The MatFormer slice that answers; `None` for the whole model, or as the daemon is configured.
    pub(super) slice: Option<String>,
    pub(super) thinking: bool,
}

/// What is known of an answer besides its text.
pub(super) struct Said {
    pub(super) thoughts: Option<String>,
    /// As [`FinishReason::name`](crate::pipeline::FinishReason::name).
    pub(super) finish: String,
    /// Whether what was said before was known.
    pub(super) resumed: bool,
    /// The keys of [`Timing`](crate::pipeline::Timing), and those that the daemon adds.
    pub(super) timing: Value,
    /// Tokens that the conversation has now, and may have; where that is known.
    pub(super) context: Option<(usize, usize)>,
}

/// MatFormer slices.
pub(super) struct Slices {
    /// The one that answers where none is chosen.
    pub(super) usual: String,
    /// All that there are, where that is known.
    pub(super) all: Option<Vec<String>>,
}

/// Who answers, in one conversation.
pub(super) trait Partner {
    /// What answers, in a line.
    fn about(&self) -> String;

    /// Whether sound or pictures can be asked about, as far as is known.
    ///
    /// # Errors
    /// They cannot.
    fn check(&self, group: Group) -> Result<(), Failure>;

    /// Whether it thinks, where it is known.
    ///
    /// # Errors
    /// It does not.
    fn check_thinking(&self) -> Result<(), Failure>;

    /// # Errors
    /// The daemon does not tell.
    fn slices(&self) -> Result<Slices, Failure>;

    /// Resident weights by parameter group, bytes.
    ///
    /// # Errors
    /// The daemon does not tell.
    fn memory(&self) -> Result<Vec<(String, u64)>, Failure>;

    /// Goes on with the conversation; `on_text` gets the answer as it comes, and says whether it wants more of it. `None` where Ctrl-C ended it: what was
    /// asked then is no part of the conversation.
    ///
    /// # Errors
    /// There is no answer; the conversation is as it was.
    fn answer(
        &mut self,
        text: &str,
        attached: Vec<Attached>,
        settings: &Settings,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<Said>, Failure>;

    /// What is said next at a microphone, as text; `None` where Ctrl-C ended it.
    ///
    /// # Errors
    /// There is no microphone, or nothing was said or understood.
    fn listen(&mut self, microphone: Option<&str>) -> Result<Option<String>, Failure>;

    /// Begins a new conversation.
    fn forget(&mut self);
}
