//! What people switched, kept across restarts: mutes, cameras, the slice. Written when it changes, whole or not at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the file in the state directory.
const FILE: &str = "state.json";

/// What it is called while it is written: one name, so that what a power cut left is written over, and none pile up.
const PARTIAL: &str = "state.json.partial";

/// Switches that survive a restart.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct Switches {
    /// Microphone to whether it is muted.
    pub(super) muted: BTreeMap<String, bool>,
    /// Camera to whether it is enabled.
    pub(super) enabled: BTreeMap<String, bool>,
    /// Camera to whether it describes pictures unasked.
    pub(super) captions: BTreeMap<String, bool>,
    /// The slice that answers unless a request names one.
    pub(super) matformer: Option<String>,
    /// Tokens of an answer at most.
    pub(super) max_tokens: Option<usize>,
    /// A file of switches was once damaged: what nobody has switched since stays closed.
    closed: bool,
}

impl Switches {
    /// Whether a microphone is muted.
    pub(super) fn is_muted(&self, id: &str) -> bool {
        self.muted.get(id).copied().unwrap_or(self.closed)
    }

    /// Whether a camera is enabled.
    pub(super) fn is_enabled(&self, id: &str) -> bool {
        self.enabled.get(id).copied().unwrap_or(!self.closed)
    }

    /// Whether a camera describes pictures unasked.
    pub(super) fn has_captions(&self, id: &str) -> bool {
        self.captions.get(id).copied().unwrap_or(true)
    }
}

/// The file of the switches.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of `directory`, and what it holds. An unreadable one closes every microphone and camera: a mute may have
    /// been lost with it.
    pub(super) fn open(directory: &Path) -> (StateFile, Switches) {
        let path = directory.join(FILE);
        // Of a write that the power cut off: never read, and of no use.
        std::fs::remove_file(directory.join(PARTIAL)).ok();
        let switches = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                log::error!(
                    "{}: {error}; every microphone is muted and every camera disabled until it is switched on again",
                    path.display()
                );
                Switches {
                    closed: true,
                    ..Switches::default()
                }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Switches::default(),
            Err(error) => {
                log::error!(
                    "cannot read {}: {error}; every microphone is muted and every camera disabled until it is switched on again",
                    path.display()
                );
                Switches {
                    closed: true,
                    ..Switches::default()
                }
            }
        };
        (StateFile { path }, switches)
    }

    /// Writes the switches: beside the file, synchronised, then in its place.
    pub(super) fn save(&self, switches: &Switches) {
        match self.try_save(switches) {
            Ok(()) => log::debug!("{} is written", self.path.display()),
            Err(error) => log::error!(
                "cannot write {}: {error}; what was switched will be forgotten at the next restart",
                self.path.display()
            ),
        }
    }

    fn try_save(&self, switches: &Switches) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(switches)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let partial = directory.join(PARTIAL);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&partial, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_survive_and_a_damaged_file_closes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (file, mut switches) = StateFile::open(dir.path());
        assert!(!switches.is_muted("kitchen") && switches.is_enabled("porch"));
        switches.muted.insert("kitchen".to_owned(), true);
        switches.captions.insert("porch".to_owned(), false);
        switches.matformer = Some("half".to_owned());
        file.save(&switches);
        let (_, read) = StateFile::open(dir.path());
        assert_eq!(read, switches);
        assert!(read.is_muted("kitchen") && !read.is_muted("hall") && !read.has_captions("porch"));

        // A write that the power cut off leaves the old file in force, and nothing behind.
        std::fs::write(dir.path().join(PARTIAL), b"{\"muted\":{}").unwrap();
        let (_, read) = StateFile::open(dir.path());
        assert_eq!(read, switches);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

        std::fs::write(dir.path().join(FILE), b"{\"muted\":{\"kitchen\":tr").unwrap();
        let (_, damaged) = StateFile::open(dir.path());
        assert!(damaged.is_muted("kitchen") && damaged.is_muted("hall"));
        assert!(!damaged.is_enabled("porch"));
        // Only the state file stands in the directory: nothing half-written is left.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
