//! The per-layer-embedding table, read by row: never mapped, never resident as a whole.
//!
//! A prompt's rows are asked for as soon as its ids are known, so that the disk has them on the way while the first layers
//! compute; a decoded token waits for one row at most. What was read stays in a row cache of fixed size, and its pages leave
//! the page cache again: memory holds the cache and the rows on their way, however large the table is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::Isa;
use serde::Deserialize;

use super::mapping::{Kind, StoredRows};
use super::row_cache::RowCache;
use super::{Checkpoint, Group, WeightsError, pages, ple_copy};

/// `[ple]`: how the per-layer-embedding table is read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct PleOptions {
    /// Rows of the table kept in memory, MiB.
    pub row_cache_mib: usize,
    /// A directory on the fastest local flash, to which the table is copied once and from which it is then read; absent: it is
    /// read where the model lies.
    pub cache_dir: Option<PathBuf>,
}

impl Default for PleOptions {
    fn default() -> PleOptions {
        PleOptions {
            row_cache_mib: 8,
            cache_dir: None,
        }
    }
}

/// Where rows come from: a file, or in a test a disk that can be watched.
trait RowSource: std::fmt::Debug + Send + Sync {
    /// Fills `out` from byte `at` on; waits for the disk.
    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()>;
    /// The bytes will be read soon; does not wait.
    fn will_need(&self, at: u64, bytes: u64);
    /// The bytes were read and will be asked of the row cache from now on.
    fn forget(&self, at: u64, bytes: u64);
    /// Nothing of the range is needed any more.
    fn forget_all(&self, at: u64, bytes: u64);
}

impl RowSource for File {
    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.read_exact_at(out, at)
    }

    fn will_need(&self, at: u64, bytes: u64) {
        pages::will_need(self, at, bytes);
    }

    fn forget(&self, at: u64, bytes: u64) {
        pages::forget(self, at, bytes);
    }

    fn forget_all(&self, at: u64, bytes: u64) {
        pages::forget_all(self, at, bytes);
    }
}

/// How many rows were asked for, and how many of them the disk had to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows used.
    pub used: u64,
    /// Rows read from the file, the others having been in the row cache.
    pub read: u64,
}

/// Rows of `embed_tokens_per_layer`, one per text token id, fetched from flash as they are needed.
#[derive(Debug)]
pub struct PleStore {
    source: Box<dyn RowSource>,
    path: PathBuf,
    start: u64,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    kind: Kind,
    scale: f32,
    state: Mutex<State>,
    warning: Option<String>,
}

#[derive(Debug)]
struct State {
    cache: RowCache,
    /// Rows read for the tokens at hand, whose pages are then forgotten.
    fresh: Vec<u32>,
    counts: RowCounts,
}

/// Sizes of the table.
#[derive(Clone, Copy, Debug)]
pub struct PleShape {
    /// Token ids that have a row.
    pub rows: usize,
    /// Layers, each of which has a part of a row.
    pub layers: usize,
    /// Values of such a part.
    pub width: usize,
}

