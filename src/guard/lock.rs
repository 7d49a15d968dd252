//! One daemon to a directory: a file that is locked while the process lives, and says whose it is.
//!
//! The kernel lets the lock go with the process, however that ends; the file stays and means nothing without it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::OFlags;

use super::{harmless, private};

/// Most that is read of who has it, bytes.
const MAX_BYTES: u64 = 512;

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// It cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, or this one has it already.
    #[error("it is in use by another gemmad: {holder}")]
    Held {
        /// Its number, and what it is.
        holder: String,
    },
    /// The file cannot be made or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock that `path` stands for, and writes down who has it.
    ///
    /// # Errors
    /// Another process has it; or there is no such file and it cannot be made.
    pub fn take(path: &Path) -> Result<Lock, LockError> {
        let mut file = private::open(path, OFlags::NOFOLLOW)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Without these words the lock holds just as well.
        file.set_len(0)
            .and_then(|()| file.write_all(myself().as_bytes()))
            .ok();
        Ok(Lock { _file: file })
    }
}

/// Takes what is kept at `path` for this process, by a lock at `lock` in a directory that is made if it is missing, and closed to others
/// if it holds nothing but what is `ours`. Where no lock can be had nothing can be written either, and the log says so: then there is none.
///
/// # Errors
/// Another process has it; who that is.
pub fn claim(
    path: &Path,
    lock: &Path,
    ours: impl Fn(&str) -> bool,
) -> Result<Option<Lock>, LockError> {
    let directory = lock.parent().unwrap_or(Path::new(""));
    let made = private::directory(directory, ours).map_err(LockError::from);
    match made.and_then(|()| Lock::take(lock)) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Io(error)) => {
            log::warn!(
                "cannot tell whether another gemmad uses {}: {error}",
                path.display()
            );
            Ok(None)
        }
        Err(held) => Err(held),
    }
}

/// What whoever has the lock wrote down.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(MAX_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    match (read, text.trim()) {
        (Ok(_), words) if !words.is_empty() => harmless::line(words).into_owned(),
        _ => "a process that has not said which".to_owned(),
    }
}

/// `process 123 (gemmad.service): gemmad run --config FILE`
fn myself() -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unit = groups
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .find(|part| part.ends_with(".service"));
    let unit = unit.map_or_else(String::new, |unit| format!(" ({unit})"));
    let words: Vec<_> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    format!(
        "process {}{unit}: {}\n",
        std::process::id(),
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_second_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // What a process that is gone left says nothing.
        std::fs::write(&path, "process 1: somebody else").unwrap();
        let first = Lock::take(&path).unwrap();
        let told = Lock::take(&path).unwrap_err().to_string();
        let me = format!("process {}", std::process::id());
        assert!(told.contains(&me) && !told.contains("somebody"), "{told}");
        drop(first);
        Lock::take(&path).unwrap();
        let directory = Lock::take(dir.path()).unwrap_err();
        assert!(matches!(directory, LockError::Io(_)), "{directory}");
    }
}
