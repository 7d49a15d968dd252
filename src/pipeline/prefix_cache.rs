//! Keys and values of prompt beginnings that come again, on disk (`[prefix_cache]`): instructions are read once, not before
//! every question, and survive a restart.
//!
//! `gemmad-prefix-N-KEY.kv` holds what the model computed for N tokens; KEY is the hash of all that it depends on, so a file is
//! never out of date: at worst nobody asks for it any more, and the least recently used ones go when room is needed. A file is
//! hashed when it is read; one that is damaged is removed. A beginning is kept from its second use on: what comes once would
//! only wear the flash out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::prefixes::widths;
use crate::guard::private;
use crate::model::decoder::Slice;
use crate::model::decoder::kv_cache::{KvCache, KvType};
use crate::model::weights::{Checkpoint, PACK_JSON};

/// `[prefix_cache]`
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixCacheOptions {
    /// Where the files are; absent: nothing is kept.
    pub dir: Option<PathBuf>,
    /// Size of all files together, MiB.
    pub max_mib: usize,
    /// Memory for such beginnings besides, MiB; 0 for none.
    pub memory_mib: usize,
    /// Tokens that a beginning must have to be kept.
    pub min_tokens: usize,
}

impl Default for PrefixCacheOptions {
    fn default() -> PrefixCacheOptions {
        PrefixCacheOptions {
            dir: None,
            max_mib: 256,
            memory_mib: 192,
            min_tokens: 32,
        }
    }
}

const PREFIX: &str = "gemmad-prefix-";
/// The copy of a PLE table may be in the same directory.
const OURS: &str = "gemmad-";
const SUFFIX: &str = ".kv";
const HASH_BYTES: usize = 32;
/// Beginnings that are remembered as used once.
const REMEMBERED: usize = 64;

/// The files of one model.
pub(super) struct PrefixCache {
    dir: PathBuf,
    max_bytes: u64,
    min_tokens: usize,
    /// Hash of everything but the slice and the tokens.
    model: Sha256,
    used_once: VecDeque<String>,
}

impl PrefixCache {
    /// The cache of a pack, whose `pack.json` has the hash of every weight; nothing where it is switched off, or where the
    /// checkpoint is no pack.
    ///
    /// # Errors
    /// Why it cannot be used, for the log: the directory cannot be made or read.
    pub(super) fn open(
        options: &PrefixCacheOptions,
        checkpoint: &Checkpoint,
        kv_type: KvType,
        context: usize,
    ) -> Result<Option<PrefixCache>, String> {
        let Some(dir) = options.dir.clone() else {
            return Ok(None);
        };
        let Ok(manifest) = std::fs::read(checkpoint.dir().join(PACK_JSON)) else {
            return Ok(None);
        };
        let ours = |name: &str| name.starts_with(OURS);
        private::directory(&dir, ours).map_err(|error| {
            format!(
                "prompts are not kept on disk: cannot make {}: {error}; give [prefix_cache] another dir",
                dir.display()
            )
        })?;
        let mut model = Sha256::new();
        // Another program may compute otherwise.
        let program = concat!(env!("CARGO_PKG_VERSION"), " ", env!("GEMMAD_COMMIT"), "\n");
        model.update(program);
        model.update(format!("{kv_type:?} {context}\n"));
        model.update(&manifest);
        let cache = PrefixCache {
            dir,
            max_bytes: (options.max_mib as u64) << 20,
            min_tokens: options.min_tokens.max(1),
            model,
            used_once: VecDeque::new(),
        };
        // Instructions are somebody's own: files of an earlier version, or of another umask, are closed to others.
        for (path, ..) in cache.files(SUFFIX) {
            private::tighten(&path);
        }
        // What a process that was killed left half written.
        for (path, ..) in cache.files(".partial") {
            remove(&path);
        }
        Ok(Some(cache))
    }

    /// The least tokens that are kept.
    pub(super) fn min_tokens(&self) -> usize {
        self.min_tokens
    }

