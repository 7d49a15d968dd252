//! Guesses of how an answer goes on. The model looks at several of them in one pass, which reads its weights once, and what it would have
//! chosen itself is kept: the answer is the same, bit by bit, whatever is guessed.
//!
//! Each source is a file and a [`Source`]; [`Guesser`] asks them, and decides how much to guess, if anything.

mod acceptance;
mod answers;
mod costs;
mod drafting;
mod earlier;
mod earlier_file;
mod follow;
mod phrases;
mod prompt;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Pool;
use serde::{Deserialize, Serialize};

use self::acceptance::Acceptance;
use self::costs::Costs;
pub use self::earlier::EarlierAnswers;
use self::phrases::Phrases;
use self::prompt::PromptLookup;
use crate::model::decoder::Decoder;
use crate::model::decoder::kv_cache::KvCache;

/// Tokens of a pass at most, those that have to be and guesses together.
const MAX_PASS: usize = 16;

/// Guesses of a pass at most.
const MAX_GUESSES: usize = 7;

/// How sure a source may be of a guess: 0 and up. What that is worth is measured.
pub const STRENGTHS: usize = 4;

/// Where an answer stands.
pub struct Stand<'a> {
    /// What the answer is about: who said or showed something, and what was asked.
    pub topic: &'a Topic,
    /// The prompt, soft tokens included; of a conversation that goes on, what was added to it.
    pub prompt: &'a [u32],
    /// The answer. Its last token was chosen, or had to be, and is not in the cache yet.
    pub written: &'a [u32],
    /// What the model knows of it; `None` where the last token had to be, for then nothing was computed to choose it.
    pub model: Option<Known<'a>>,
}

/// What the model knows where an answer stands.
pub struct Known<'a> {
    /// The decoder; its last chunk has the hidden state of the token before the answer's last one.
    pub decoder: &'a mut dyn Decoder,
    /// Which hidden state of the chunk that is: the one that the last token was chosen by.
    pub row: usize,
    /// All tokens but the last one.
    pub cache: &'a KvCache,
    /// The threads that compute.
    pub pool: &'a Pool,
}

/// Where guesses come from. It is asked before each pass, and knows of an answer only what it is told then: several may be on their way.
pub trait Source: Send {
    /// Its name in figures.
    fn name(&self) -> &'static str;

    /// Guesses what follows: appends at most `most` tokens, or none, and tells how sure it is of the first, below [`STRENGTHS`].
    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize;

    /// Whether asking it costs nothing beside a pass. One that computes is asked only where that pays.
    fn is_free(&self) -> bool {
        true
    }

    /// Learns from a whole answer.
    fn learn(&mut self, _topic: &Topic, _answer: &[u32]) {}
}

/// What an answer is about. Answers about the same are likely to be alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The microphone or camera, as whoever runs the engine calls it.
    pub origin: Option<Arc<str>>,
    /// What was asked, where nobody said or showed it: a hash of the prompt's text.
    pub prompt: u64,
    /// Whether a grammar binds the answer.
    pub is_bound: bool,
}

/// Whether, and how much, is guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guessing {
    /// Nothing.
    Never,
    /// As much as pays on this machine, by what is measured.
    WherePays,
    /// As much as there is to guess: to try it.
    Always,
}

/// Tokens a pass of a recorded day at home, which projections assume: of transcripts, and of commands, whose grammar says many.
pub const DAY_TRANSCRIPTS: f64 = 3.0;
/// See [`DAY_TRANSCRIPTS`].
pub const DAY_COMMANDS: f64 = 3.2;

/// `[guess]`
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct GuessOptions {
    /// Tokens that are guessed at once, at most; 0 for none.
    pub tokens: usize,
    /// Guess from what a microphone, a camera or a question was answered before.
    pub earlier_answers: bool,
    /// A file that keeps them over restarts; absent: they are kept in memory only.
    pub earlier_answers_file: Option<PathBuf>,
}

