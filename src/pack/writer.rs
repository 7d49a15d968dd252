//! Writes a pack beside its final place and moves it there when every byte is on the disk.
//!
//! The files are written into `NAME.partial`, which the run holds locked. A run that is killed leaves that directory behind;
//! its lock ends with it, so the next run knows that nobody writes there any more and empties it. `NAME` itself appears in
//! one step, after every file and the directory have been synchronised: what loads is complete.
//!
//! With a journal a run goes on where an earlier one ended: what that wrote is hashed once more and kept as far as it is sound.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use sha2::{Digest, Sha256};

use super::error::PackError;
use super::journal::{Journal, Stretch, sound_beginning};
use super::layout::{ALIGNMENT_BYTES, Layout};
use super::plan::{Entry, FilePlan};
use crate::model::weights::{PACK_JSON, PackManifest, PackedFile};

/// What pack.json, the headers and the file system's own tables take at most, besides the bytes that are counted.
const OVERHEAD_BYTES: u64 = 16 << 20;
/// Dirty pages that are let pile up: the disk works while the next matrix is quantised, and the bar does not lie.
const SYNC_BYTES: u64 = 256 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes after which the journal gets another line.
const MARK_BYTES: u64 = 1 << 20;

/// Is told how many bytes of how many are written.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// A pack being written; dropping it before [`PackWriter::commit`] removes what is there, unless a journal tells how to go on.
pub(super) struct PackWriter<'a> {
    target: PathBuf,
    partial: PathBuf,
    force: bool,
    committed: bool,
    /// Held while the partial directory is ours.
    _lock: File,
    files: BTreeMap<String, PackedFile>,
    journal: Option<Journal>,
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a mut Progress<'a>,
}

/// Whether a pack may be written to `target`: asked before any work is done.
pub(super) fn check_target(target: &Path, force: bool) -> Result<(), PackError> {
    if target.file_name().is_none() {
        return Err(PackError::Name {
            path: target.to_owned(),
        });
    }
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    let path = target.to_owned();
    if !force {
        return Err(PackError::Exists { path });
    }
    // Only what `gemmad pack` made is replaced: `--to ~ --force` must not cost anybody's home.
    if target.join(PACK_JSON).is_file() {
        Ok(())
    } else {
        Err(PackError::NotReplaceable { path })
    }
}

/// The directory that a target lies in.
fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

