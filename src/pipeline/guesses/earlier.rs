//! What was answered before to the same microphone, camera or question: homes repeat themselves.
//!
//! Bounded, in memory unless a file is named, and forgotten with the origin that it came from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answers::Answers;
use super::earlier_file as file;
use super::{GuessOptions, Source, Stand, Topic};

/// What was answered before. Clones share it: whoever mutes a microphone has it forgotten without waiting for the model.
#[derive(Clone, Debug, Default)]
pub struct EarlierAnswers(Arc<Mutex<Shelf>>);

/// What is known, and where it is kept.
#[derive(Debug, Default)]
struct Shelf {
    answers: Answers,
    file: Option<PathBuf>,
    /// Something was learned that the file has not.
    is_new: bool,
}

impl EarlierAnswers {
    /// Those of the file, where one is named, and why it cannot be read: then there are none. Ids are below `vocab_size`.
    pub(in crate::pipeline) fn open(
        options: &GuessOptions,
        vocab_size: usize,
    ) -> (EarlierAnswers, Option<String>) {
        let path = options.earlier_answers_file.as_deref();
        let path = path.filter(|_| options.earlier_answers);
        let read = path.map(|path| file::read(path, vocab_size)).transpose();
        let (answers, warning) = match read {
            Ok(answers) => (answers.unwrap_or_default(), None),
            Err(reason) => (Answers::default(), Some(reason)),
        };
        let shelf = Shelf {
            answers,
            file: path.map(Path::to_owned),
            is_new: false,
        };
        (EarlierAnswers(Arc::new(Mutex::new(shelf))), warning)
    }

    /// Forgets what an origin was answered, or everybody; in the file, too.
    pub fn forget(&self, origin: Option<&str>) {
        let mut shelf = self.shelf();
        let Shelf { answers, file, .. } = &mut *shelf;
        if !answers.forget(origin) && origin.is_some() {
            return;
        }
        let Some(file) = file else { return };
        let gone = if answers.0.is_empty() {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        } else {
            file::write(file, answers)
        };
        if let Err(error) = gone {
            log::error!(
                "{} still has what was to be forgotten: {error}; remove it",
                file.display()
            );
        }
        shelf.is_new = false;
    }

    /// Writes what was learned since the last time to the file, where one is named.
    pub fn save(&self) {
        let mut shelf = self.shelf();
        let Shelf {
            answers,
            file: Some(file),
            is_new: true,
        } = &*shelf
        else {
            return;
        };
        if let Err(error) = file::write(file, answers) {
            log::warn!("cannot write {}: {error}", file.display());
        }
        shelf.is_new = false;
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for EarlierAnswers {
    fn name(&self) -> &'static str {
        "earlier"
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        (self.shelf().answers).guess(stand.topic, stand.written, most, ids)
    }

    fn learn(&mut self, topic: &Topic, answer: &[u32]) {
        let mut shelf = self.shelf();
        shelf.answers.learn(topic, answer);
        shelf.is_new = true;
    }
}
