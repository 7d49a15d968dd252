//! An answer that is told while it comes from another board: each piece says where in the answer it begins.
//!
//! Nothing is told twice, and nothing is left out: what a lost piece had is told with the next one that begins where the telling is, or with
//! the end. Where a worker dies in the midst, another one begins anew; what it says is told from where the first was. What the model
//! thinks before its answer comes likewise.

use super::letter::Part;
use crate::report::{ErrorBody, ErrorCode, Reply};

/// What has been told of an answer.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    text: String,
    thoughts: String,
    /// The worker whose pieces they are.
    by: Option<String>,
    /// There was another one before.
    several: bool,
}

impl Pieces {
    /// From now on they are those of the worker with that session.
    pub(super) fn of(&mut self, session: &str) {
        let before = self.by.replace(session.to_owned());
        self.several |= before.is_some_and(|before| before != session);
    }

    /// What is to be told of a piece that begins at byte `at` of the answer, or of its thoughts.
    pub(super) fn take(&mut self, of: Part, at: usize, text: &str) -> Option<String> {
        let told = match of {
            Part::Text => &mut self.text,
            Part::Thoughts => &mut self.thoughts,
        };
        let known = told.get(at..)?;
        let more = text.strip_prefix(known).filter(|more| !more.is_empty())?;
        told.push_str(more);
        Some(more.to_owned())
    }

    /// What is left to be told of the whole answer. One that begins otherwise than what was told is none.
    pub(super) fn finish(
        &self,
        result: &mut Result<Reply, ErrorBody>,
        mut tell: impl FnMut(Part, &str),
    ) {
        let Ok(reply) = result else {
            return;
        };
        let whole = [
            (Part::Thoughts, &reply.thoughts, &self.thoughts),
            (Part::Text, &reply.text, &self.text),
        ];
        let mut is_other = false;
        for (of, whole, told) in whole {
            let whole = whole.as_deref().unwrap_or_default();
            match rest(whole, told) {
                Some("") => {}
                Some(rest) => tell(of, rest),
                None => is_other = true,
            }
        }
        if is_other && self.several {
            *result = Err(ErrorBody::new(
                ErrorCode::Failed,
                "the board that answered was lost in the midst of its answer, and another one answers otherwise: ask again",
            ));
        }
    }
}

/// What stands behind what was told; a model's own white space around what it says is no part of it.
fn rest<'a>(whole: &'a str, told: &str) -> Option<&'a str> {
    let behind = whole.strip_prefix(told);
    let behind = behind.or_else(|| whole.strip_prefix(told.trim_start()));
    behind.or_else(|| (whole.trim() == told.trim()).then_some(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of pieces that come, and of the whole that ends them; the thoughts are the same in capitals.
    fn told(pieces: &[(&str, usize, &str)], whole: &str) -> (String, Result<Reply, ErrorBody>) {
        let (mut taken, mut told, mut thought) = (Pieces::default(), String::new(), String::new());
        for (session, at, text) in pieces {
            taken.of(session);
            thought.extend(taken.take(Part::Thoughts, *at, &text.to_uppercase()));
            told.extend(taken.take(Part::Text, *at, text));
        }
        let mut result = Ok(Reply {
            text: Some(whole.to_owned()),
            thoughts: Some(whole.to_uppercase()),
            ..Reply::default()
        });
        taken.finish(&mut result, |of, rest| match of {
            Part::Text => told.push_str(rest),
            Part::Thoughts => thought.push_str(rest),
        });
        assert_eq!(thought, told.to_uppercase());
        (told, result)
    }

    #[test]
    fn what_is_lost_doubled_or_begun_anew_is_told_once() {
        for pieces in [
            &[("a", 0, "Grün"), ("a", 5, " ist"), ("a", 9, " es")][..],
            // The second is lost, and comes with the end.
            &[("a", 0, "Grün"), ("a", 9, " es")],
            // One comes twice, and one in the midst of a letter, which is none.
            &[("a", 0, "Grün"), ("a", 0, "Grün"), ("a", 3, "?")],
            // The first worker dies, and another one says the same in other pieces.
            &[
                ("a", 0, "Grün"),
                ("a", 5, " i"),
                ("b", 0, "Grün ist"),
                ("b", 9, " es"),
            ],
            &[],
        ] {
            let (told, result) = told(pieces, "Grün ist es");
            assert_eq!(told, "Grün ist es", "{pieces:?}");
            assert!(result.is_ok());
        }
    }

    #[test]
    fn white_space_around_an_answer_makes_it_no_other() {
        for (piece, left) in [(" A cat.\n", ""), (" A", " cat."), ("A cat. ", "")] {
            let (told, result) = told(&[("a", 0, piece), ("b", 0, piece)], "A cat.");
            assert_eq!(told, format!("{piece}{left}"));
            assert!(result.is_ok());
        }
    }

    #[test]
    fn another_answer_than_was_begun_is_none() {
        let pieces = [("a", 0, "It is"), ("b", 0, "A cat")];
        let (told, result) = told(&pieces, "A cat.");
        assert_eq!(told, "It is");
        assert_eq!(result.unwrap_err().code, ErrorCode::Failed);
    }
}
