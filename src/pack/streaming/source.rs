//! A checkpoint whose tensors come from the hub while they are read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use kernels::Pool;

use super::super::error::PackError;
use super::super::huggingface::HuggingFace;
use super::super::plan::{Described, Entry, FilePlan, matrix_shape};
use super::super::quantize::{Groups, Source};
use super::staging::Staging;
use crate::model::weights::Checkpoint;

/// Bytes that are expected ahead at most. Tensors of a layer lie together in the file, but in another order than in the pack: a request
/// gets a layer or more.
const MOST_AHEAD_BYTES: u64 = 256 << 20;
const LEAST_AHEAD_BYTES: u64 = 16 << 20;
/// And no more than this share of what is still to come: what is fetched ahead then never needs more room than what is still missing of
/// the pack.
const AHEAD_SHARE: u64 = 8;

/// What reads the files, and what sees to it that there is something to read.
pub(super) struct Streamed<'a> {
    inner: HuggingFace,
    staging: Staging<'a>,
    tensors: HashMap<String, Remote>,
    /// The tensor of each entry, in the order in which the pack is written.
    order: Vec<String>,
    /// The entry at hand.
    at: usize,
    /// Bytes of the tensors of all entries behind the one at hand.
    left_bytes: u64,
}

/// A tensor on the hub.
struct Remote {
    file: usize,
    place: Range<u64>,
    rows: u64,
    /// Entries that are still made of it.
    readers: usize,
}

impl Remote {
    /// Where some rows lie.
    fn rows(&self, rows: Range<u64>) -> Range<u64> {
        let row_bytes = (self.place.end - self.place.start) / self.rows.max(1);
        let start = self.place.start;
        start + rows.start * row_bytes..start + rows.end * row_bytes
    }

    fn bytes(&self) -> u64 {
        self.place.end - self.place.start
    }
}

impl<'a> Streamed<'a> {
    pub(super) fn new(
        dir: &Path,
        checkpoint: &Checkpoint,
        staging: Staging<'a>,
        files: &[FilePlan],
    ) -> Result<Streamed<'a>, PackError> {
        let entries = files.iter().flat_map(|file| &file.entries);
        let order: Vec<String> = entries.map(|entry| entry.source.clone()).collect();
        let mut tensors = HashMap::new();
        for info in checkpoint.tensors() {
            let Some(file) = staging.position(checkpoint.path(info)) else {
                continue;
            };
            let remote = Remote {
                file,
                place: info.place(),
                rows: matrix_shape(&info.shape).0 as u64,
                readers: order.iter().filter(|name| **name == info.name).count(),
            };
            tensors.insert(info.name.clone(), remote);
        }
        let bytes = |name: &String| tensors.get(name).map_or(0, Remote::bytes);
        Ok(Streamed {
            inner: HuggingFace::open(dir)?,
            left_bytes: order.iter().map(bytes).sum(),
            staging,
            tensors,
            order,
            at: 0,
        })
    }

    /// An entry is to be made, of which an earlier run has made `kept` bytes.
    pub(super) fn begin(&mut self, entry: &Entry, kept: u64) -> Result<(), PackError> {
        let of = |name: &String| self.tensors.get(name);
        self.left_bytes -= of(&entry.source).map_or(0, Remote::bytes);
        let all = entry.bytes().unwrap_or(u64::MAX).max(1);
        if kept >= all {
            return Ok(());
        }
        let first = of(&entry.source).map(|tensor| {
            let done = (u128::from(tensor.rows) * u128::from(kept) / u128::from(all)) as u64;
            (tensor.file, tensor.rows(done..tensor.rows))
        });
        let most = (self.left_bytes / AHEAD_SHARE).clamp(LEAST_AHEAD_BYTES, MOST_AHEAD_BYTES);
        let mut ahead_bytes = 0;
        let mut seen = HashSet::from([&entry.source]);
        let mut expected: Vec<_> = first.into_iter().collect();
        for name in &self.order[self.at + 1..] {
            let Some(tensor) = of(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            ahead_bytes += tensor.bytes();
            if ahead_bytes > most {
                break;
            }
            expected.push((tensor.file, tensor.place.clone()));
        }
        expected.sort_by_key(|(file, place)| (*file, place.start));
        self.staging.announce(expected.into_iter());
        Ok(())
    }

    /// Sees to it that some rows are there.
    fn need(&mut self, name: &str, rows: &Range<usize>) -> Result<(), PackError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Ok(());
        };
        let needed = tensor.rows(rows.start as u64..rows.end as u64);
        let before = tensor.place.start..needed.start;
        self.staging.need(tensor.file, needed)?;
        // The last entry of a tensor goes through its rows once.
        match tensor.readers {
            1 => self.staging.release(tensor.file, before),
            _ => Ok(()),
        }
    }

    /// The entry is made: what no other is made of is given back.
    pub(super) fn end(&mut self) -> Result<(), PackError> {
        let name = &self.order[self.at];
        self.at += 1;
        let Some(tensor) = self.tensors.get_mut(name) else {
            return Ok(());
        };
        tensor.readers = tensor.readers.saturating_sub(1);
        match tensor.readers {
            0 => self.staging.release(tensor.file, tensor.place.clone()),
            _ => Ok(()),
        }
    }
}

impl Source for Streamed<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.inner.describe(name)
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        self.need(name, &rows)?;
        self.inner.read(pool, name, rows, cols, out)
    }

    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        self.need(name, &rows)?;
        self.inner.read_groups(pool, name, rows, cols, groups)
    }
}
