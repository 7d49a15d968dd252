//! The directory that stands beside a pack while it is pulled: who works there, the small files, and what an earlier run left.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::super::error::PackError;
use super::super::journal::Journal;
use super::super::{COMPANIONS, Companion, MAX_COMPANION_BYTES};
use super::{HubSource, Told};
use crate::hub::{Client, RemoteFile, Repository};

/// The weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Which tensor is in which of several.
const INDEX: &str = "model.safetensors.index.json";
/// The commit that the last run pulled.
const COMMIT: &str = "commit";
/// The licence of a pack, whatever the repository calls it.
const LICENCE: &str = "LICENSE";
const LICENCES: [&str; 4] = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"];
const APACHE: &str = include_str!("../../../LICENSE");

/// `NAME.pull`.
pub(super) struct Workplace {
    dir: PathBuf,
    source: PathBuf,
    commit: String,
    /// Held while it is ours.
    _lock: File,
}

impl Workplace {
    /// Takes the directory, and makes it where it is missing.
    pub(super) fn take(target: &Path, hub: &HubSource<'_>) -> Result<Workplace, PackError> {
        let mut dir = target.as_os_str().to_owned();
        dir.push(".pull");
        let dir = PathBuf::from(dir);
        let source = dir.join("source");
        std::fs::create_dir_all(&source).map_err(PackError::write("create", &source))?;
        let lock = File::open(&dir).map_err(PackError::write("open", &dir))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(PackError::Busy { path: dir });
        }
        Ok(Workplace {
            dir,
            source,
            commit: hub.repository.commit.clone(),
            _lock: lock,
        })
    }

    /// The workplace of what belongs to this one, within it.
    pub(super) fn inner(&self, name: &str, hub: &HubSource<'_>) -> Result<Workplace, PackError> {
        Workplace::take(&self.dir.join(name), hub)
    }

    /// Where the files of the checkpoint are.
    pub(super) fn source(&self) -> &Path {
        &self.source
    }

    /// Says so where the repository has another commit than when an earlier run began.
    pub(super) fn tell_revision(&self, note: &dyn Fn(&str)) -> Result<(), PackError> {
        let path = self.dir.join(COMMIT);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if !before.is_empty() && before != self.commit {
            note(&format!(
                "the model was changed on the hub since the last run ({} is now {}): what is still the same is kept",
                short(&before),
                short(&self.commit)
            ));
        }
        std::fs::write(&path, &self.commit).map_err(PackError::write("write", path))
    }

    /// A journal of this directory.
    pub(super) fn journal(&self, name: &str, purpose: &str) -> Result<Journal, PackError> {
        Journal::open(&self.dir.join(format!("{name}.journal")), purpose)
    }

    /// Fetches the small files of a checkpoint that are needed.
    pub(super) fn small_files(
        &self,
        client: &Client,
        repository: &Repository,
        told: &mut Told<'_>,
    ) -> Result<(), PackError> {
        let names = COMPANIONS.iter().chain([&INDEX]).chain(&LICENCES);
        for name in names {
            let path = self.source.join(name);
            let Some(file) = repository.file(name) else {
                // What an earlier revision had is not of this one.
                remove(&path)?;
                continue;
            };
            let bytes = client.small_file_to(repository, file, MAX_COMPANION_BYTES, &path)?;
            (told.fetched)(bytes);
        }
        if repository.file("config.json").is_none() {
            let repository = repository.id.clone();
            let reason = "has no config.json, so it is no model in the layout that transformers writes: give a repository that has one, or one of its files as :FILE.gguf";
            return Err(PackError::Repository {
                repository,
                reason: reason.to_owned(),
            });
        }
        Ok(())
    }

    /// The files that hold the weights.
    pub(super) fn weights<'a>(
        &self,
        repository: &'a Repository,
    ) -> Result<Vec<&'a RemoteFile>, PackError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let wrong = |reason: String| PackError::Repository {
            repository: repository.id.clone(),
            reason,
        };
        if let Some(file) = repository.file(SINGLE) {
            return Ok(vec![file]);
        }
        let path = self.source.join(INDEX);
        let Ok(text) = std::fs::read(&path) else {
            return Err(wrong(format!(
                "has neither {SINGLE} nor {INDEX}: it has {}; a file of llama.cpp is named by its end, as :FILE.gguf",
                repository.some_files()
            )));
        };
        let index: Index = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("has a {INDEX} that is none: {error}")))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let file = |name: &&String| {
            let plain = !name.contains('/');
            repository.file(name).filter(|_| plain).ok_or_else(|| {
                wrong(format!(
                    "names {name:?} in {INDEX}, and has no such file: take another revision"
                ))
            })
        };
        names.iter().map(file).collect()
    }

    /// Where a file of the repository is, or will be; folders there are none here.
    pub(super) fn path(&self, file: &RemoteFile) -> PathBuf {
        self.source.join(file.name.replace('/', "--"))
    }

    /// Puts a link to a file of the cache into the checkpoint's directory.
    pub(super) fn link(&self, cached: &Path, file: &RemoteFile) -> Result<(), PackError> {
        let path = self.path(file);
        remove(&path)?;
        std::os::unix::fs::symlink(cached, &path).map_err(PackError::write("link", path))
    }

    /// The licence's text, from the repository where that has it.
    pub(super) fn licence(&self, repository: &Repository) -> Result<Option<Companion>, PackError> {
        for name in LICENCES {
            let path = self.source.join(name);
            match std::fs::read(&path) {
                Ok(text) => return Ok(Some((LICENCE.to_owned(), text))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(PackError::read(path)(error)),
            }
        }
        let text = match repository.licence.as_deref() {
            Some("apache-2.0") => APACHE.to_owned(),
            Some("gemma") => {
                "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms\n".to_owned()
            }
            Some(other) => format!("The page of {} names the licence {other}.\n", repository.id),
            None => return Ok(None),
        };
        Ok(Some((LICENCE.to_owned(), text.into_bytes())))
    }

    /// An answer that costs much to find: an earlier run's, if it was about the same files.
    pub(super) fn remembered(
        &self,
        name: &str,
        files: &str,
        find: impl FnOnce() -> Result<bool, PackError>,
    ) -> Result<bool, PackError> {
        let path = self.dir.join(name);
        let text = |answer: bool| format!("{files}\n{answer}\n");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(known) = [false, true]
            .into_iter()
            .find(|&known| before == text(known))
        {
            return Ok(known);
        }
        let found = find()?;
        std::fs::write(&path, text(found)).map_err(PackError::write("write", path))?;
        Ok(found)
    }

    /// Removes all of it: the pack is whole.
    pub(super) fn remove(self) -> Result<(), PackError> {
        std::fs::remove_dir_all(&self.dir).map_err(PackError::write("remove", &self.dir))
    }
}

/// What a pack says of where it is from: repository, commit and, where it is of one of several, the file.
pub(super) fn origin(repository: &Repository, gguf: Option<&RemoteFile>) -> String {
    let file = gguf.map_or(String::new(), |file| format!(":{}", file.name));
    format!("{}@{}{file}", repository.id, repository.commit)
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

fn remove(path: &Path) -> Result<(), PackError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PackError::write("remove", path)(error))
        }
        _ => Ok(()),
    }
}