impl Default for GuessOptions {
    fn default() -> GuessOptions {
        GuessOptions {
            tokens: MAX_GUESSES,
            earlier_answers: true,
            earlier_answers_file: None,
        }
    }
}

impl GuessOptions {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// More tokens than a pass has room for.
    pub fn check(&self) -> Result<(), String> {
        match self.tokens <= MAX_GUESSES {
            true => Ok(()),
            false => Err(format!(
                "guess.tokens is {}; it must be 0 to {MAX_GUESSES}",
                self.tokens
            )),
        }
    }
}

/// What came of the guesses of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuessCounts {
    /// The source.
    pub source: &'static str,
    /// Tokens of passes that were its guesses.
    pub guessed: u64,
    /// Those of them that the model chose, too.
    pub accepted: u64,
}

/// A guess that is in a pass, or would be.
#[derive(Debug)]
struct Guess {
    source: usize,
    strength: usize,
    ids: Vec<u32>,
    /// Tokens that came and were guessed.
    right: usize,
    /// Tokens of it in the pass.
    taken: usize,
}

/// The guesses of one answer that are still to be judged.
#[derive(Debug, Default)]
pub(super) struct Open {
    guesses: Vec<Guess>,
    /// Tokens that have to come before.
    certain: usize,
}

struct Asked {
    source: Box<dyn Source>,
    acceptance: Acceptance,
    counts: GuessCounts,
    /// What a guess of it takes, milliseconds; 0 of a source that is free.
    cost_ms: f64,
}

/// The sources, what their guesses were worth so far, and what a pass costs.
pub(super) struct Guesser {
    options: GuessOptions,
    asked: Vec<Asked>,
    costs: Costs,
    /// Whole answers of which it is not known yet whether they count.
    held: Option<Lessons>,
}

/// Whole answers, and what each is about.
pub type Lessons = Vec<(Topic, Vec<u32>)>;

impl Guesser {
    /// With the sources that cost nothing.
    pub(super) fn new(options: GuessOptions, earlier: &EarlierAnswers) -> Guesser {
        let mut guesser = Guesser {
            options,
            asked: Vec::new(),
            costs: Costs::default(),
            held: None,
        };
        if guesser.options.earlier_answers {
            guesser.add(Box::new(earlier.clone()));
        }
        guesser.add(Box::new(PromptLookup));
        guesser
    }

    /// Tokens of a pass at most that has so many certain ones.
    pub(super) fn most(&self, certain: usize) -> usize {
        MAX_PASS.min(self.options.tokens + certain)
    }

    /// Without any source.
    pub(super) fn clear(&mut self) {
        self.asked.clear();
    }

    /// One more source, beside the others.
    pub(super) fn add(&mut self, source: Box<dyn Source>) {
        let name = source.name();
        self.asked.retain(|asked| asked.counts.source != name);
        self.asked.push(Asked {
            acceptance: Acceptance::default(),
            counts: GuessCounts {
                source: name,
                ..GuessCounts::default()
            },
            cost_ms: 0.0,
            source,
        });
    }

    /// Texts that are likely to be said: names and values of commands, as tokens.
    pub(super) fn set_phrases(&mut self, phrases: Vec<Vec<u32>>) {
        self.add(Box::new(Phrases::new(phrases)));
    }

