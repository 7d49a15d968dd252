//! What the engine is told that makes its guesses better, and what came of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Generation;
use super::conversation::Conversation;
use super::engine::Engine;
use super::guesses::{EarlierAnswers, GuessCounts, Lessons, Source, Topic};
use super::options::DecodeShortcuts;

impl Engine {
    /// What is skipped while answers are decoded, to compare with the plain computation.
    pub fn shortcuts_mut(&mut self) -> &mut DecodeShortcuts {
        &mut self.shortcuts
    }

    /// Answers to another microphone or camera from now on, or to nobody in particular, and gives the one before: what one was answered is
    /// a good guess of what it will be answered.
    pub fn swap_origin(&mut self, origin: Option<Arc<str>>) -> Option<Arc<str>> {
        std::mem::replace(&mut self.origin, origin)
    }

    /// Holds back from now on what whole answers teach, until it is known whether they count, or no more; gives what was held back before.
    /// [`Engine::learn`] takes it where they do.
    pub fn hold_lessons(&mut self, held: Option<Lessons>) -> Option<Lessons> {
        self.guesser.swap_held(held)
    }

    /// Learns from answers that count after all.
    pub fn learn(&mut self, lessons: Lessons) {
        for (topic, answer) in lessons {
            self.guesser.learn(&topic, &answer);
        }
    }

    /// What was answered before, as far as it is kept to guess.
    pub fn earlier_answers(&self) -> EarlierAnswers {
        self.earlier.clone()
    }

    /// Takes texts that are likely to be said, in place of those before: names and values of commands.
    pub fn set_phrases<'t>(&mut self, phrases: impl IntoIterator<Item = &'t str>) {
        // As they stand within a sentence.
        let tokens = |text: &str| self.tokenizer.encode_text(&format!(" {text}"));
        let phrases = phrases.into_iter().map(tokens).collect();
        self.guesser.set_phrases(phrases);
    }

    /// One more source of guesses, in place of one of that name.
    pub fn add_guesses(&mut self, source: Box<dyn Source>) {
        self.guesser.add(source);
    }

    /// This source of guesses and no other.
    pub fn only_guesses(&mut self, source: Box<dyn Source>) {
        self.guesser.clear();
        self.guesser.add(source);
    }

    /// What came of the guesses of each source so far.
    pub fn guess_counts(&self) -> Vec<GuessCounts> {
        self.guesser.counts().collect()
    }

    /// What an answer is about.
    pub(super) fn topic(&self, conversation: &Conversation, generation: &Generation) -> Topic {
        let origin = self.origin.clone();
        let mut prompt = DefaultHasher::new();
        if origin.is_none() {
            let spec = self.spec();
            let words = conversation
                .prompt
                .iter()
                .filter(|&&id| !spec.takes_row(id));
            words.for_each(|id| id.hash(&mut prompt));
        }
        Topic {
            origin,
            prompt: prompt.finish(),
            is_bound: generation.grammar.is_some(),
        }
    }
}
