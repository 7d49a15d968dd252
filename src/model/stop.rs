//! Token ids to text as they come, and when to stop.
//!
//! What a token adds is printed at once, except what may still turn out otherwise: the first bytes of a UTF-8 character,
//! and text that may be the beginning of a stop string. Both are held back until the next token decides.
//!
//! What stands between the marks of a thought is no part of the text: it is kept beside it.

use std::sync::Arc;

use super::prompt::trim;
use super::tokenizer::{ThoughtTokens, Tokenizer, push_lossy};

/// What ends an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRules {
    /// Any of these tokens; it is not printed.
    pub tokens: Vec<u32>,
    /// Any of these texts, wherever tokens begin and end; it is not printed. Empty ones stop nothing.
    pub strings: Vec<String>,
    /// So many tokens, a stop token not counted.
    pub max_tokens: usize,
}

/// What a thought begins with: the name of its channel.
const CHANNEL: &str = "thought\n";

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model gave a stop token: the answer is complete.
    Token,
    /// A stop string came up.
    String,
    /// `max_tokens` were given.
    MaxTokens,
}

/// The text of one answer as its tokens come.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    rules: Arc<StopRules>,
    /// Bytes not printed yet.
    held: Vec<u8>,
    /// What the latest token made printable.
    printable: String,
    tokens: usize,
    stopped: Option<StopReason>,
    marks: Option<ThoughtTokens>,
    /// The thought in work.
    thought: Option<Vec<u8>>,
    /// Those before.
    thoughts: String,
    /// Bytes of the thoughts that were given already.
    thoughts_given: usize,
}

