//! An answer that is told while it comes from another board: each piece says where in the answer it begins.
//!
//! Nothing is told twice, and nothing is left out: what a lost piece had is told with the next one that begins where the telling is, or with
//! the end. Where a worker dies in the midst, another one begins anew; what it says is told from where the first was.

use crate::report::{ErrorBody, ErrorCode, Reply};

/// What has been told of an answer.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    told: String,
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

    /// What is to be told of a piece that begins at byte `at` of the answer.
    pub(super) fn take(&mut self, at: usize, text: &str) -> Option<String> {
        let known = self.told.get(at..)?;
        let more = text.strip_prefix(known).filter(|more| !more.is_empty())?;
        self.told.push_str(more);
        Some(more.to_owned())
    }

    /// What is left to be told of the whole answer. One that begins otherwise than what was told is none.
    pub(super) fn finish(&self, result: &mut Result<Reply, ErrorBody>, tell: impl FnOnce(&str)) {
        let Ok(reply) = result else {
            return;
        };
        let whole = reply.text.as_deref().unwrap_or_default();
        match whole.strip_prefix(self.told.as_str()) {
            Some("") => {}
            Some(rest) => tell(rest),
            None if self.several => {
                *result = Err(ErrorBody::new(
                    ErrorCode::Failed,
                    "the board that answered was lost in the midst of its answer, and another one answers otherwise: ask again",
                ));
            }
            // A model's own white space around what it said.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of pieces that come, and of the whole that ends them.
    fn told(pieces: &[(&str, usize, &str)], whole: &str) -> (String, Result<Reply, ErrorBody>) {
        let (mut taken, mut told) = (Pieces::default(), String::new());
        for (session, at, text) in pieces {
            taken.of(session);
            told.extend(taken.take(*at, text));
        }
        let mut result = Ok(Reply {
            text: Some(whole.to_owned()),
            ..Reply::default()
        });
        taken.finish(&mut result, |rest| told.push_str(rest));
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
    fn another_answer_than_was_begun_is_none() {
        let pieces = [("a", 0, "It is"), ("b", 0, "A cat")];
        let (told, result) = told(&pieces, "A cat.");
        assert_eq!(told, "It is");
        assert_eq!(result.unwrap_err().code, ErrorCode::Failed);
    }
}
