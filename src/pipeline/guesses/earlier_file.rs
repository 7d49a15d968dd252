//! Earlier answers on disk, for whoever wants them to outlive a restart: one file for this user only, written whole or not at all.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Topic;
use super::answers::{ANSWERS, Answer, Answers, TOKENS, TOPICS};
use crate::guard::private;

/// Larger is no file of earlier answers, bytes: so many numbers of seven digits are in the largest.
const MAX_BYTES: u64 = 16 << 20;

/// A topic as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    origin: Option<String>,
    prompt: u64,
    is_bound: bool,
    answers: Vec<KeptAnswer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptAnswer {
    ids: Vec<u32>,
    times: f64,
}

/// What a file holds; nothing where there is none. Ids are below `vocab_size`: those of another model's larger vocabulary are left out.
///
/// # Errors
/// It cannot be read, or is not what was written; in words.
pub(super) fn read(path: &Path, vocab_size: usize) -> Result<Answers, String> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Answers::default()),
        _ => {}
    }
    let shown = path.display();
    let in_words = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    // Whoever may read it now is shut out.
    let file = private::open(path, OFlags::NOFOLLOW).map_err(in_words)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(in_words)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{shown} is too large for a file of earlier answers"
        ));
    }
    let kept: Vec<Kept> = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{shown} is not what was written there: {error}"))?;
    let usable = |answer: &KeptAnswer| {
        let known = answer.ids.iter().all(|&id| (id as usize) < vocab_size);
        known && (2..=TOKENS).contains(&answer.ids.len()) && answer.times >= 1.0
    };
    let mut answers = Answers::default();
    for kept in kept.into_iter().take(TOPICS) {
        let topic = Topic {
            origin: kept.origin.map(Arc::from),
            prompt: kept.prompt,
            is_bound: kept.is_bound,
        };
        let found = kept.answers.into_iter().filter(usable).take(ANSWERS);
        let found: VecDeque<Answer> = found
            .map(|answer| Answer {
                ids: answer.ids,
                times: answer.times,
            })
            .collect();
        answers.0.push_back((topic, found));
    }
    Ok(answers)
}

/// What a file has of them.
///
/// # Errors
/// None is known.
pub(super) fn text(answers: &Answers) -> std::io::Result<Vec<u8>> {
    let kept = answers.0.iter().map(|(topic, answers)| Kept {
        origin: topic.origin.as_deref().map(str::to_owned),
        prompt: topic.prompt,
        is_bound: topic.is_bound,
        answers: (answers.iter())
            .map(|answer| KeptAnswer {
                ids: answer.ids.clone(),
                times: answer.times,
            })
            .collect(),
    });
    Ok(serde_json::to_vec(&kept.collect::<Vec<Kept>>())?)
}

/// Writes the file beside its place, then into it.
///
/// # Errors
/// The system's.
pub(super) fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = private::create_anew(&partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::earlier::EarlierAnswers;
    use super::super::{GuessOptions, Source, Stand};
    use super::*;

    const VOCAB: usize = 100;

    fn topic(origin: &str) -> Topic {
        Topic {
            origin: Some(origin.into()),
            ..Topic::default()
        }
    }

    fn open(path: &Path) -> (EarlierAnswers, Option<String>) {
        let options = GuessOptions {
            earlier_answers_file: Some(path.to_owned()),
            ..GuessOptions::default()
        };
        EarlierAnswers::open(&options, VOCAB)
    }

    fn guess(earlier: &mut EarlierAnswers, origin: &str) -> Vec<u32> {
        let (topic, mut ids) = (topic(origin), Vec::new());
        let mut stand = Stand {
            topic: &topic,
            prompt: &[],
            written: &[1],
            model: None,
        };
        earlier.guess(&mut stand, 8, &mut ids);
        ids
    }

    #[test]
    fn what_was_answered_outlives_a_restart_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("earlier.json");
        let (mut earlier, warning) = open(&path);
        assert_eq!(warning, None);
        earlier.learn(&topic("kitchen"), &[1, 2, 3]);
        earlier.learn(&topic("hall"), &[1, 7, 8]);
        assert!(!path.exists());
        earlier.save();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (mut again, _) = open(&path);
        assert_eq!(guess(&mut again, "kitchen"), [2, 3]);
        again.forget(Some("kitchen"));
        assert!(guess(&mut again, "kitchen").is_empty());
        again.save();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("kitchen") && text.contains("hall"), "{text}");
        again.forget(None);
        again.save();
        assert!(!path.exists());
        again.save();
        assert!(!path.exists(), "nothing is new");
    }

    #[test]
    fn a_file_that_is_none_is_said_and_an_id_that_is_none_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("earlier.json");
        let known = r#"{"origin":"hall","prompt":0,"is_bound":false,"answers":[{"ids":[1,5,6],"times":1.0},{"ids":[1,100],"times":9.0}]}"#;
        std::fs::write(&path, format!("[{known}]")).unwrap();
        let (mut earlier, warning) = open(&path);
        assert_eq!((guess(&mut earlier, "hall"), warning), (vec![5, 6], None));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for text in ["", "{}", "[1]", &known[..40], "[{\"origin\":1}]"] {
            std::fs::write(&path, text).unwrap();
            let (mut earlier, warning) = open(&path);
            assert!(guess(&mut earlier, "hall").is_empty());
            let warning = warning.unwrap();
            assert!(
                warning.contains("is not what was written there"),
                "{warning}"
            );
        }
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (_, warning) = open(&link);
        assert!(warning.unwrap().contains("cannot be read"));
    }
}
