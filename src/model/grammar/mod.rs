//! What an answer may look like: a JSON schema, a regular expression, one of a few texts, or calls of tools.
//!
//! A [`Grammar`] is what is asked; a [`Compiler`], made once for a tokenizer, turns it into a [`Constraint`], which goes through
//! one answer token by token. The parsing is that of the crate `llguidance`: an Earley parser over a lexer of derivatives, walked
//! along a trie of the vocabulary's bytes.
//!
//! Tokens that stand for the same bytes are all allowed where one is; control tokens never, but for those that end an answer,
//! where the answer may end. A stretch of bytes that leaves no choice is tokenized as the tokenizer does it.
//!
//! With 262,144 tokens the trie takes 16 MB and is built in 1.2 s of an x86_64 core (unoptimised build); 18 commands with their
//! slots compile in 14 ms, and a step takes 0.4 ms at most, 10 ms where a free text begins (`benches/grammar.rs`).

mod compiler;
mod constraint;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use compiler::Compiler;
pub use constraint::{Constraint, Next, TokenSet};

/// How large a grammar may be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct GrammarLimits {
    /// Largest schema (as compact JSON), regular expression, or list of choices, bytes.
    pub max_bytes: usize,
    /// Most choices.
    pub max_choices: usize,
}

impl Default for GrammarLimits {
    fn default() -> GrammarLimits {
        GrammarLimits {
            max_bytes: 65_536,
            max_choices: 1024,
        }
    }
}

/// Why an answer cannot be constrained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// More than the limits allow.
    #[error("the {what} has {found} {unit}; limits.grammar.{key} allows {limit}")]
    TooLarge {
        /// JSON schema, regular expression, or list of choices.
        what: &'static str,
        /// Its size.
        found: usize,
        /// Bytes or choices.
        unit: &'static str,
        /// The limit's key.
        key: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No choice, or an empty one.
    #[error("the list of choices {reason}")]
    Choices {
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be compiled.
    #[error("the {what} cannot be used: {reason}")]
    Unsupported {
        /// JSON schema, regular expression, or list of choices.
        what: &'static str,
        /// Where and why.
        reason: String,
    },
    /// The parser gave up in the middle of an answer.
    #[error("the {what} cannot be followed any further: {reason}; make it simpler")]
    GaveUp {
        /// JSON schema, regular expression, or list of choices.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The vocabulary does not fit the parser.
    #[error("answers of this model cannot be constrained: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
}

/// What an answer may look like; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Grammar {
    source: Arc<Source>,
    confidence: bool,
}

#[derive(Debug, PartialEq)]
enum Source {
    JsonSchema(Value),
    Regex(String),
    Choices(Vec<String>),
    /// In the parser's language.
    Calls(String),
}

impl Grammar {
    /// JSON that fits a schema (2020-12; `$ref` only within the document). White space is allowed where JSON allows it, up to 20
    /// characters in a row; `"x-guidance": {"whitespace_flexible": false}` in the schema forbids it.
    ///
    /// # Errors
    /// The schema is larger than the limits; what it says is looked at when it is compiled.
    pub fn json_schema(schema: &Value, limits: &GrammarLimits) -> Result<Grammar, GrammarError> {
        let source = Source::JsonSchema(schema.clone());
        check_bytes(source.what(), schema.to_string().len(), limits)?;
        Ok(Grammar::of(source))
    }

    /// A text that a regular expression matches from its beginning to its end; no look-around, no back-references.
    ///
    /// # Errors
    /// The expression is larger than the limits; what it says is looked at when it is compiled.
    pub fn regex(regex: &str, limits: &GrammarLimits) -> Result<Grammar, GrammarError> {
        let source = Source::Regex(regex.to_owned());
        check_bytes(source.what(), regex.len(), limits)?;
        Ok(Grammar::of(source))
    }

    /// One of these texts.
    ///
    /// # Errors
    /// There is none, one is empty, or they are more than the limits allow.
    pub fn choices(choices: &[String], limits: &GrammarLimits) -> Result<Grammar, GrammarError> {
        let wrong = |reason: String| GrammarError::Choices { reason };
        if choices.is_empty() {
            return Err(wrong("is empty".to_owned()));
        }
        if let Some(at) = choices.iter().position(String::is_empty) {
            return Err(wrong(format!("has an empty one, number {}", at + 1)));
        }
        let source = Source::Choices(choices.to_vec());
        if choices.len() > limits.max_choices {
            return Err(GrammarError::TooLarge {
                what: source.what(),
                found: choices.len(),
                unit: "entries",
                key: "max_choices",
                limit: limits.max_choices,
            });
        }
        check_bytes(source.what(), choices.iter().map(String::len).sum(), limits)?;
        Ok(Grammar::of(source))
    }

    /// The schema that an answer fits, where that is what is asked.
    pub fn schema(&self) -> Option<Value> {
        match &*self.source {
            Source::JsonSchema(schema) => Some(compiler::with_white_space(schema)),
            _ => None,
        }
    }

    /// Calls of tools, in the parser's own language; `model::tools` writes it.
    pub(super) fn calls(rules: String) -> Grammar {
        Grammar::of(Source::Calls(rules))
    }

    /// The same, and the answer is to say how probable the model found what the grammar allows. That needs the logits of
    /// the whole vocabulary at every token; without it, those of the allowed tokens are enough.
    #[must_use]
    pub fn with_confidence(self) -> Grammar {
        Grammar {
            confidence: true,
            ..self
        }
    }

    /// Whether the answer is to say how probable the model found what the grammar allows.
    pub fn confidence(&self) -> bool {
        self.confidence
    }

    fn of(source: Source) -> Grammar {
        Grammar {
            source: Arc::new(source),
            confidence: false,
        }
    }
}

impl Source {
    fn what(&self) -> &'static str {
        match self {
            Source::JsonSchema(_) => "JSON schema",
            Source::Regex(_) => "regular expression",
            Source::Choices(_) => "list of choices",
            Source::Calls(_) => "list of tools",
        }
    }
}

fn check_bytes(
    what: &'static str,
    found: usize,
    limits: &GrammarLimits,
) -> Result<(), GrammarError> {
    if found > limits.max_bytes {
        return Err(GrammarError::TooLarge {
            what,
            found,
            unit: "bytes",
            key: "max_bytes",
            limit: limits.max_bytes,
        });
    }
    Ok(())
}
