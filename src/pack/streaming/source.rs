//! A source whose tensors come from the hub while they are read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use kernels::Pool;

use super::super::error::PackError;
use super::super::plan::{Described, Entry, FilePlan, matrix_shape};
use super::super::source::{Groups, Located, Source};
use super::staging::Staging;

/// Bytes that are expected ahead at most. Tensors of a layer lie together in the file, but in another order than in the pack: a request
/// gets a layer or more.
const MOST_AHEAD_BYTES: u64 = 256 << 20;
const LEAST_AHEAD_BYTES: u64 = 16 << 20;
/// And no more than this share of what is still to come: what is fetched ahead then never needs more room than what is still missing of
/// the pack.
const AHEAD_SHARE: u64 = 8;

/// What reads the files, and what sees to it that there is something to read.
pub(super) struct Streamed<'a, S> {
    inner: S,
    staging: Staging<'a>,
    tensors: HashMap<String, Remote>,
    /// The tensor of each entry, in the order in which the pack is written.
    order: Vec<String>,
    /// The entry at hand.
    at: usize,
    /// Bytes of the tensors of all entries behind the one at hand.
    left_bytes: u64,
}

/// Bytes of a staged file, by its number.
type Place = (usize, Range<u64>);

/// A tensor on the hub.
struct Remote {
    places: Vec<Place>,
    rows: usize,
    /// Entries that are still made of it.
    readers: usize,
}

impl Remote {
    fn bytes(&self) -> u64 {
        let bytes = self.places.iter().map(|(_, place)| place.end - place.start);
        bytes.sum()
    }
}

/// Where some rows of a tensor are, as far as they come from the hub.
fn places<S: Located>(
    source: &S,
    staging: &Staging<'_>,
    name: &str,
    rows: Range<usize>,
) -> Vec<Place> {
    let located = source.locate(name, rows).into_iter();
    let staged = located.filter_map(|found| Some((staging.position(&found.path)?, found.bytes)));
    staged.collect()
}

impl<'a, S: Located> Streamed<'a, S> {
    pub(super) fn new(inner: S, staging: Staging<'a>, files: &[FilePlan]) -> Streamed<'a, S> {
        let entries = files.iter().flat_map(|file| &file.entries);
        let order: Vec<String> = entries.map(|entry| entry.source.clone()).collect();
        let mut tensors: HashMap<String, Remote> = HashMap::new();
        for name in &order {
            if let Some(found) = tensors.get_mut(name) {
                found.readers += 1;
                continue;
            }
            let rows = inner.describe(name);
            let rows = rows.map_or(0, |found| matrix_shape(&found.shape).0);
            let remote = Remote {
                places: places(&inner, &staging, name, 0..rows),
                rows,
                readers: 1,
            };
            tensors.insert(name.clone(), remote);
        }
        let bytes = |name: &String| tensors.get(name).map_or(0, Remote::bytes);
        Streamed {
            left_bytes: order.iter().map(bytes).sum(),
            inner,
            staging,
            tensors,
            order,
            at: 0,
        }
    }

    /// Whether an earlier run has fetched something.
    pub(super) fn goes_on(&self) -> bool {
        self.staging.goes_on()
    }

    /// An entry is to be made, of which an earlier run has made `kept` bytes.
    pub(super) fn begin(&mut self, entry: &Entry, kept: u64) {
        let of = |name: &String| self.tensors.get(name);
        self.left_bytes -= of(&entry.source).map_or(0, Remote::bytes);
        let all = entry.bytes().unwrap_or(u64::MAX).max(1);
        if kept >= all {
            return;
        }
        let mut expected: Vec<Place> = of(&entry.source).map_or_else(Vec::new, |tensor| {
            let done = (tensor.rows as u128 * u128::from(kept) / u128::from(all)) as usize;
            places(&self.inner, &self.staging, &entry.source, done..tensor.rows)
        });
        let most = (self.left_bytes / AHEAD_SHARE).clamp(LEAST_AHEAD_BYTES, MOST_AHEAD_BYTES);
        let mut ahead_bytes = 0;
        let mut seen = HashSet::from([&entry.source]);
        for name in &self.order[self.at + 1..] {
            let Some(tensor) = of(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            ahead_bytes += tensor.bytes();
            if ahead_bytes > most {
                break;
            }
            expected.extend(tensor.places.iter().cloned());
        }
        expected.sort_by_key(|(file, place)| (*file, place.start));
        self.staging.announce(expected.into_iter());
    }

    /// Sees to it that some rows are there.
    fn need(&mut self, name: &str, rows: &Range<usize>) -> Result<(), PackError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Ok(());
        };
        for (file, place) in places(&self.inner, &self.staging, name, rows.clone()) {
            self.staging.need(file, place)?;
        }
        // The last entry of a tensor goes through its rows once.
        if tensor.readers == 1 {
            for (file, place) in places(&self.inner, &self.staging, name, 0..rows.start) {
                self.staging.release(file, place)?;
            }
        }
        Ok(())
    }

    /// The entry is made: it is looked at, if it was made in this run, and what no other is made of is given back.
    pub(super) fn end(&mut self, pool: &Pool, made: bool) -> Result<(), PackError> {
        let name = &self.order[self.at];
        self.at += 1;
        if made {
            let staging = &mut self.staging;
            self.inner
                .look_at(pool, name, &mut |found| staging.fetch(found))?;
        }
        let Some(tensor) = self.tensors.get_mut(name) else {
            return Ok(());
        };
        tensor.readers = tensor.readers.saturating_sub(1);
        if tensor.readers == 0 {
            for (file, place) in tensor.places.clone() {
                self.staging.release(file, place)?;
            }
        }
        Ok(())
    }
}

impl<S: Located> Source for Streamed<'_, S> {
    fn path_of(&self, name: &str) -> &Path {
        self.inner.path_of(name)
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

    fn take(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        integers: &mut [i8],
        scales: &mut [f32],
    ) -> Result<(), PackError> {
        self.need(name, &rows)?;
        self.inner.take(pool, name, rows, integers, scales)
    }
}
