//! The vocabulary as a trie, and grammars compiled against it.

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::{Value, json};

use super::{Constraint, Grammar, GrammarError, Source};
use crate::model::tokenizer::Tokenizer;

/// Longer tokens are never allowed: the trie bounds its depth, and no published token is half as long.
const MAX_TOKEN_BYTES: usize = 256;
/// Bytes of all tokens; the trie has a node for each at most, and no room for more.
const MAX_VOCABULARY_BYTES: usize = 4_000_000;
/// Bytes of memory that the lexer's states may take are some 2,000 times as many.
const MAX_LEXER_STATES: usize = 20_000;
/// White space between the parts of JSON, unless the schema says otherwise: an unbounded run would let a model that is lost
/// write nothing else.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,20}";

/// Compiles grammars for one tokenizer.
pub struct Compiler {
    factory: ParserFactory,
}

impl Compiler {
    /// Builds the trie of the first `vocabulary` ids; the tokens of `stop` end an answer.
    ///
    /// # Errors
    /// The vocabulary is too large for the parser, or a stop token lies outside it.
    pub fn new(
        tokenizer: &Arc<Tokenizer>,
        vocabulary: usize,
        stop: &[u32],
    ) -> Result<Compiler, GrammarError> {
        let wrong = |reason: String| GrammarError::Vocabulary { reason };
        let words: Vec<Vec<u8>> = (0..vocabulary as u32)
            .map(|id| word(tokenizer, id))
            .collect();
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > MAX_VOCABULARY_BYTES {
            return Err(wrong(format!(
                "its tokens have {bytes} bytes together, and {MAX_VOCABULARY_BYTES} are the most"
            )));
        }
        let stop: Vec<u32> = stop
            .iter()
            .copied()
            .filter(|&id| (id as usize) < vocabulary)
            .collect();
        let Some(&first) = stop.first() else {
            return Err(wrong("it has no token that ends an answer".to_owned()));
        };
        let trie = TokTrie::from(&TokRxInfo::new(vocabulary as u32, first), &words);
        let environment: TokEnv = Arc::new(Environment {
            trie: trie.with_eos_tokens(&stop),
            tokenizer: Arc::clone(tokenizer),
        });
        drop(trie);
        let capabilities = InferenceCapabilities {
            ff_tokens: true,
            ..InferenceCapabilities::default()
        };
        // Tables of the tokens inside JSON strings would make masks of free text cheaper, for several times the memory of the
        // trie.
        let mut factory = ParserFactory::new(&environment, capabilities, &[])
            .map_err(|error| wrong(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = MAX_LEXER_STATES;
        limits.verbose_errors = false;
        Ok(Compiler { factory })
    }

    /// Compiles a grammar, for one answer.
    ///
    /// # Errors
    /// It says what the parser does not support, contradicts itself, or is too complex.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        let what = grammar.source.what();
        let unsupported = |reason: String| GrammarError::Unsupported {
            what,
            reason: plain(&reason),
        };
        let rules = match &*grammar.source {
            Source::JsonSchema(schema) => {
                GrammarWithLexer::from_json_schema(with_white_space(schema))
            }
            Source::Regex(regex) => {
                // The translation to the parser's language would drop it.
                let backslashes = regex
                    .bytes()
                    .rev()
                    .take_while(|&byte| byte == b'\\')
                    .count();
                if !backslashes.is_multiple_of(2) {
                    return Err(unsupported(
                        "it ends in a backslash that quotes nothing".to_owned(),
                    ));
                }
                GrammarWithLexer::from_regex(regex)
            }
            Source::Choices(choices) => GrammarWithLexer::from_lark(alternatives(choices)),
            Source::Calls(rules) => GrammarWithLexer::from_lark(rules.clone()),
        };
        let parser = self
            .factory
            .create_parser(TopLevelGrammar::from_grammar(rules))
            .map_err(|error| unsupported(format!("{error:#}")))?;
        Ok(Constraint::new(Matcher::new(Ok(parser)), what))
    }
}

/// The bytes that a token adds to an answer; none where it never may stand in one.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    // A marked word is no text to the trie.
    let marked = bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) && bytes.len() > 1;
    if tokenizer.is_special(id) || bytes.len() > MAX_TOKEN_BYTES || marked {
        return Vec::new();
    }
    bytes
}

/// The tokenizer as the parser sees it.
struct Environment {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.tokenizer.encode_bytes(bytes)
    }
}

/// The schema with our rule for white space, where it has none of its own.
pub(super) fn with_white_space(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(keys) = &mut schema
        && !keys.contains_key("x-guidance")
    {
        let options = JsonCompileOptions {
            whitespace_pattern: Some(WHITE_SPACE.to_owned()),
            ..JsonCompileOptions::default()
        };
        keys.insert("x-guidance".to_owned(), json!(options));
    }
    schema
}

/// A rule of the parser's language: its strings are JSON's.
fn alternatives(choices: &[String]) -> String {
    let quoted: Vec<String> = choices
        .iter()
        .map(|choice| json!(choice).to_string())
        .collect();
    format!("start: CHOICE\nCHOICE: {}", quoted.join(" | "))
}

/// The parser's error in one line, without the place in its own language, where expression and choices are put into.
fn plain(error: &str) -> String {
    let numbered = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let lines = error.lines().take_while(|line| !numbered(line));
    let text = lines
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ");
    match text
        .strip_prefix("at ")
        .and_then(|rest| rest.split_once("): "))
    {
        Some((_, reason)) => reason.replace(" (in regex)", ""),
        None => text,
    }
}
