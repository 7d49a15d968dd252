//! What a model is asked, word by word, for a board that has none.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked about speech or a sentence, as the configuration of another board has it: only the model is missing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Wording {
    /// What stands before everything else.
    pub instructions: Option<String>,
    /// What stands behind the sound; where there is none, all that is asked.
    pub prompt: String,
    /// JSON schema of the commands that the answer must be. How probable the model found them is told in the reply's details, as
    /// `confidence`.
    pub commands: Option<Value>,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// Whether somebody speaks at all is to be looked at.
    pub unsure: bool,
}

/// What is made of speech.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// It is written down; the spoken language, in the prompt's words.
    Written(String),
    /// What another board asks about it.
    Worded(Box<Wording>),
}