    /// The name of what `slice` computes for `ids`. Only layers that write keys and values count of a slice: later ones change
    /// nothing of what is kept.
    pub(super) fn key(&self, slice: &Slice, kv_layers: usize, ids: &[u32]) -> String {
        let mut hash = self.model.clone();
        hash.update(widths(slice, kv_layers));
        hash.update(bytemuck::cast_slice(ids));
        format!("{}-{}", ids.len(), hex::encode(hash.finalize()))
    }

    /// Fills `cache`, which is empty or holds a shorter one, with the longest beginning of `ids` that is kept; its length, if it is
    /// longer than `beyond`.
    pub(super) fn take_over(
        &self,
        slice: &Slice,
        kv_layers: usize,
        ids: &[u32],
        beyond: usize,
        cache: &mut KvCache,
    ) -> Option<usize> {
        let length = |(path, ..): &(PathBuf, u64, SystemTime)| {
            let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
            name.split_once('-')?.0.parse::<usize>().ok()
        };
        let mut lengths: Vec<usize> = self.files(SUFFIX).iter().filter_map(length).collect();
        lengths.retain(|length| *length > beyond && *length <= ids.len());
        lengths.sort_unstable();
        lengths.dedup();
        lengths.into_iter().rev().find(|&length| {
            let key = self.key(slice, kv_layers, &ids[..length]);
            self.load(&key, slice, cache)
        })
    }

    /// Fills `cache`, which is empty, with what is kept under `key`; false where there is nothing.
    fn load(&self, key: &str, slice: &Slice, cache: &mut KvCache) -> bool {
        let path = self.path(key);
        let mut bytes = Vec::new();
        // Whatever stands in its place is not waited for.
        let opened = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path);
        let read = opened.and_then(|file| {
            // What is larger was not written by us, and does not get through the hash below.
            (&file).take(self.max_bytes).read_to_end(&mut bytes)?;
            // The least recently used files go first.
            file.set_modified(SystemTime::now())
        });
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) if bytes.is_empty() => {
                log::warn!("cannot read {}: {error}", path.display());
                return false;
            }
            _ => {}
        }
        let whole = bytes
            .split_last_chunk::<HASH_BYTES>()
            .filter(|(body, hash)| Sha256::digest(body)[..] == hash[..])
            .is_some_and(|(body, _)| cache.restore_bytes(body, slice));
        if !whole {
            log::warn!("{} is damaged: it is removed", path.display());
            remove(&path);
        }
        whole
    }

    /// Keeps what `cache` holds under `key`, from the second time on; at once where it is known that there was a first.
    pub(super) fn keep(&mut self, key: &str, cache: &KvCache, again: bool) {
        if again {
            if !self.path(key).exists() {
                self.write(key, cache);
            }
            return;
        }
        let Some(at) = self.used_once.iter().position(|used| used == key) else {
            self.used_once.truncate(REMEMBERED - 1);
            return self.used_once.push_front(key.to_owned());
        };
        self.used_once.remove(at);
        self.write(key, cache);
    }

    fn write(&self, key: &str, cache: &KvCache) {
        let mut bytes = cache.to_bytes();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        let path = self.path(key);
        if bytes.len() as u64 > self.max_bytes {
            return;
        }
        self.make_room(self.max_bytes - bytes.len() as u64);
        // Not synchronised: what a power cut damages is found by its hash.
        let partial = path.with_extension("partial");
        let written = private::create_anew(&partial)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| std::fs::rename(&partial, &path));
        if let Err(error) = written {
            log::warn!("cannot keep a prompt in {}: {error}", path.display());
            remove(&partial);
        }
    }

    /// Removes the least recently used files until at most `bytes` are left.
    fn make_room(&self, bytes: u64) {
        let mut files = self.files(SUFFIX);
        files.sort_by_key(|(_, _, used)| *used);
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (path, size, _) in files {
            if total <= bytes {
                break;
            }
            remove(&path);
            total -= size;
        }
    }

    /// Files of ours with this ending: path, bytes, when it was last used.
    fn files(&self, ending: &str) -> Vec<(PathBuf, u64, SystemTime)> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(ending);
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(ours))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((entry.path(), metadata.len(), metadata.modified().ok()?))
            })
            .collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{PREFIX}{key}{SUFFIX}"))
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
