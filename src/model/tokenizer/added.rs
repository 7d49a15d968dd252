//! Added tokens: texts that become one id before anything else is looked at (control tokens, runs of newlines).

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use serde::Deserialize;

/// One entry of `added_tokens`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

/// A piece of text after the added tokens were cut out of it.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'t> {
    /// Text between added tokens; never empty.
    Text(&'t str),
    /// An added token.
    Token(u32),
}

/// Finds a set of added tokens in a text: the leftmost first, of those the longest.
#[derive(Debug)]
pub(super) struct Matcher {
    automaton: Option<AhoCorasick>,
    /// By pattern number.
    tokens: Vec<AddedToken>,
}

impl Matcher {
    /// A matcher for `tokens`, each found by its `content`.
    pub(super) fn new(tokens: Vec<AddedToken>) -> Result<Self, aho_corasick::BuildError> {
        let automaton = if tokens.is_empty() {
            None
        } else {
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                // Small in memory; speed does not matter for prompts.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(tokens.iter().map(|token| &token.content))?;
            Some(automaton)
        };
        Ok(Matcher { automaton, tokens })
    }

    /// Calls `each` for every piece of `text`, in order; tokens for which `skip` holds stay text.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        skip: impl Fn(u32) -> bool,
        mut each: impl FnMut(Piece<'t>),
    ) {
        let mut done = 0;
        for found in self
            .automaton
            .iter()
            .flat_map(|automaton| automaton.find_iter(text))
        {
            let token = &self.tokens[found.pattern()];
            if skip(token.id) {
                continue;
            }
            let (mut start, mut end) = (found.start(), found.end());
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                each(Piece::Text(&text[done..start]));
            }
            each(Piece::Token(token.id));
            done = end;
        }
        if done < text.len() {
            each(Piece::Text(&text[done..]));
        }
    }
}
