//! Messages, and prompts that are made of them: token ids, with places for the soft tokens of pictures and audio clips.
//!
//! How turns are written, a family's template knows ([`ChatTemplate`]). Control tokens are put in as ids, and the text between two of
//! them is encoded as one piece with control tokens switched off: newlines around media join with their neighbours as in the
//! reference, and a user's text can never become a control token, however it is spelled or split.

use std::ops::Range;

use super::tokenizer::{ControlTokens, ThoughtTokens, Tokenizer, ToolTokens};
use super::tools::{CallSyntax, Tool, ToolCall, ToolResult};

/// The most text that a prompt may hold: far beyond 131,072 tokens, and a bound for the memory of encoding it.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// The one who asks.
    User,
    /// The model's earlier answer.
    Assistant,
}

impl Role {
    /// As templates call it, and people.
    fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// An audio clip.
    Audio,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text; white space around it is removed, but for Gemma 3n's system messages.
    Text(String),
    /// A picture that becomes so many soft tokens (`vision_soft_tokens_per_image`).
    Image {
        /// Places for soft tokens.
        soft_tokens: usize,
    },
    /// An audio clip that becomes so many soft tokens.
    Audio {
        /// Places for soft tokens.
        soft_tokens: usize,
    },
    /// What the model thought before it went on.
    Thought(String),
    /// A call that the model made.
    ToolCall(ToolCall),
    /// What came of a call, within the model's turn.
    ToolResult(ToolResult),
}

impl Part {
    fn text_bytes(&self) -> usize {
        match self {
            Part::Text(text) | Part::Thought(text) => text.len(),
            Part::Image { .. } | Part::Audio { .. } => 0,
            Part::ToolCall(call) => call.text_bytes(),
            Part::ToolResult(result) => result.text_bytes(),
        }
    }

    /// What it is, for people.
    fn name(&self) -> &'static str {
        match self {
            Part::Text(_) => "text",
            Part::Image { .. } => "an image",
            Part::Audio { .. } => "audio",
            Part::Thought(_) => "a thought",
            Part::ToolCall(_) => "a tool call",
            Part::ToolResult(_) => "a tool result",
        }
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// A message of text only.
    pub fn text(role: Role, text: impl Into<String>) -> Message {
        Message {
            role,
            content: vec![Part::Text(text.into())],
        }
    }

    /// Bytes of its text.
    pub fn text_bytes(&self) -> usize {
        self.content.iter().map(Part::text_bytes).sum()
    }
}

/// The instructions with which a conversation begins, where it does.
pub fn system_message(messages: &[Message]) -> Option<&Message> {
    messages
        .first()
        .filter(|message| message.role == Role::System)
}

/// The place of one image or audio clip in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSpan {
    /// What it is.
    pub kind: MediaKind,
    /// Positions of its soft tokens.
    ///
    /// What stands before and after does not depend on their number: where that is not known yet, a prompt of 0 soft tokens
    /// gives the ids before (`ids[..start]`) and behind (`ids[end..]`).
    pub soft_tokens: Range<usize>,
}

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, `<bos>` first, soft-token ids in the places of media.
    pub ids: Vec<u32>,
    /// Media in the order of the prompt.
    pub media: Vec<MediaSpan>,
}

/// A conversation that has no rendering.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PromptError {
    /// There is nothing to answer.
    #[error("the conversation is empty: it needs at least one user message")]
    Empty,
    /// Two messages of one role follow each other, or the first is the model's.
    #[error(
        "message {at} (counted from 1, without the system message) is from the {found}, but user and assistant must take turns, user first"
    )]
    Order {
        /// Position, from 1.
        at: usize,
        /// Its role.
        found: &'static str,
    },
    /// A system message is not the first one.
    #[error("a system message stands behind other messages: it must be the first one")]
    LateSystem,
    /// A message holds what only others may hold.
    #[error("a message of role {role} may hold {allowed} only, found {found}")]
    Misplaced {
        /// Who speaks.
        role: &'static str,
        /// What it may hold.
        allowed: &'static str,
        /// What it holds.
        found: &'static str,
    },
    /// The tokenizer has no tokens for this kind of media.
    #[error("this checkpoint has no tokens for {0} input: its tokenizer is for text only")]
    NoMedia(&'static str),
    /// The model is to think, and cannot.
    #[error(
        "{family} answers without thinking first: leave out `thinking`, or use a model that does, such as Gemma 4"
    )]
    NoThinking {
        /// The model's family.
        family: &'static str,
    },
    /// The tokenizer lacks tokens that every one of the family has.
    #[error(
        "this tokenizer has no tokens for {0}: take tokenizer.json from the same source as config.json"
    )]
    NoTokens(&'static str),
    /// More text than any context holds.
    #[error("the prompt's text has {found} bytes; the limit is {MAX_TEXT_BYTES}")]
    TooLong {
        /// Bytes of text.
        found: usize,
    },
}

