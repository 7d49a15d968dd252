//! Answers written down beforehand, for tests: what a model that knows better would say is put where its tokens are chosen.
//!
//! The logits of the token that goes on with the script are raised, if nothing forbids that token; everything else is as always: the
//! prompt, the grammar, the choice, the reading of what came out. A grammar that does not allow what the script says is so found out.

use std::path::Path;

use serde::Deserialize;

use super::engine::Engine;
use super::{Part, Request, Role};
use crate::model::cue::Cue;

/// An answer of a script's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// What the user's last message holds.
    user: String,
    /// What the model says to it.
    say: String,
    /// What it says to what came of its calls.
    #[serde(default = "done")]
    then: String,
}

fn done() -> String {
    "Done.".to_owned()
}

impl Engine {
    /// Has the model say what `script` has, from the next answer on. For tests only.
    pub fn follow(&mut self, script: impl FnMut(&Request) -> Option<String> + Send + 'static) {
        self.script = Some(Box::new(script));
    }

    /// As [`Engine::follow`], by a file of JSON: a list of `{"user", "say", "then"?}`, of which the first counts whose `user` stands in
    /// the user's last message; `then` is said once results of calls are there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn follow_file(&mut self, path: &Path) -> std::io::Result<()> {
        let lines: Vec<Line> = serde_json::from_slice(&std::fs::read(path)?)?;
        self.follow(move |request| {
            let last = request.messages.last()?;
            let spoken = request
                .messages
                .iter()
                .rev()
                .find(|message| message.role == Role::User)?;
            let texts = spoken.content.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                _ => None,
            });
            let texts: Vec<&str> = texts.collect();
            let line = lines
                .iter()
                .find(|line| texts.iter().any(|text| text.contains(&line.user)))?;
            let informed = matches!(last.content.last(), Some(Part::ToolResult(_)));
            Some(if informed {
                line.then.clone()
            } else {
                line.say.clone()
            })
        });
        Ok(())
    }

    /// What is written down for a request.
    pub(super) fn cue(&mut self, request: &Request) -> Option<Cue> {
        let text = self.script.as_mut()?(request)?;
        Some(Cue::new(self.shared_tokenizer(), self.stop_tokens(), &text))
    }
}
