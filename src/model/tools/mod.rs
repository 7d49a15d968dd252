//! Tools as prompts name them: what they are, calls of them, and what came of those; and the grammar of such calls.
//!
//! A call is written in a family's own way ([`CallSyntax`]). Its grammar is made of the tools' schemas, so that nothing comes out
//! that is not the name of a tool with arguments that fit its schema.

mod read;
mod schema;
mod write;

use serde_json::{Map, Value};

use super::grammar::{Grammar, GrammarError};
use super::tokenizer::ToolTokens;

pub use read::read_calls;

/// Calls of one answer at most: a model that is lost would make no end of them.
pub const MAX_CALLS: usize = 16;
/// Longest name of a tool, bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Tools of one request at most.
pub const MAX_TOOLS: usize = 1024;

/// What the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The name that it is called by.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of its arguments, an object; `null` where it takes none.
    pub parameters: Value,
}

/// A call that the model made.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    /// The tool.
    pub name: String,
    /// An object, or one value.
    pub value: Value,
}

impl Tool {
    /// Bytes of its text, nearly.
    pub(super) fn text_bytes(&self) -> usize {
        self.name.len() + self.description.len() + self.parameters.to_string().len()
    }
}

impl ToolCall {
    /// Bytes of its text, nearly.
    pub(super) fn text_bytes(&self) -> usize {
        let arguments = self.arguments.iter();
        let arguments = arguments.map(|(key, value)| key.len() + value.to_string().len());
        self.name.len() + arguments.sum::<usize>()
    }
}

impl ToolResult {
    /// Bytes of its text, nearly.
    pub(super) fn text_bytes(&self) -> usize {
        self.name.len() + self.value.to_string().len()
    }
}

/// How a family writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSyntax {
    /// Between control tokens, keys without quotes, texts between quote tokens: `call:NAME{key:value}`.
    Tokens(ToolTokens),
    /// JSON: `{"name": NAME, "parameters": {"key": value}}`, one call a line.
    Json,
}

/// What an answer may be, where there are tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallRules {
    /// The answer is a call; else a call or a text.
    pub must: bool,
    /// There may be several calls.
    pub several: bool,
}

/// Why tools cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// Its name cannot be written.
    #[error("tool {at} (counted from 1): its name {found}")]
    Name {
        /// Position, from 1.
        at: usize,
        /// What is wrong with it.
        found: String,
    },
    /// Two have one name.
    #[error("there are two tools of the name {0:?}: leave one out")]
    Twice(String),
    /// There are too many.
    #[error("there are {0} tools; {MAX_TOOLS} are the most")]
    TooMany(usize),
    /// Its schema cannot be followed.
    #[error("tool {tool:?}: {key}: {reason}")]
    Schema {
        /// The tool.
        tool: String,
        /// Where in its schema.
        key: String,
        /// Why.
        reason: String,
    },
    /// The grammar of all of them cannot be used.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// Looks whether tools can be told apart and written.
///
/// # Errors
/// The first name that is empty, too long, there twice, or holds what no call can hold.
pub fn check_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<(), ToolError> {
    let mut seen = std::collections::HashSet::new();
    for (at, name) in names.into_iter().enumerate() {
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | '"');
        let found = match name {
            "" => Some("is empty".to_owned()),
            name if name.len() > MAX_NAME_BYTES => Some(format!(
                "has {} bytes; {MAX_NAME_BYTES} are the most",
                name.len()
            )),
            name if name.contains(odd) => Some(
                "holds white space, a brace, a quotation mark or a control character".to_owned(),
            ),
            _ => None,
        };
        if let Some(found) = found {
            return Err(ToolError::Name { at: at + 1, found });
        }
        if !seen.insert(name) {
            return Err(ToolError::Twice(name.to_owned()));
        }
    }
    match seen.len() {
        found if found > MAX_TOOLS => Err(ToolError::TooMany(found)),
        _ => Ok(()),
    }
}

/// The grammar of an answer that calls these tools, or is a text where it need not: a text of the schema `text`, or any.
///
/// Where any text may come, only the beginning of it is in the grammar of [`CallSyntax::Json`], and none of it in that of
/// [`CallSyntax::Tokens`], whose calls begin with a token that no text holds: the rest is for whoever decodes to leave free.
///
/// # Errors
/// A name or a schema that cannot be followed.
pub fn grammar(
    syntax: CallSyntax,
    tools: &[Tool],
    rules: CallRules,
    text: Option<&Value>,
) -> Result<Grammar, ToolError> {
    check_names(tools.iter().map(|tool| tool.name.as_str()))?;
    Ok(Grammar::calls(write::calls(syntax, tools, rules, text)?))
}