/// How a conversation is written, besides its messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct PromptOptions<'a> {
    /// An answer of the model is asked for at the end.
    pub ask: bool,
    /// The model is to think before it answers.
    pub thinking: bool,
    /// What it may call.
    pub tools: &'a [Tool],
}

impl PromptOptions<'_> {
    /// An answer, at once.
    pub const ASK: PromptOptions<'static> = PromptOptions {
        ask: true,
        thinking: false,
        tools: &[],
    };
}

/// How a family writes conversations.
pub trait ChatTemplate {
    /// Whether a conversation can be written so: what there is to object to shows before any work is done.
    ///
    /// # Errors
    /// The family does not think, or the tokenizer lacks the tokens for thoughts or tools.
    fn check(&self, tokenizer: &Tokenizer, options: &PromptOptions<'_>) -> Result<(), PromptError>;

    /// How the model writes calls of tools.
    ///
    /// # Errors
    /// The tokenizer lacks the tokens for them.
    fn call_syntax(&self, tokenizer: &Tokenizer) -> Result<CallSyntax, PromptError>;

    /// Renders a conversation.
    ///
    /// # Errors
    /// Roles do not alternate where they must, a message holds what it may not, the tokenizer has no tokens for a kind of media, the
    /// text is too long, or as [`ChatTemplate::check`].
    fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &PromptOptions<'_>,
    ) -> Result<Prompt, PromptError>;

    /// Renders what follows the model's answer where a conversation goes on: the end of the model's turn, the user's next one,
    /// and the model's to come.
    ///
    /// # Errors
    /// A part is none of a user's, the tokenizer has no tokens for a kind of media, or the text is too long.
    fn render_next(&self, tokenizer: &Tokenizer, user: &[Part]) -> Result<Prompt, PromptError>;
}

/// What templates write with: joins pieces of text until a control token ends them.
pub(super) struct PromptWriter<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    prompt: Prompt,
}

impl PromptWriter<'_> {
    /// For messages and tools of bounded length.
    ///
    /// # Errors
    /// There is more text than [`MAX_TEXT_BYTES`].
    pub(super) fn new<'p, 't>(
        tokenizer: &'t Tokenizer,
        parts: impl Iterator<Item = &'p Part>,
        tools: &[Tool],
    ) -> Result<PromptWriter<'t>, PromptError> {
        let tools = tools.iter().map(Tool::text_bytes);
        let found = parts.map(Part::text_bytes).chain(tools).sum();
        if found > MAX_TEXT_BYTES {
            return Err(PromptError::TooLong { found });
        }
        Ok(PromptWriter {
            tokenizer,
            text: String::new(),
            prompt: Prompt {
                ids: Vec::new(),
                media: Vec::new(),
            },
        })
    }

    /// Ids of control tokens.
    pub(super) fn tokens(&self) -> &ControlTokens {
        self.tokenizer.control()
    }

    /// Ids around thoughts.
    ///
    /// # Errors
    /// The tokenizer has none.
    pub(super) fn thoughts(&self) -> Result<ThoughtTokens, PromptError> {
        let tokens = self.tokens().thoughts;
        tokens.ok_or(PromptError::NoTokens("thoughts"))
    }

    /// Ids around tools.
    ///
    /// # Errors
    /// The tokenizer has none.
    pub(super) fn tools(&self) -> Result<ToolTokens, PromptError> {
        self.tokens().tools.ok_or(PromptError::NoTokens("tools"))
    }

    /// What was written.
    pub(super) fn finish(mut self) -> Prompt {
        self.flush();
        self.prompt
    }

    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn flush(&mut self) {
        self.prompt
            .ids
            .extend(self.tokenizer.encode_text(&self.text));
        self.text.clear();
    }

    pub(super) fn control(&mut self, id: u32) {
        self.flush();
        self.prompt.ids.push(id);
    }

    /// The marks and places of a picture or clip.
    ///
    /// # Errors
    /// The tokenizer has no tokens for this kind.
    pub(super) fn media(&mut self, kind: MediaKind, soft_tokens: usize) -> Result<(), PromptError> {
        let (tokens, name) = match kind {
            MediaKind::Image => (self.tokens().image, "image"),
            MediaKind::Audio => (self.tokens().audio, "audio"),
        };
        let tokens = tokens.ok_or(PromptError::NoMedia(name))?;
        self.control(tokens.start);
        let start = self.prompt.ids.len();
        self.prompt
            .ids
            .extend(std::iter::repeat_n(tokens.soft, soft_tokens));
        self.prompt.media.push(MediaSpan {
            kind,
            soft_tokens: start..self.prompt.ids.len(),
        });
        self.control(tokens.end);
        Ok(())
    }
}

/// The error of a part that a message of `role` may not hold.
pub(super) fn misplaced(role: Role, allowed: &'static str, found: &Part) -> PromptError {
    PromptError::Misplaced {
        role: role.name(),
        allowed,
        found: found.name(),
    }
}

/// Removes white space as the templates' `trim` does, which counts four separators of ASCII to it.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}