impl<'a> PackWriter<'a> {
    /// Takes the partial directory, emptied unless `journal` knows what is in it, after checking that `total_bytes` fit the disk.
    pub(super) fn begin(
        target: &Path,
        force: bool,
        total_bytes: u64,
        journal: Option<Journal>,
        progress: &'a mut Progress<'a>,
    ) -> Result<Self, PackError> {
        check_target(target, force)?;
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match std::fs::create_dir(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(PackError::write("create", &partial)(error));
            }
            _ => {}
        }
        let lock = File::open(&partial).map_err(PackError::write("open", &partial))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(PackError::Busy { path: partial });
        }
        // From here on, dropping the writer removes the directory.
        let goes_on = journal.as_ref().is_some_and(Journal::has_any);
        let writer = PackWriter {
            target: target.to_owned(),
            partial,
            force,
            committed: false,
            _lock: lock,
            files: BTreeMap::new(),
            journal,
            done_bytes: 0,
            total_bytes,
            progress,
        };
        if !goes_on {
            writer.empty()?;
        }
        writer.check_space()?;
        Ok(writer)
    }

    /// Removes what a killed run left.
    fn empty(&self) -> Result<(), PackError> {
        let path = &self.partial;
        for entry in std::fs::read_dir(path).map_err(PackError::read(path))? {
            let entry = entry.map_err(PackError::read(path))?;
            let removed = if entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path())
            } else {
                std::fs::remove_file(entry.path())
            };
            removed.map_err(PackError::write("remove", entry.path()))?;
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), PackError> {
        let disk = statvfs(&self.partial)
            .map_err(std::io::Error::from)
            .map_err(PackError::read(&self.partial))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed_bytes = self.total_bytes.saturating_add(OVERHEAD_BYTES);
        let needed_bytes = needed_bytes.saturating_sub(self.written_before());
        if free_bytes < needed_bytes {
            return Err(PackError::Space {
                path: self.target.clone(),
                needed_bytes,
                free_bytes,
            });
        }
        Ok(())
    }

    /// Bytes that an earlier run has on the disk.
    fn written_before(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.partial) else {
            return 0;
        };
        let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
        sizes.map(|found| found.len()).sum()
    }

    /// Writes a small file.
    pub(super) fn small_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let mut file = self.create(name, false)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Writes the safetensors file of a group; `content` writes the bytes of each entry.
    pub(super) fn tensors(
        &mut self,
        plan: &FilePlan,
        mut content: impl FnMut(&Entry, &mut FileWriter<'_, 'a>) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let layout = Layout::new(plan);
        let mut file = self.create(&format!("{}.safetensors", plan.group), true)?;
        file.write(&layout.header)?;
        for (entry, &padding) in plan.entries.iter().zip(&layout.paddings) {
            let before = file.bytes;
            content(entry, &mut file)?;
            debug_assert_eq!(Some(file.bytes - before), entry.bytes(), "{}", entry.name);
            file.write(&[0; ALIGNMENT_BYTES as usize][..padding as usize])?;
        }
        file.finish()
    }

    /// Of a file that is not `long` nothing is kept: it may have other contents now.
    fn create(&mut self, name: &str, long: bool) -> Result<FileWriter<'_, 'a>, PackError> {
        let path = self.partial.join(name);
        let (file, kept, hash) = match &self.journal {
            Some(journal) if long => {
                let (kept, hash) = go_on(&path, journal.of(name))?;
                let file = File::options().append(true).open(&path);
                (file, kept, hash)
            }
            Some(_) => (File::create(&path), 0, Sha256::new()),
            None => (File::create_new(&path), 0, Sha256::new()),
        };
        let file = file.map_err(PackError::write("create", &path))?;
        let is_marked = long && self.journal.is_some();
        Ok(FileWriter {
            pack: self,
            name: name.to_owned(),
            path,
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash,
            kept,
            bytes: 0,
            synced_bytes: kept,
            marked_bytes: is_marked.then_some(kept),
        })
    }

    /// Writes pack.json, synchronises the directory and moves it to its place.
    pub(super) fn commit(mut self, recipe: &str, source: &str) -> Result<PackManifest, PackError> {
        let manifest = PackManifest {
            format: crate::model::weights::PACK_FORMAT.to_owned(),
            version: crate::model::weights::PACK_VERSION,
            recipe: recipe.to_owned(),
            created_by: concat!("gemmad ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: source.to_owned(),
            files: std::mem::take(&mut self.files),
        };
        let mut json = serde_json::to_vec_pretty(&manifest)
            .map_err(std::io::Error::other)
            .map_err(PackError::write("write", self.partial.join(PACK_JSON)))?;
        json.push(b'\n');
        self.small_file(PACK_JSON, &json)?;
        self.sync(&self.partial)?;
        self.rename()?;
        self.committed = true;
        self.sync(parent(&self.target))?;
        Ok(manifest)
    }

    fn sync(&self, dir: &Path) -> Result<(), PackError> {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(PackError::write("synchronise", dir))
    }

    fn rename(&self) -> Result<(), PackError> {
        // Somebody may have put something there since the start.
        check_target(&self.target, self.force)?;
        if self.target.symlink_metadata().is_err() {
            return std::fs::rename(&self.partial, &self.target)
                .map_err(PackError::write("create", &self.target));
        }
        let swapped = renameat_with(CWD, &self.partial, CWD, &self.target, RenameFlags::EXCHANGE);
        match swapped {
            // The old pack now bears the partial name; who has it mapped keeps its bytes.
            Ok(()) => std::fs::remove_dir_all(&self.partial)
                .map_err(PackError::write("remove the old pack at", &self.partial)),
            // Not every file system can swap; then there is a moment without either.
            Err(_) => std::fs::remove_dir_all(&self.target)
                .and_then(|()| std::fs::rename(&self.partial, &self.target))
                .map_err(PackError::write("replace", &self.target)),
        }
    }
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        if !self.committed && self.journal.is_none() {
            // What cannot be removed now is removed by the next run.
            std::fs::remove_dir_all(&self.partial).ok();
        }
    }
}

