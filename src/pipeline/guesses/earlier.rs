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
pub struct EarlierAnswers {
    shelf: Arc<Mutex<Shelf>>,
    /// Where it is kept. Whoever writes there holds it, and the shelf no longer than it takes to look.
    file: Arc<Mutex<Option<PathBuf>>>,
}

/// What is known.
#[derive(Debug, Default)]
struct Shelf {
    answers: Answers,
    /// Something was learned that the file has not.
    is_new: bool,
    /// Something was forgotten that the file has.
    is_gone: bool,
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
            ..Shelf::default()
        };
        let earlier = EarlierAnswers {
            shelf: Arc::new(Mutex::new(shelf)),
            file: Arc::new(Mutex::new(path.map(Path::to_owned))),
        };
        (earlier, warning)
    }

    /// Forgets what an origin was answered, or everybody. The file has it until [`EarlierAnswers::save`].
    pub fn forget(&self, origin: Option<&str>) {
        let mut shelf = self.shelf();
        // The file may be one that could not be read.
        shelf.is_gone |= shelf.answers.forget(origin) || origin.is_none();
    }

    /// Writes what was learned and forgotten since the last time to the file, where one is named. It waits for the disk.
    pub fn save(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &*file else { return };
        let (text, was_gone) = {
            let mut shelf = self.shelf();
            let was_gone = std::mem::take(&mut shelf.is_gone);
            if !std::mem::take(&mut shelf.is_new) && !was_gone {
                return;
            }
            let answers = &shelf.answers;
            (
                (!answers.0.is_empty()).then(|| file::text(answers)),
                was_gone,
            )
        };
        let written = match text {
            Some(text) => text.and_then(|text| file::write(file, &text)),
            None => match std::fs::remove_file(file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        match written {
            Ok(()) => {}
            Err(error) if was_gone => log::error!(
                "{} still has what was to be forgotten: {error}; remove it",
                file.display()
            ),
            Err(error) => log::warn!("cannot write {}: {error}", file.display()),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
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
