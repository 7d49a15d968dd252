//! What waits to be said: urgent speeches first, the others in the order in which they came, and never more than a few.

use std::collections::VecDeque;

use crate::media::Speech;

/// Speeches that wait.
pub(super) struct Waiting {
    speeches: VecDeque<Speech>,
    most: usize,
}

impl Waiting {
    pub(super) fn new(most: usize) -> Waiting {
        Waiting {
            speeches: VecDeque::new(),
            most,
        }
    }

    /// Takes one in; the one that has to go for it, where there are too many: the oldest that is not urgent.
    pub(super) fn push(&mut self, speech: Speech) -> Option<Speech> {
        let first_usual = self.speeches.iter().position(|other| !other.urgent);
        let at = first_usual.unwrap_or(self.speeches.len());
        match speech.urgent {
            true => self.speeches.insert(at, speech),
            false => self.speeches.push_back(speech),
        }
        if self.speeches.len() <= self.most {
            return None;
        }
        let oldest = self.speeches.iter().position(|other| !other.urgent);
        self.speeches.remove(oldest.unwrap_or(0))
    }

    /// The one that is said next.
    pub(super) fn next(&mut self) -> Option<Speech> {
        self.speeches.pop_front()
    }

    /// Whether that one is urgent.
    pub(super) fn is_urgent(&self) -> bool {
        self.speeches.front().is_some_and(|speech| speech.urgent)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.speeches.is_empty()
    }

    /// Takes out the one with this id, or all of them.
    pub(super) fn take(&mut self, id: Option<&str>) -> Vec<Speech> {
        let is_meant = |speech: &mut Speech| id.is_none_or(|id| speech.id == id);
        let mut taken = Vec::new();
        while let Some(speech) = self.speeches.iter_mut().position(is_meant) {
            taken.extend(self.speeches.remove(speech));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Audible;

    fn speech(id: &str, urgent: bool) -> Speech {
        let sound = Audible::File(std::sync::Arc::from([].as_slice()));
        let id = id.to_owned();
        Speech { id, sound, urgent }
    }

    fn ids(waiting: &mut Waiting) -> Vec<String> {
        std::iter::from_fn(|| waiting.next().map(|it| it.id)).collect()
    }

    #[test]
    fn the_newest_stay_and_the_urgent_go_first() {
        let mut waiting = Waiting::new(3);
        let mut dropped = Vec::new();
        for (id, urgent) in [
            ("a", false),
            ("b", false),
            ("U", true),
            ("c", false),
            ("V", true),
            ("d", false),
        ] {
            dropped.extend(waiting.push(speech(id, urgent)).map(|it| it.id));
        }
        assert_eq!(dropped, ["a", "b", "c"]);
        assert_eq!(ids(&mut waiting), ["U", "V", "d"]);
        // Where all are urgent, the oldest goes, too.
        for id in ["a", "b", "c", "d"] {
            dropped.extend(waiting.push(speech(id, true)).map(|it| it.id));
        }
        assert_eq!(dropped.last().map(String::as_str), Some("a"));
        assert_eq!(waiting.take(Some("c")).len(), 1);
        assert_eq!(waiting.take(None).len(), 2);
        assert!(waiting.is_empty());
    }
}
