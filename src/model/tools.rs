//! Tools as prompts name them: what they are, calls of them, and what came of those.

use serde_json::{Map, Value};

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
#[derive(Clone, Debug, PartialEq)]
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
