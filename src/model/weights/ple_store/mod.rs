//! The per-layer-embedding table, read by row: never mapped, never resident as a whole.
//!
//! A prompt's rows are asked for as soon as its ids are known, so that the disk has them on the way while the first layers
//! compute; a decoded token waits for one row at most. What was read stays in a row cache of fixed size, and its pages leave
//! the page cache again: memory holds the cache and the rows on their way, however large the table is.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::Isa;
use serde::Deserialize;

use super::kind::Kind;
use super::mapping::StoredRows;
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
    /// Rows read from the file, or a part of them, the others having been in the row cache.
    pub read: u64,
    /// Bytes of them that were read.
    pub bytes: u64,
}

/// What lies between two stretches of a row and is shorter than this has no whole page: to leave it out would save nothing.
const PAGE_BYTES: usize = 4096;

/// The front of every row: the parts of its first layers.
#[derive(Clone, Copy, Debug)]
struct Front {
    /// Its numbers.
    cols: usize,
    /// Their bytes, without scales.
    bytes: usize,
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
    /// The whole of a row; behind its bytes lie the scales, where there are any.
    whole: Front,
    /// Numbers of a layer's part of a row.
    layer_width: usize,
    kind: Kind,
    scale: f32,
    state: Mutex<State>,
    warning: Option<String>,
}

#[derive(Debug)]
struct State {
    cache: RowCache,
    /// What was read for the tokens at hand, whose pages are then forgotten.
    fresh: Vec<(u64, u64)>,
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
        let (cols, bytes) = stored.kind.row_front(stored.cols, stored.cols);
        PleStore {
            source: Box::new(stored.file),
            path: stored.path,
            start: stored.start,
            rows: stored.rows,
            cols: stored.cols,
            row_bytes: stored.row_bytes,
            whole: Front { cols, bytes },
            layer_width: shape.width,
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

    /// Asks the disk for what the first `layers` read of these rows, and does not wait for it.
    pub fn request(&self, rows: impl Iterator<Item = u32>, layers: usize) {
        if layers == 0 {
            return;
        }
        let state = self.state();
        let front = self.front(layers);
        let mut before = None;
        for row in rows {
            // All soft tokens of a clip or a picture read the same row.
            if before.replace(row) != Some(row) {
                for stretch in self.missing(state.cache.front(row), front) {
                    let (at, bytes) = self.at(row, &stretch);
                    self.source.will_need(at, bytes);
                }
            }
        }
    }

    /// Reads what the first `layers` take of rows, times sqrt(P), into the front of each of `out`, \[T, L·P\]; what stands behind it is
    /// unspecified afterwards.
    ///
    /// Source: reference section 2.2.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    ///
    /// # Panics
    /// There is no such row, or not so many layers.
    pub fn read(
        &self,
        isa: Isa,
        rows: impl Iterator<Item = u32>,
        layers: usize,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        if layers == 0 {
            return Ok(());
        }
        let front = self.front(layers);
        let mut state = self.state();
        let State {
            cache,
            fresh,
            counts,
        } = &mut *state;
        fresh.clear();
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            counts.used += 1;
            let held = cache.front(row);
            // Asked twice, because a borrow that may be returned lasts for the whole function.
            let bytes = if held >= front.bytes {
                cache.get(row).unwrap_or_default()
            } else {
                counts.read += 1;
                let missing = self.missing(held, front);
                fresh.extend(missing.clone().map(|stretch| self.at(row, &stretch)));
                cache
                    .insert(row, front.bytes, |bytes| {
                        let mut stretches = missing;
                        stretches.try_for_each(|stretch| {
                            let (at, _) = self.at(row, &stretch);
                            self.source.read(at, &mut bytes[stretch])
                        })
                    })
                    .map_err(|source| WeightsError::Io {
                        action: "read a row of the per-layer-embedding table from",
                        path: self.path.clone(),
                        source,
                    })?
            };
            let out = &mut out[..front.cols];
            let matrix = self.kind.rows(bytes, 1, self.cols);
            kernels::widen::row(isa, matrix.columns(0..front.cols), 0, out);
            for x in out {
                *x *= self.scale;
            }
        }
        // Not one by one: neighbours may share a page.
        for &(at, bytes) in fresh.iter() {
            counts.bytes += bytes;
            self.source.forget(at, bytes);
        }
        Ok(())
    }

    fn front(&self, layers: usize) -> Front {
        let (cols, bytes) = self.kind.row_front(self.cols, layers * self.layer_width);
        let has_scales = self.row_bytes > self.whole.bytes;
        match has_scales && self.whole.bytes - bytes < PAGE_BYTES {
            true => self.whole,
            false => Front { cols, bytes },
        }
    }

    /// The stretches of a row's bytes that are still to be read for its front, where it is held up to `held`.
    fn missing(&self, held: usize, front: Front) -> impl Iterator<Item = Range<usize>> + Clone {
        let numbers = held..front.bytes;
        let scales = self.whole.bytes..self.row_bytes;
        let stretches = match held {
            0 if front.bytes == self.whole.bytes => [0..self.row_bytes, 0..0],
            0 => [numbers, scales],
            _ => [numbers, 0..0],
        };
        stretches.into_iter().filter(|stretch| !stretch.is_empty())
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

    /// Where a stretch of a row lies in the file, and its length.
    fn at(&self, row: u32, stretch: &Range<usize>) -> (u64, u64) {
        let row_start = self.start + u64::from(row) * self.row_bytes as u64;
        (row_start + stretch.start as u64, stretch.len() as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked left is a cache still.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