impl PleStore {
    /// Finds the table, and copies it to `options.cache_dir` if there is one and it has no copy; `progress` is told how many
    /// bytes of how many are done. Where that cannot be done the table is read where it is, and [`PleStore::warning`] says
    /// why.
    ///
    /// # Errors
    /// The table is missing, has another shape than config.json says, or is not stored by row.
    pub fn open(
        checkpoint: &Checkpoint,
        shape: PleShape,
        options: &PleOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PleStore, WeightsError> {
        let name = "model.language_model.embed_tokens_per_layer.weight";
        // Mapped for as long as its description is checked; dropping it also drops what the page cache has of the table.
        let mapped = checkpoint.load(Group::Ple)?;
        let table = mapped.matrix(name, shape.rows, shape.layers * shape.width)?;
        let mut stored = mapped.stored_rows(name, table)?;
        drop(mapped);
        let mut warning = None;
        if let Some(dir) = &options.cache_dir {
            match ple_copy::open(checkpoint, &stored, dir, progress) {
                Ok(copy) => stored = copy,
                Err(error) => {
                    let text = format!(
                        "{error}; the per-layer-embedding table is read from {} instead",
                        stored.path.display()
                    );
                    log::warn!("{text}");
                    warning = Some(text);
                }
            }
        }
        pages::random(
            &stored.file,
            stored.start,
            (stored.rows * stored.row_bytes) as u64,
        );
        Ok(PleStore {
            warning,
            ..PleStore::new(stored, shape, options)
        })
    }

    fn new(stored: StoredRows, shape: PleShape, options: &PleOptions) -> PleStore {
        let limit_bytes = options.row_cache_mib.saturating_mul(1 << 20);
        PleStore {
            source: Box::new(stored.file),
            path: stored.path,
            start: stored.start,
            rows: stored.rows,
            cols: stored.cols,
            row_bytes: stored.row_bytes,
            kind: stored.kind,
            scale: (shape.width as f32).sqrt(),
            state: Mutex::new(State {
                cache: RowCache::new(stored.rows, stored.row_bytes, limit_bytes),
                fresh: Vec::new(),
                counts: RowCounts::default(),
            }),
            warning: None,
        }
    }

    /// Why the table is not read from the configured `cache_dir`.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The file that rows are read from.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Width of a row: L·P values, layer major.
    pub fn width(&self) -> usize {
        self.cols
    }

    /// Bytes of a row as it is stored.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Rows that the row cache has room for, and so how many may be asked for ahead.
    pub fn capacity(&self) -> usize {
        self.state().cache.capacity()
    }

    /// Asks the disk for the rows of `ids` and does not wait for them.
    pub fn request(&self, ids: &[u32]) {
        let state = self.state();
        let mut before = None;
        for &id in ids {
            let row = self.row(id);
            // All soft tokens of a clip or a picture read the same row.
            if before.replace(row) != Some(row) && !state.cache.contains(row) {
                self.source.will_need(self.at(row), self.row_bytes as u64);
            }
        }
    }

    /// Reads the rows of token ids, times sqrt(P), into `out`, \[T, L·P\]; ids outside the text vocabulary (media) read row 0,
    /// the pad row.
    ///
    /// Source: reference section 2.2.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read(&self, isa: Isa, ids: &[u32], out: &mut [f32]) -> Result<(), WeightsError> {
        let mut state = self.state();
        let State {
            cache,
            fresh,
            counts,
        } = &mut *state;
        fresh.clear();
        counts.used += ids.len() as u64;
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.cols)) {
            let row = self.row(id);
            // Asked twice, because a borrow that may be returned lasts for the whole function.
            let bytes = if cache.contains(row) {
                cache.get(row).unwrap_or_default()
            } else {
                fresh.push(row);
                counts.read += 1;
                cache
                    .insert(row, |bytes| self.source.read(self.at(row), bytes))
                    .map_err(|source| WeightsError::Io {
                        action: "read a row of the per-layer-embedding table from",
                        path: self.path.clone(),
                        source,
                    })?
            };
            kernels::widen::row(isa, self.kind.rows(bytes, 1, self.cols), 0, out);
            for x in out {
                *x *= self.scale;
            }
        }
        // Not one by one: neighbours may share a page.
        for &row in fresh.iter() {
            self.source.forget(self.at(row), self.row_bytes as u64);
        }
        Ok(())
    }

    /// Forgets every row, in the row cache and in the page cache.
    pub fn evict(&self) {
        self.state().cache.clear();
        self.source.forget_all(self.start, self.table_bytes());
    }

    /// Bytes in memory now: the row cache. What passes through the page cache is forgotten as soon as it was read.
    pub fn resident_bytes(&self) -> u64 {
        self.state().cache.bytes()
    }

    /// Rows used and read since the start.
    pub fn counts(&self) -> RowCounts {
        self.state().counts
    }

    fn table_bytes(&self) -> u64 {
        (self.rows * self.row_bytes) as u64
    }

    fn row(&self, id: u32) -> u32 {
        if (id as usize) < self.rows { id } else { 0 }
    }

    fn at(&self, row: u32) -> u64 {
        self.start + u64::from(row) * self.row_bytes as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked left is a cache still.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
