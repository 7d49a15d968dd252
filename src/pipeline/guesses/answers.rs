//! Answers by what they are about, and how often each was given; bounded.

use std::collections::VecDeque;

use super::follow::{common_end, follow, strength};
use super::{STRENGTHS, Topic};

/// Topics that are known at once.
pub(super) const TOPICS: usize = 64;
/// Different answers of a topic.
pub(super) const ANSWERS: usize = 64;
/// Tokens of an answer that are kept.
pub(super) const TOKENS: usize = 256;
/// Places in answers that are followed at most: those of the latest ones.
const PLACES: usize = 128;
/// Tokens that are compared at most where an answer goes another way than all before.
const LONGEST: usize = 4;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ids: Vec<u32>,
    pub(super) times: f64,
}

/// By topic, the latest last.
#[derive(Debug, Default)]
pub(super) struct Answers(pub(super) VecDeque<(Topic, VecDeque<Answer>)>);

impl Answers {
    fn answers(&self, topic: &Topic) -> Option<&VecDeque<Answer>> {
        let found = self.0.iter().find(|(known, _)| known == topic)?;
        Some(&found.1)
    }

    pub(super) fn guess(
        &self,
        topic: &Topic,
        written: &[u32],
        most: usize,
        ids: &mut Vec<u32>,
    ) -> usize {
        let Some(answers) = self.answers(topic) else {
            return 0;
        };
        let latest_first = || answers.iter().rev();
        let rests: Vec<(&[u32], f64)> = latest_first()
            .filter_map(|answer| Some((answer.ids.strip_prefix(written)?, answer.times)))
            .collect();
        if !rests.is_empty() {
            let share = follow(&rests, most, ids);
            return strength(share);
        }
        // None began like this: what stood behind the last tokens in one of them.
        let (mut longest, mut rests) = (1, Vec::new());
        for answer in latest_first() {
            for end in 1..answer.ids.len() {
                let agree = common_end(&answer.ids[..end], written, LONGEST);
                if agree > longest {
                    rests.clear();
                    longest = agree;
                }
                if agree == longest && rests.len() < PLACES {
                    rests.push((&answer.ids[end..], answer.times));
                }
            }
        }
        let share = follow(&rests, most, ids);
        // Less sure than where the whole answer was the same so far.
        strength(share).min(longest - 1).min(STRENGTHS - 2)
    }

    pub(super) fn learn(&mut self, topic: &Topic, answer: &[u32]) {
        if answer.len() < 2 {
            return;
        }
        let mut answers = match self.0.iter().position(|(known, _)| known == topic) {
            Some(at) => self.0.remove(at).map(|(_, answers)| answers),
            None => None,
        }
        .unwrap_or_default();
        let ids = &answer[..answer.len().min(TOKENS)];
        let known = answers.iter().position(|known| known.ids == ids);
        let times = known.and_then(|at| answers.remove(at));
        let times = times.map_or(0.0, |known| known.times) + 1.0;
        answers.push_back(Answer {
            ids: ids.to_vec(),
            times,
        });
        if answers.len() > ANSWERS {
            answers.pop_front();
        }
        self.0.push_back((topic.clone(), answers));
        if self.0.len() > TOPICS {
            self.0.pop_front();
        }
    }

    /// Whether there was something to forget.
    pub(super) fn forget(&mut self, origin: Option<&str>) -> bool {
        let before = self.0.len();
        let is_other = |topic: &Topic| origin.is_some() && topic.origin.as_deref() != origin;
        self.0.retain(|(topic, _)| is_other(topic));
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(origin: &str) -> Topic {
        Topic {
            origin: Some(origin.into()),
            ..Topic::default()
        }
    }

    fn guess(earlier: &Answers, origin: &str, written: &[u32]) -> Vec<u32> {
        let mut ids = Vec::new();
        earlier.guess(&topic(origin), written, 3, &mut ids);
        ids
    }

    #[test]
    fn what_was_said_often_is_said_again() {
        let mut earlier = Answers::default();
        let mut learn = |origin: &str, ids: &[u32]| earlier.learn(&topic(origin), ids);
        learn("kitchen", &[1, 2, 3, 4]);
        learn("kitchen", &[1, 2, 3, 4]);
        learn("kitchen", &[1, 2, 5]);
        learn("hall", &[1, 9]);
        assert_eq!(guess(&earlier, "kitchen", &[1]), [2, 3, 4]);
        assert_eq!(guess(&earlier, "hall", &[1]), [9]);
        // Another beginning: from where it is the same again.
        assert_eq!(guess(&earlier, "kitchen", &[8, 2, 3]), [4]);
        earlier.forget(Some("kitchen"));
        assert!(guess(&earlier, "kitchen", &[1]).is_empty());
        assert_eq!(guess(&earlier, "hall", &[1]), [9]);
        earlier.forget(None);
        assert!(guess(&earlier, "hall", &[1]).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut earlier = Answers::default();
        for n in 0..2000 {
            let origin = format!("{}", n % 100);
            let long: Vec<u32> = (n..n + 1000).collect();
            earlier.learn(&topic(&origin), &long);
            earlier.learn(&topic("always"), &long);
        }
        assert_eq!(earlier.0.len(), TOPICS);
        let answers = earlier.0.iter().map(|(_, answers)| answers.len());
        assert!(answers.clone().all(|count| count <= ANSWERS));
        assert_eq!(answers.max(), Some(ANSWERS));
        let longest = earlier.0.iter().flat_map(|(_, answers)| answers);
        assert_eq!(longest.map(|answer| answer.ids.len()).max(), Some(TOKENS));
    }
}