impl TextStream {
    /// A stream at the beginning of an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, rules: Arc<StopRules>) -> TextStream {
        // Room for the longest stop string and some long tokens: no allocation between two tokens.
        let longest = rules.strings.iter().map(String::len).max().unwrap_or(0);
        let room = longest + 1024;
        TextStream {
            held: Vec::with_capacity(room),
            printable: String::with_capacity(room),
            tokens: 0,
            // An answer of no tokens is complete before it begins.
            stopped: (rules.max_tokens == 0).then_some(StopReason::MaxTokens),
            marks: tokenizer.control().thoughts,
            thought: None,
            thoughts: String::new(),
            thoughts_given: 0,
            tokenizer,
            rules,
        }
    }

    /// Takes the next token; gives the text that is printable now, and the reason where the answer ends with it.
    ///
    /// Control tokens are not printed. After the end nothing more comes.
    pub fn push(&mut self, id: u32) -> (&str, Option<StopReason>) {
        self.printable.clear();
        if self.stopped.is_some() {
            return ("", self.stopped);
        }
        if self.rules.tokens.contains(&id) {
            self.stop(StopReason::Token, self.held.len());
            return (&self.printable, self.stopped);
        }
        self.tokens += 1;
        match self.marks {
            Some(marks) if id == marks.start => {
                self.end_thought();
                self.thought = Some(Vec::new());
            }
            Some(marks) if id == marks.end => self.end_thought(),
            _ if self.tokenizer.is_special(id) => {}
            _ => {
                let text = self.thought.as_mut().unwrap_or(&mut self.held);
                // An id without a token has no text.
                self.tokenizer.append_token_bytes(id, text);
            }
        }
        if let Some(at) = self.stop_string() {
            self.stop(StopReason::String, at);
        } else if self.tokens == self.rules.max_tokens {
            self.stop(StopReason::MaxTokens, self.held.len());
        } else {
            let ready = self.begun_stop_string().min(whole_characters(&self.held));
            push_lossy(&self.held[..ready], &mut self.printable);
            self.held.drain(..ready);
        }
        (&self.printable, self.stopped)
    }

    /// Takes the next token where it is no text, but a part of a call; gives the reason where the answer ends with it.
    pub fn push_unseen(&mut self, id: u32) -> Option<StopReason> {
        if self.stopped.is_none() && self.rules.tokens.contains(&id) {
            self.stopped = Some(StopReason::Token);
        }
        if self.stopped.is_none() {
            self.tokens += 1;
            let is_last = self.tokens == self.rules.max_tokens;
            self.stopped = is_last.then_some(StopReason::MaxTokens);
        }
        self.stopped
    }

    /// Gives the text still held back, where an answer ends for another reason (cancelled, or the context is full).
    pub fn finish(&mut self) -> &str {
        self.printable.clear();
        push_lossy(&self.held, &mut self.printable);
        self.held.clear();
        &self.printable
    }

    /// Whether the next token is a part of a thought, or its end.
    pub fn is_thinking(&self) -> bool {
        self.thought.is_some()
    }

    /// What the model thought so far, without the name of the channel; `None` where it thought nothing.
    pub fn thoughts(&mut self) -> Option<String> {
        self.end_thought();
        Some(std::mem::take(&mut self.thoughts)).filter(|thoughts| !thoughts.is_empty())
    }

    /// What the model thought since the last time; [`TextStream::thoughts`] begins with all of these.
    pub fn new_thoughts(&mut self) -> Option<String> {
        let mut thoughts = self.thoughts.clone();
        if let Some(bytes) = &self.thought {
            add_thought(&mut thoughts, &bytes[..whole_characters(bytes)]);
        }
        let new = thoughts.get(self.thoughts_given..)?.to_owned();
        self.thoughts_given = thoughts.len();
        (!new.is_empty()).then_some(new)
    }

    fn end_thought(&mut self) {
        if let Some(bytes) = self.thought.take() {
            add_thought(&mut self.thoughts, &bytes);
        }
    }

    /// Why the answer ended; `None` while it goes on.
    pub fn stopped(&self) -> Option<StopReason> {
        self.stopped
    }

    /// Tokens taken, a stop token not counted.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    fn stop(&mut self, reason: StopReason, end: usize) {
        push_lossy(&self.held[..end], &mut self.printable);
        self.held.clear();
        self.stopped = Some(reason);
    }

    fn strings(&self) -> impl Iterator<Item = &[u8]> {
        self.rules
            .strings
            .iter()
            .map(String::as_bytes)
            .filter(|string| !string.is_empty())
    }

    /// Where the stop string begins that is complete first, the longest of those that end together.
    ///
    /// The first to be complete, not the first to begin: so the result does not depend on where tokens end.
    fn stop_string(&self) -> Option<usize> {
        (1..=self.held.len()).find_map(|end| {
            let ending = self
                .strings()
                .filter(|string| self.held[..end].ends_with(string));
            ending.map(|string| end - string.len()).min()
        })
    }

    /// Where the held bytes end in what may be the beginning of a stop string.
    fn begun_stop_string(&self) -> usize {
        let begun = |at: &usize| {
            self.strings()
                .any(|string| string.starts_with(&self.held[*at..]))
        };
        (0..self.held.len()).find(begun).unwrap_or(self.held.len())
    }
}

/// Adds a thought to those before, without the name of its channel.
fn add_thought(thoughts: &mut String, bytes: &[u8]) {
    let mut text = String::with_capacity(bytes.len());
    push_lossy(bytes, &mut text);
    let thought = match text.strip_prefix(CHANNEL) {
        Some(thought) => trim(thought),
        // Cut within the channel's name: nothing was thought yet.
        None if CHANNEL.starts_with(text.as_str()) => "",
        None => trim(&text),
    };
    if !thoughts.is_empty() && !thought.is_empty() {
        thoughts.push('\n');
    }
    thoughts.push_str(thought);
}

/// How many of the bytes come before a UTF-8 character whose other bytes may still follow.
fn whole_characters(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so it began among the last three.
    let tail = bytes.len().saturating_sub(3);
    let incomplete = |&at: &usize| {
        std::str::from_utf8(&bytes[at..])
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (tail..bytes.len()).find(incomplete).unwrap_or(bytes.len())
}
