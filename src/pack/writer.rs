//! Writes a pack beside its final place and moves it there when every byte is on the disk.
//!
//! The files are written into `NAME.partial`, which the run holds locked. A run that is killed leaves that directory behind;
//! its lock ends with it, so the next run knows that nobody writes there any more and empties it. `NAME` itself appears in
//! one step, after every file and the directory have been synchronised: what loads is complete.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::error::PackError;
use super::plan::{Entry, FilePlan, Store};
use crate::model::weights::{PACK_JSON, PackManifest, PackedFile};

/// Every tensor starts on a cache line: kernels read blocks in place.
const ALIGNMENT_BYTES: u64 = 64;
/// What pack.json, the headers and the file system's own tables take at most, besides the bytes that are counted.
const OVERHEAD_BYTES: u64 = 16 << 20;
/// Dirty pages that are let pile up: the disk works while the next matrix is quantised, and the bar does not lie.
const SYNC_BYTES: u64 = 256 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// Is told how many bytes of how many are written.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// A pack being written; dropping it before [`PackWriter::commit`] removes what is there.
pub(super) struct PackWriter<'a> {
    target: PathBuf,
    partial: PathBuf,
    force: bool,
    committed: bool,
    /// Held while the partial directory is ours.
    _lock: File,
    files: BTreeMap<String, PackedFile>,
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
    /// Takes the partial directory, emptied, after checking that `total_bytes` fit the disk.
    pub(super) fn begin(
        target: &Path,
        force: bool,
        total_bytes: u64,
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
        let writer = PackWriter {
            target: target.to_owned(),
            partial,
            force,
            committed: false,
            _lock: lock,
            files: BTreeMap::new(),
            done_bytes: 0,
            total_bytes,
            progress,
        };
        writer.empty()?;
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
        if free_bytes < needed_bytes {
            return Err(PackError::Space {
                path: self.target.clone(),
                needed_bytes,
                free_bytes,
            });
        }
        Ok(())
    }

    /// Writes a small file.
    pub(super) fn small_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let mut file = self.create(name)?;
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
        let mut file = self.create(&format!("{}.safetensors", plan.group))?;
        file.write(&layout.header)?;
        for (entry, &padding) in plan.entries.iter().zip(&layout.paddings) {
            let before = file.bytes;
            content(entry, &mut file)?;
            debug_assert_eq!(Some(file.bytes - before), entry.bytes(), "{}", entry.name);
            file.write(&[0; ALIGNMENT_BYTES as usize][..padding as usize])?;
        }
        file.finish()
    }

    fn create(&mut self, name: &str) -> Result<FileWriter<'_, 'a>, PackError> {
        let path = self.partial.join(name);
        let file = File::create_new(&path).map_err(PackError::write("create", &path))?;
        Ok(FileWriter {
            pack: self,
            name: name.to_owned(),
            path,
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash: Sha256::new(),
            bytes: 0,
            synced_bytes: 0,
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
        if !self.committed {
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
    bytes: u64,
    synced_bytes: u64,
}

impl FileWriter<'_, '_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.out
            .write_all(bytes)
            .map_err(PackError::write("write", &self.path))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced_bytes >= SYNC_BYTES {
            self.synced_bytes = self.bytes;
            let flushed = self
                .out
                .flush()
                .and_then(|()| self.out.get_ref().sync_data());
            flushed.map_err(PackError::write("write", &self.path))?;
        }
        self.pack.done_bytes += bytes.len() as u64;
        (self.pack.progress)(self.pack.done_bytes, self.pack.total_bytes);
        Ok(())
    }

    fn finish(mut self) -> Result<(), PackError> {
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

/// The header of a safetensors file, and the zeros behind each tensor.
struct Layout {
    header: Vec<u8>,
    paddings: Vec<u64>,
}

impl Layout {
    fn new(plan: &FilePlan) -> Layout {
        let mut tensors = serde_json::Map::new();
        let mut formats = serde_json::Map::new();
        let mut paddings = Vec::with_capacity(plan.entries.len());
        let mut end = 0;
        for entry in &plan.entries {
            let bytes = entry.bytes().unwrap_or(u64::MAX / 2);
            let (dtype, shape) = match &entry.store {
                Store::Quantized { blocks, .. }
                | Store::Trained(blocks)
                | Store::Residual(blocks) => {
                    formats.insert(entry.name.clone(), blocks.describe().into());
                    (Dtype::U8, vec![bytes as usize])
                }
                Store::Plain(tensor) => (tensor.dtype, tensor.shape.clone()),
                Store::ResidualPeaks { rows, .. } => (Dtype::BF16, vec![*rows]),
            };
            let mut add = |name: String, dtype: Dtype, shape: Vec<usize>, bytes: u64| {
                let value = serde_json::json!({
                    "dtype": dtype.to_string(), "shape": shape, "data_offsets": [end, end + bytes],
                });
                tensors.insert(name, value);
                end += bytes;
            };
            add(entry.name.clone(), dtype, shape, bytes);
            let padding = bytes.next_multiple_of(ALIGNMENT_BYTES) - bytes;
            if padding > 0 {
                // The format allows no holes; no tensor of the model is called so, and names are unique in a pack.
                let name = format!("padding.{}.{}", plan.group, paddings.len());
                add(name, Dtype::U8, vec![padding as usize], padding);
            }
            paddings.push(padding);
        }
        if !formats.is_empty() {
            tensors.insert("__metadata__".to_owned(), formats.into());
        }
        let mut json = serde_json::Value::from(tensors).to_string().into_bytes();
        let length = (json.len() as u64 + 8).next_multiple_of(ALIGNMENT_BYTES) - 8;
        json.resize(length as usize, b' ');
        let mut header = length.to_le_bytes().to_vec();
        header.append(&mut json);
        Layout { header, paddings }
    }
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
        let Err(error) = PackWriter::begin(&target, false, u64::MAX / 2, &mut progress) else {
            panic!("no disk is that large");
        };
        assert!(matches!(error, PackError::Space { .. }), "{error}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