    /// What follows, at most `most` tokens and as many as pay behind the `certain` ones that the pass has anyhow, `beside` as many of other
    /// answers.
    pub(super) fn guess(
        &mut self,
        stand: &mut Stand<'_>,
        how: Guessing,
        [certain, beside]: [usize; 2],
        most: usize,
        open: &mut Open,
    ) -> Vec<u32> {
        open.certain = certain - 1;
        if how == Guessing::Never || most == 0 {
            return Vec::new();
        }
        let mut best: Option<(f64, usize, usize)> = None;
        for (source, asked) in self.asked.iter_mut().enumerate() {
            let is_free = asked.source.is_free();
            let mut most = most;
            if !is_free && how == Guessing::WherePays {
                let (gain, worth) =
                    self.costs
                        .best([certain, beside], most, asked.cost_ms, |depth| {
                            asked.acceptance.of(STRENGTHS - 1, depth)
                        });
                if gain <= best.map_or(1.0, |(gain, ..)| gain) {
                    asked.acceptance.fade(STRENGTHS - 1);
                    continue;
                }
                most = worth;
            }
            let (mut ids, start) = (Vec::new(), Instant::now());
            let strength = asked.source.guess(stand, most, &mut ids).min(STRENGTHS - 1);
            ids.truncate(most);
            if !is_free && !ids.is_empty() {
                let took_ms = milliseconds(start.elapsed()) / ids.len() as f64;
                asked.cost_ms = costs::blend(asked.cost_ms, took_ms);
            }
            if ids.is_empty() {
                continue;
            }
            let (gain, taken) = match how {
                Guessing::Always => (ids.len() as f64 + strength as f64 / 8.0, ids.len()),
                // What asking took is spent by now, whatever is made of it.
                _ => self.costs.best([certain, beside], ids.len(), 0.0, |depth| {
                    asked.acceptance.of(strength, depth)
                }),
            };
            if taken > 0 && best.is_none_or(|(least, ..)| gain > least) {
                best = Some((gain, open.guesses.len(), taken));
            }
            open.guesses.push(Guess {
                source,
                strength,
                ids,
                right: 0,
                taken: 0,
            });
        }
        match best {
            None => Vec::new(),
            Some((_, at, taken)) => {
                open.guesses[at].taken = taken;
                open.guesses[at].ids[..taken].to_vec()
            }
        }
    }

    /// Of what was guessed last only the first `count` tokens are in the pass.
    pub(super) fn cut(&mut self, open: &mut Open, count: usize) {
        for guess in &mut open.guesses {
            guess.taken = guess.taken.min(count);
        }
    }

    /// The next token came: what was guessed is right so far, or wrong.
    pub(super) fn came(&mut self, open: &mut Open, id: u32) {
        if open.certain > 0 {
            open.certain -= 1;
            return;
        }
        open.guesses.retain_mut(|guess| {
            let is_right = guess.ids.get(guess.right) == Some(&id);
            let asked = &mut self.asked[guess.source];
            asked.acceptance.note(guess.strength, guess.right, is_right);
            asked.counts.guessed += u64::from(guess.right < guess.taken);
            asked.counts.accepted += u64::from(is_right && guess.right < guess.taken);
            guess.right += 1;
            if !is_right {
                // Those behind were in the pass for nothing.
                let behind = guess.taken.saturating_sub(guess.right);
                asked.counts.guessed += behind as u64;
            }
            is_right && guess.right < guess.ids.len()
        });
    }

    /// Nothing more comes of the last pass: what is left of its guesses was for nothing.
    pub(super) fn end(&mut self, open: &mut Open) {
        open.certain = 0;
        for guess in open.guesses.drain(..) {
            let left = guess.taken.saturating_sub(guess.right);
            self.asked[guess.source].counts.guessed += left as u64;
        }
    }

    /// A pass of so many tokens, with what was chosen behind them, took so long.
    pub(super) fn passed(&mut self, tokens: usize, took: Duration) {
        self.costs.note(tokens, milliseconds(took));
    }

    pub(super) fn swap_held(&mut self, held: Option<Lessons>) -> Option<Lessons> {
        std::mem::replace(&mut self.held, held)
    }

    pub(super) fn learn(&mut self, topic: &Topic, answer: &[u32]) {
        if let Some(held) = &mut self.held {
            return held.push((topic.clone(), answer.to_vec()));
        }
        for asked in &mut self.asked {
            asked.source.learn(topic, answer);
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = GuessCounts> {
        self.asked.iter().map(|asked| asked.counts)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
