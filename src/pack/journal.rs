//! What a run that was interrupted has done: a line for each stretch of a file that was written, with its hash. Nothing is believed
//! before the bytes on the disk have that hash: after a power cut they may be older than the lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::PackError;

/// A line has some hundred bytes, and there is one for each MiB.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// A stretch of a file, and the SHA-256 of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Stretch {
    pub(super) file: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) sha256: String,
}

/// The first line: what is being made, and from what; of something else nothing is taken over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Purpose {
    pub(super) of: String,
}

/// Lines that are only added to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    stretches: Vec<Stretch>,
}

impl Journal {
    /// Goes on with the journal at `path` where it has this purpose, else begins a new one.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn open(path: &Path, purpose: &str) -> Result<Journal, PackError> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(PackError::write("open", path))?;
        let mut lines = BufReader::new((&mut file).take(MAX_JOURNAL_BYTES));
        let (mut line, mut good_bytes, mut stretches) = (String::new(), 0, Vec::new());
        let mut is_ours = false;
        // The last line may have been cut off.
        while lines.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            if good_bytes == 0 {
                let found = serde_json::from_str::<Purpose>(&line);
                is_ours = found.is_ok_and(|found| found.of == purpose);
                if !is_ours {
                    break;
                }
            } else {
                match serde_json::from_str(&line) {
                    Ok(stretch) => stretches.push(stretch),
                    Err(_) => break,
                }
            }
            good_bytes += line.len() as u64;
            line.clear();
        }
        file.set_len(good_bytes)
            .and_then(|()| file.seek(SeekFrom::Start(good_bytes)))
            .map_err(PackError::write("write", path))?;
        let mut journal = Journal {
            file,
            path: path.to_owned(),
            stretches,
        };
        if !is_ours {
            journal.line(&Purpose {
                of: purpose.to_owned(),
            })?;
        }
        Ok(journal)
    }

    /// Whether an earlier run has done something.
    pub(super) fn has_any(&self) -> bool {
        !self.stretches.is_empty()
    }

    /// What earlier runs have done of a file, in their order.
    pub(super) fn of<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a Stretch> {
        self.stretches
            .iter()
            .filter(move |found| found.file == file)
    }

    /// Adds what is done now.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn add(&mut self, stretch: &Stretch) -> Result<(), PackError> {
        self.line(stretch)
    }

    fn line(&mut self, value: &impl serde::Serialize) -> Result<(), PackError> {
        let line = serde_json::to_string(value).map_err(std::io::Error::other);
        line.and_then(|line| self.file.write_all(format!("{line}\n").as_bytes()))
            .map_err(PackError::write("write", &self.path))
    }
}

/// How much of a file's beginning is what an earlier run wrote, and the hash so far. `stretches` all begin at 0.
///
/// # Errors
/// The file cannot be read.
pub(super) fn sound_beginning<'a>(
    mut file: &File,
    path: &Path,
    stretches: impl Iterator<Item = &'a Stretch>,
) -> Result<(u64, Sha256), PackError> {
    let (mut sound, mut sound_hash) = (0, Sha256::new());
    let (mut at, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    for stretch in stretches.filter(|stretch| stretch.start == 0) {
        // Of an earlier attempt at the same stretch.
        if stretch.end <= at {
            continue;
        }
        while at < stretch.end {
            let most = (stretch.end - at).min(BUFFER_BYTES as u64) as usize;
            let n = file
                .read(&mut buffer[..most])
                .map_err(PackError::read(path))?;
            if n == 0 {
                return Ok((sound, sound_hash));
            }
            hash.update(&buffer[..n]);
            at += n as u64;
        }
        if hex::encode(hash.clone().finalize()) != stretch.sha256 {
            break;
        }
        (sound, sound_hash) = (at, hash.clone());
    }
    Ok((sound, sound_hash))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn stretch(end: u64, bytes: &[u8]) -> Stretch {
        Stretch {
            file: "a".to_owned(),
            start: 0,
            end,
            sha256: hex::encode(Sha256::digest(bytes)),
        }
    }

    #[test]
    fn what_has_another_purpose_or_was_cut_off_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, "one").unwrap();
        assert!(!journal.has_any());
        journal.add(&stretch(1, b"a")).unwrap();
        journal.add(&stretch(2, b"ab")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        let mut journal = Journal::open(&path, "one").unwrap();
        assert_eq!(journal.of("a").count(), 1);
        assert_eq!(journal.of("b").count(), 0);
        journal.add(&stretch(2, b"ab")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert!(!Journal::open(&path, "other").unwrap().has_any());
        assert!(!Journal::open(&path, "one").unwrap().has_any());
    }

    #[test]
    fn a_beginning_is_as_long_as_its_hashes_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let stretches = [
            stretch(2, b"ab"),
            stretch(4, b"abcd"),
            stretch(6, b"abcdef"),
        ];
        for (contents, sound) in [
            ("abcdef", 6),
            ("abcdefgh", 6),
            ("abcde", 4),
            ("abxd", 2),
            ("xbcdef", 0),
            ("", 0),
        ] {
            std::fs::write(&path, contents).unwrap();
            let file = File::open(&path).unwrap();
            let (found, hash) = sound_beginning(&file, &path, stretches.iter()).unwrap();
            assert_eq!(found, sound, "{contents}");
            let expected = Sha256::digest(&contents.as_bytes()[..sound as usize]);
            assert_eq!(hash.finalize(), expected, "{contents}");
        }
    }
}
