//! What the Python client has downloaded, by its layout: `models--OWNER--NAME/{refs,snapshots,blobs}`. It is read and never written.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::listing::{Etag, RemoteFile, Repository, is_commit};

/// Files of a snapshot that are looked at.
const MAX_FILES: usize = 1000;

/// The directory of all repositories.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Cache {
        Cache { root }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn of(&self, repository: &str) -> PathBuf {
        let folder = format!("models--{}", repository.replace('/', "--"));
        self.root.join(folder)
    }

    /// The commit that a revision was when it was last downloaded.
    fn commit(&self, repository: &str, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let file = std::fs::File::open(self.of(repository).join("refs").join(revision)).ok()?;
        let mut text = String::new();
        file.take(100).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// What is there of a revision; `None` where nothing is.
    pub fn repository(&self, id: &str, revision: &str) -> Option<Repository> {
        let commit = self.commit(id, revision)?;
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        let snapshot = self.of(id).join("snapshots").join(&commit);
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(snapshot.join(&folder)).ok()?;
            for entry in entries.flatten().take(MAX_FILES) {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let name = format!("{folder}{name}");
                let path = entry.path();
                match path.metadata() {
                    Ok(found) if found.is_file() => files.push(RemoteFile {
                        etag: etag(&path),
                        size: found.len(),
                        name,
                    }),
                    Ok(_) if folders.len() < MAX_FILES => folders.push(name + "/"),
                    _ => {}
                }
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Repository {
            id: id.to_owned(),
            commit,
            gated: false,
            licence: None,
            files,
        })
        .filter(|found| !found.files.is_empty())
    }

    /// The path of a file of a commit, where it is there and is the file that the hub lists: by its size, and by its hash, which is the
    /// name of what the snapshot's link leads to.
    pub fn file(&self, repository: &Repository, file: &RemoteFile) -> Option<PathBuf> {
        let snapshots = self.of(&repository.id).join("snapshots");
        let path = snapshots.join(&repository.commit).join(&file.name);
        let found = path.metadata().ok()?;
        if !found.is_file() || found.len() != file.size {
            return None;
        }
        let is_other = etag(&path).is_some_and(|found| {
            let listed = file.etag.as_ref();
            listed.is_some_and(|listed| *listed != found)
        });
        (!is_other).then_some(path)
    }
}

/// What the name of a blob says of its contents.
fn etag(path: &Path) -> Option<Etag> {
    let blob = std::fs::read_link(path).ok()?;
    Etag::parse(blob.file_name()?.to_str()?)
}
