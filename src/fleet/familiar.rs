//! Which worker knows what a job begins with: a conversation, or instructions that it has read. It is asked first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So long the worker that knows a beginning may take the job before others.
const FIRST: Duration = Duration::from_millis(300);

/// Beginnings that are remembered at most.
const MOST: usize = 256;

/// What a job begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The same for jobs that begin alike.
    pub(super) key: String,
    /// Only whoever knows it can go on with it.
    pub(super) is_conversation: bool,
}

/// A worker that is asked before others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct First {
    /// Its session.
    pub(super) session: String,
    /// Until when; nothing where it is waited for as long as it is there.
    pub(super) until: Option<Instant>,
}

impl First {
    pub(super) fn new(session: String, beginning: &Beginning) -> First {
        let until = (!beginning.is_conversation).then(|| Instant::now() + FIRST);
        First { session, until }
    }

    /// Whether others are asked now.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Who has done jobs that begin so.
#[derive(Debug, Default)]
pub(super) struct Familiar(Mutex<BTreeMap<String, (String, Instant)>>);

impl Familiar {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (String, Instant)>> {
        // Every change is complete before anything in it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of the worker that knows a beginning.
    pub(super) fn with(&self, beginning: &Beginning) -> Option<String> {
        let known = self.lock();
        known
            .get(&beginning.key)
            .map(|(session, _)| session.clone())
    }

    /// A worker knows a beginning now.
    pub(super) fn knows(&self, beginning: Beginning, session: &str) {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&beginning.key) {
            let oldest = known.iter().min_by_key(|(_, (_, when))| *when);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                known.remove(&oldest);
            }
        }
        known.insert(beginning.key, (session.to_owned(), Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_beginnings_are_remembered() {
        let known = Familiar::default();
        let beginning = |n: usize| Beginning {
            key: n.to_string(),
            is_conversation: false,
        };
        for n in 0..MOST + 10 {
            known.knows(beginning(n), "attic");
        }
        known.knows(beginning(MOST), "cellar");
        assert_eq!(known.with(&beginning(9)), None);
        assert_eq!(known.with(&beginning(10)).as_deref(), Some("attic"));
        assert_eq!(known.with(&beginning(MOST)).as_deref(), Some("cellar"));
        assert_eq!(known.lock().len(), MOST);
    }
}
