//! Where the tensors of a pack come from: a checkpoint or a file, read a rectangle at a time.

use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use kernels::Pool;
use kernels::quant::GROUP;

use super::error::PackError;
use super::plan::Described;

/// Where tensors come from, by canonical name.
pub(super) trait Source {
    /// The file or directory that a tensor comes from, for errors.
    fn path_of(&self, name: &str) -> &Path;

    /// Shape and type of a tensor; `None` where there is none of that name.
    fn describe(&self, name: &str) -> Option<Described>;

    /// Reads `out [rows, cols]`, a rectangle of the tensor as a matrix.
    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError>;

    /// Reads a rectangle as the integers that it consists of, where the tensor's `block_bits` are these; its columns are whole groups.
    /// False, and `groups` is not to be used, where they do not fit the block formats.
    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError>;

    /// Takes some rows of a matrix of trained integers as they are.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `integers` | \[rows, cols\] |
    /// | `scales` | \[rows, scales of a row\] |
    fn take(
        &mut self,
        _pool: &Pool,
        name: &str,
        _rows: Range<usize>,
        _integers: &mut [i8],
        _scales: &mut [f32],
    ) -> Result<(), PackError> {
        unreachable!("{name} is planned as trained, and there is no such matrix here")
    }
}

/// Bytes of a file.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) path: PathBuf,
    pub(super) bytes: Range<u64>,
}

impl Location {
    /// Some of the `of` rows of a matrix whose bytes are at `place`, row by row.
    pub(super) fn of_rows(
        path: &Path,
        place: Range<u64>,
        of: usize,
        rows: Range<usize>,
    ) -> Location {
        let row_bytes = (place.end - place.start) / of.max(1) as u64;
        let at = |row: usize| place.start + row as u64 * row_bytes;
        Location {
            path: path.to_owned(),
            bytes: at(rows.start)..at(rows.end),
        }
    }
}

/// Sees to it that bytes are there.
pub(super) type Fetch<'a> = dyn FnMut(&Location) -> Result<(), PackError> + 'a;

/// A source of which it is known where each tensor lies, so that its files need not be there as a whole.
pub(super) trait Located: Source {
    /// What some rows of a tensor, as a matrix, are read from.
    fn locate(&self, name: &str, rows: Range<usize>) -> Vec<Location>;

    /// Looks at a tensor that is there now, as a source whose files are whole looks at all of them before the first is packed.
    fn look_at(&mut self, pool: &Pool, name: &str, fetch: &mut Fetch<'_>) -> Result<(), PackError>;
}

/// A rectangle of integers, `[rows, cols]`, each with the scale of its group, `[rows, cols / GROUP]`.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) integers: Vec<i8>,
    pub(super) scales: Vec<f16>,
}

impl Groups {
    /// Sets the shape; what stood there is no more.
    pub(super) fn resize(&mut self, rows: usize, cols: usize) {
        self.integers.resize(rows * cols, 0);
        self.scales.resize(rows * cols / GROUP, f16::ZERO);
    }
}