/// One file of a pack, hashed as it is written.
pub(super) struct FileWriter<'w, 'a> {
    pack: &'w mut PackWriter<'a>,
    name: String,
    path: PathBuf,
    out: BufWriter<File>,
    hash: Sha256,
    /// What an earlier run wrote, as far as it has not been passed yet: it is on the disk, and in the hash.
    kept: u64,
    bytes: u64,
    synced_bytes: u64,
    /// How far the journal knows of it; `None` where it is not to know.
    marked_bytes: Option<u64>,
}

impl FileWriter<'_, '_> {
    /// Bytes from here on that an earlier run wrote.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether the next bytes are there already; they are passed then, and need not be made.
    pub(super) fn has(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let has = bytes > 0 && bytes <= self.kept;
        if has {
            self.kept -= bytes;
            self.advance(bytes);
        }
        has
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.pack.done_bytes += bytes;
        (self.pack.progress)(self.pack.done_bytes, self.pack.total_bytes);
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        if bytes.is_empty() || self.has(bytes.len()) {
            return Ok(());
        }
        self.out
            .write_all(bytes)
            .map_err(PackError::write("write", &self.path))?;
        self.hash.update(bytes);
        self.advance(bytes.len() as u64);
        self.mark(MARK_BYTES)?;
        if self.bytes - self.synced_bytes >= SYNC_BYTES {
            self.synced_bytes = self.bytes;
            let flushed = self
                .out
                .flush()
                .and_then(|()| self.out.get_ref().sync_data());
            flushed.map_err(PackError::write("write", &self.path))?;
        }
        Ok(())
    }

    /// Tells the journal how far the file is, once that are `least_bytes` more than it knows.
    pub(super) fn mark(&mut self, least_bytes: u64) -> Result<(), PackError> {
        let (Some(journal), Some(marked)) = (&mut self.pack.journal, self.marked_bytes) else {
            return Ok(());
        };
        if self.bytes < marked + least_bytes {
            return Ok(());
        }
        self.out
            .flush()
            .map_err(PackError::write("write", &self.path))?;
        self.marked_bytes = Some(self.bytes);
        journal.add(&Stretch {
            file: self.name.clone(),
            start: 0,
            end: self.bytes,
            sha256: hex::encode(self.hash.clone().finalize()),
        })
    }

    fn finish(mut self) -> Result<(), PackError> {
        self.mark(1)?;
        let flushed = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all());
        flushed.map_err(PackError::write("write", &self.path))?;
        let file = PackedFile {
            bytes: self.bytes,
            sha256: hex::encode(self.hash.finalize()),
        };
        self.pack.files.insert(self.name, file);
        Ok(())
    }
}

/// Makes a file ready to be written on: what an earlier run wrote of it stays as far as it is sound; so long it is, and its hash.
fn go_on<'a>(
    path: &Path,
    stretches: impl Iterator<Item = &'a Stretch>,
) -> Result<(u64, Sha256), PackError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(PackError::write("create", path))?;
    let (sound, hash) = sound_beginning(&file, path, stretches)?;
    file.set_len(sound)
        .map_err(PackError::write("write", path))?;
    Ok((sound, hash))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_pack_that_cannot_fit_is_refused_at_once() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("a.pack");
        let mut progress = |_, _| {};
        let Err(error) = PackWriter::begin(&target, false, u64::MAX / 2, None, &mut progress)
        else {
            panic!("no disk is that large");
        };
        assert!(matches!(error, PackError::Space { .. }), "{error}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
