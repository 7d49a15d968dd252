//! Gemma's turn format: messages to token ids, with places for the soft tokens of images and audio clips.
//!
//! `<bos>`, then for each message `<start_of_turn>` role newline content `<end_of_turn>` newline; `assistant` is written
//! `model`; a system message is no turn of its own, its text and two newlines stand before the first message's text; at
//! the end `<start_of_turn>model` newline asks for an answer. An image becomes two newlines, `<start_of_image>`, one
//! `<image_soft_token>` per soft token, `<end_of_image>`, two newlines; an audio clip likewise.
//!
//! Control tokens are put in as ids, and the text between two of them is encoded as one piece with control tokens
//! switched off: newlines around media join with their neighbours as in the reference, and a user's text can never become
//! a control token, however it is spelled or split.
//!
//! Source: the published `chat_template.jinja` and `Gemma3nProcessor` of the reference implementation.

use std::ops::Range;

use super::tokenizer::{MediaTokens, Tokenizer};

/// The most text that a prompt may hold: far beyond 32,768 tokens, and a bound for the memory of encoding it.
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

/// A kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// An audio clip.
    Audio,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text; white space around it is removed, except in a system message.
    Text(String),
    /// A picture that becomes so many soft tokens (`vision_soft_tokens_per_image`).
    Image {
        /// Places for soft tokens.
        soft_tokens: usize,
    },
    /// An audio clip that becomes so many soft tokens (188 in the reference, fewer without padding).
    Audio {
        /// Places for soft tokens.
        soft_tokens: usize,
    },
}

impl Part {
    fn text_bytes(&self) -> usize {
        match self {
            Part::Text(text) => text.len(),
            Part::Image { .. } | Part::Audio { .. } => 0,
        }
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A system message holds something else than text.
    #[error("a system message may hold text only, found an image or audio part")]
    SystemMedia,
    /// The tokenizer has no tokens for this kind of media.
    #[error("this checkpoint has no tokens for {0} input: its tokenizer is for text only")]
    NoMedia(&'static str),
    /// More text than any context holds.
    #[error("the prompt's text has {found} bytes; the limit is {MAX_TEXT_BYTES}")]
    TooLong {
        /// Bytes of text.
        found: usize,
    },
}

impl Prompt {
    /// Renders a conversation; with `ask`, an answer of the model is asked for at the end.
    ///
    /// # Errors
    /// Roles do not alternate, a system message is misplaced or holds media, the tokenizer has no tokens for a kind of
    /// media, or the text is too long.
    pub fn render(
        tokenizer: &Tokenizer,
        messages: &[Message],
        ask: bool,
    ) -> Result<Prompt, PromptError> {
        check_length(messages.iter().flat_map(|message| &message.content))?;
        let (system, turns) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (system_text(first)?, rest),
            _ => (String::new(), messages),
        };
        if turns.is_empty() {
            return Err(PromptError::Empty);
        }
        let control = tokenizer.control();
        let mut writer = Writer::new(tokenizer);
        writer.control(control.bos);
        for (at, message) in turns.iter().enumerate() {
            let (expected, name) = if at % 2 == 0 {
                (Role::User, "user")
            } else {
                (Role::Assistant, "model")
            };
            if message.role != expected {
                return Err(match message.role {
                    Role::System => PromptError::LateSystem,
                    Role::User => PromptError::Order {
                        at: at + 1,
                        found: "user",
                    },
                    Role::Assistant => PromptError::Order {
                        at: at + 1,
                        found: "assistant",
                    },
                });
            }
            writer.turn(name, if at == 0 { &system } else { "" }, &message.content)?;
        }
        if ask {
            writer.ask();
        }
        writer.flush();
        Ok(writer.prompt)
    }

    /// Renders what follows the model's answer where a conversation goes on: the end of the model's turn, the user's next one,
    /// and the model's to come.
    ///
    /// # Errors
    /// The tokenizer has no tokens for a kind of media, or the text is too long.
    pub fn render_next(tokenizer: &Tokenizer, user: &[Part]) -> Result<Prompt, PromptError> {
        check_length(user.iter())?;
        let mut writer = Writer::new(tokenizer);
        writer.control(tokenizer.control().end_of_turn);
        writer.text("\n");
        writer.turn("user", "", user)?;
        writer.ask();
        writer.flush();
        Ok(writer.prompt)
    }
}

fn check_length<'p>(parts: impl Iterator<Item = &'p Part>) -> Result<(), PromptError> {
    let found = parts.map(Part::text_bytes).sum();
    if found > MAX_TEXT_BYTES {
        return Err(PromptError::TooLong { found });
    }
    Ok(())
}

/// Joins pieces of text until a control token ends them.
struct Writer<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    prompt: Prompt,
}

impl Writer<'_> {
    fn new(tokenizer: &Tokenizer) -> Writer<'_> {
        Writer {
            tokenizer,
            text: String::new(),
            prompt: Prompt {
                ids: Vec::new(),
                media: Vec::new(),
            },
        }
    }

    /// One turn; `before` stands in front of its content.
    fn turn(&mut self, name: &str, before: &str, content: &[Part]) -> Result<(), PromptError> {
        let control = self.tokenizer.control();
        self.control(control.start_of_turn);
        self.text(name);
        self.text("\n");
        self.text(before);
        for part in content {
            match part {
                Part::Text(text) => self.text(trim(text)),
                Part::Image { soft_tokens } => self.media(
                    MediaKind::Image,
                    control.image.ok_or(PromptError::NoMedia("image"))?,
                    *soft_tokens,
                ),
                Part::Audio { soft_tokens } => self.media(
                    MediaKind::Audio,
                    control.audio.ok_or(PromptError::NoMedia("audio"))?,
                    *soft_tokens,
                ),
            }
        }
        self.control(control.end_of_turn);
        self.text("\n");
        Ok(())
    }

    /// The beginning of the model's turn.
    fn ask(&mut self) {
        self.control(self.tokenizer.control().start_of_turn);
        self.text("model\n");
    }

    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn flush(&mut self) {
        self.prompt
            .ids
            .extend(self.tokenizer.encode_text(&self.text));
        self.text.clear();
    }

    fn control(&mut self, id: u32) {
        self.flush();
        self.prompt.ids.push(id);
    }

    fn media(&mut self, kind: MediaKind, tokens: MediaTokens, soft_tokens: usize) {
        self.text("\n\n");
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
        self.text("\n\n");
    }
}

/// A system message's text with the two newlines behind it; the template trims other messages, but not this one.
fn system_text(message: &Message) -> Result<String, PromptError> {
    let mut system = String::new();
    for part in &message.content {
        match part {
            Part::Text(text) => system.push_str(text),
            Part::Image { .. } | Part::Audio { .. } => return Err(PromptError::SystemMedia),
        }
    }
    system.push_str("\n\n");
    Ok(system)
}

/// Removes white space as the template's `trim` does, which counts four separators of ASCII to it.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}
