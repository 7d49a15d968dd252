//! How far what was said is from what is true: edits of words and of characters.

use std::cmp::Reverse;

use serde::Serialize;
use unicode_general_category::{GeneralCategory, get_general_category};

/// What counts as the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Normalisation {
    /// Lower case; apostrophes are left out, and other punctuation (Unicode's categories P*) parts words as a space does.
    Words,
    /// As it stands.
    Exact,
}

impl Normalisation {
    /// The text as it is compared; however it is made, white space is one space between words.
    pub(super) fn of(self, text: &str) -> String {
        let plain = match self {
            Normalisation::Exact => text.to_owned(),
            Normalisation::Words => text
                .to_lowercase()
                .chars()
                .filter(|c| !matches!(c, '\'' | '’' | '‘'))
                .map(|c| if is_punctuation(c) { ' ' } else { c })
                .collect(),
        };
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// For people.
    pub(super) fn told(self) -> &'static str {
        match self {
            Normalisation::Words => "in lower case and without punctuation",
            Normalisation::Exact => "as they stand",
        }
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(
        get_general_category(c),
        GeneralCategory::ConnectorPunctuation
            | GeneralCategory::DashPunctuation
            | GeneralCategory::OpenPunctuation
            | GeneralCategory::ClosePunctuation
            | GeneralCategory::InitialPunctuation
            | GeneralCategory::FinalPunctuation
            | GeneralCategory::OtherPunctuation
    )
}

/// What makes one sequence into another with the fewest edits, added up over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Edits {
    /// Words or characters of the truth.
    pub(super) reference: usize,
    pub(super) substitutions: usize,
    pub(super) deletions: usize,
    pub(super) insertions: usize,
}

impl Edits {
    /// Words by white space.
    pub(super) fn of_words(reference: &str, hypothesis: &str) -> Edits {
        let words = |text: &'_ str| text.split_whitespace().map(str::to_owned).collect();
        let (reference, hypothesis): (Vec<String>, Vec<String>) =
            (words(reference), words(hypothesis));
        Edits::between(&reference, &hypothesis)
    }

    /// Characters are Unicode's scalar values, spaces between words included.
    pub(super) fn of_characters(reference: &str, hypothesis: &str) -> Edits {
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        Edits::between(&characters(reference), &characters(hypothesis))
    }

    /// Among equally few edits those that leave the most as it is. Takes memory in proportion to the hypothesis alone.
    fn between<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Edits {
        // From a beginning of the reference to each beginning of the hypothesis: edits, and what stays.
        let mut row: Vec<(usize, usize)> = (0..=hypothesis.len()).map(|i| (i, 0)).collect();
        for (i, wanted) in reference.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = (i + 1, 0);
            for (j, got) in hypothesis.iter().enumerate() {
                let same = wanted == got;
                let kept = (
                    diagonal.0 + usize::from(!same),
                    diagonal.1 + usize::from(same),
                );
                let deleted = (row[j + 1].0 + 1, row[j + 1].1);
                let inserted = (row[j].0 + 1, row[j].1);
                let better = |a: (usize, usize), b: (usize, usize)| {
                    if (a.0, Reverse(a.1)) <= (b.0, Reverse(b.1)) {
                        a
                    } else {
                        b
                    }
                };
                diagonal = row[j + 1];
                row[j + 1] = better(kept, better(deleted, inserted));
            }
        }
        let (edits, kept) = row[hypothesis.len()];
        // What is not kept of the reference was replaced or deleted; of the hypothesis, replaced or inserted.
        let insertions = edits - (reference.len() - kept);
        let deletions = edits - (hypothesis.len() - kept);
        Edits {
            reference: reference.len(),
            substitutions: edits - insertions - deletions,
            deletions,
            insertions,
        }
    }

    pub(super) fn add(&mut self, other: Edits) {
        self.reference += other.reference;
        self.substitutions += other.substitutions;
        self.deletions += other.deletions;
        self.insertions += other.insertions;
    }

    pub(super) fn total(&self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Edits by what the truth has: more than 1 where much was invented, none where the truth is empty.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.reference > 0).then(|| self.total() as f64 / self.reference as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::{Edits, Normalisation};

    #[test]
    fn case_and_punctuation_do_not_count_unless_they_are_to() {
        let words = |text| Normalisation::Words.of(text);
        assert_eq!(
            words(" Don’t  say “no”—SAY\tÉtage 3.5! "),
            "dont say no say étage 3 5"
        );
        assert_eq!(words("don't"), words("Don’t"));
        // A virama is no punctuation, and neither is what is measured or paid.
        assert_eq!(words("नमस्ते। 21°C + 3€"), "नमस्ते 21°c + 3€");
        assert_eq!(words("¿…?"), "");
        assert_eq!(Normalisation::Exact.of("  A,\n b."), "A, b.");
    }

    fn edits(reference: &str, hypothesis: &str) -> [usize; 4] {
        let edits = Edits::of_words(reference, hypothesis);
        [
            edits.reference,
            edits.substitutions,
            edits.deletions,
            edits.insertions,
        ]
    }

    #[test]
    fn edits_of_worked_examples() {
        assert_eq!(edits("a b c", "a b c"), [3, 0, 0, 0]);
        assert_eq!(edits("a b c", "a x c"), [3, 1, 0, 0]);
        assert_eq!(edits("a b c", "a c"), [3, 0, 1, 0]);
        assert_eq!(edits("a c", "a b c d"), [2, 0, 0, 2]);
        // Two edits either way; this one keeps a word.
        assert_eq!(edits("a b", "b c"), [2, 0, 1, 1]);
        assert_eq!(edits("", "a b"), [0, 0, 0, 2]);
        assert_eq!(edits("a b", ""), [2, 0, 2, 0]);
        assert_eq!(Edits::of_words("", "a").rate(), None);
        assert_eq!(Edits::of_words("a", "b c d").rate(), Some(3.0));
        // An accent of its own is a character.
        assert_eq!(
            Edits::of_characters("e\u{301}t\u{e9}", "\u{e9}t\u{e9}").total(),
            2
        );
    }
}
