//! A matrix of which few rows are wanted at a time: read from its file by number, never mapped.
//!
//! A page that is mapped brings its neighbours with it, which would make the matrix resident bit by bit. What the page cache keeps of
//! the rows is the kernel's affair: it is the first to go when memory is short.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use kernels::Matrix;

use super::kind::Kind;
use super::{Checkpoint, WeightsError, pages};

/// What is read between two looks at whether it is still wanted.
const AHEAD_BYTES: u64 = 256 << 10;

/// Fills the page cache with the rows of tensor `name`, if there is one and three times its size is free, until `cancelled` says so:
/// where memory is plentiful, no answer waits for flash, and where it becomes short, the kernel takes it back. They are really read:
/// of an advice the kernel follows no more than its readahead window.
pub(super) fn read_ahead(checkpoint: &Checkpoint, name: &str, cancelled: &dyn Fn() -> bool) {
    let Some(info) = checkpoint.tensor(name) else {
        return;
    };
    if pages::available_bytes().unwrap_or(0) / 3 < info.bytes {
        return;
    }
    let (_, file) = checkpoint.file(info);
    let mut scratch = vec![0; AHEAD_BYTES.min(info.bytes) as usize];
    let mut done = 0;
    while done < info.bytes && !cancelled() {
        let now = AHEAD_BYTES.min(info.bytes - done);
        // Whoever needs the rows will be told why they cannot be read.
        if file
            .read_exact_at(&mut scratch[..now as usize], info.start + done)
            .is_err()
        {
            return;
        }
        done += now;
    }
}

/// Rows of a pack's matrix.
#[derive(Debug)]
pub struct RowFile {
    file: File,
    path: PathBuf,
    start: u64,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    kind: Kind,
}

impl RowFile {
    /// Finds the tensor `name` of `rows × cols`; `None` where there is none.
    ///
    /// # Errors
    /// It has another shape, or is not stored row by row.
    pub fn open(
        checkpoint: &Checkpoint,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Option<RowFile>, WeightsError> {
        let Some(info) = checkpoint.tensor(name) else {
            return Ok(None);
        };
        let (path, file) = checkpoint.file(info);
        if info.shape != [rows, cols] {
            return Err(WeightsError::Shape {
                path: path.to_owned(),
                tensor: name.to_owned(),
                expected: format!("[{rows}, {cols}]"),
                found: info.shape.clone(),
            });
        }
        let kind = info.blocks.map(Kind::Quantized);
        let Some((kind, row_bytes)) = kind.and_then(|kind| Some((kind, kind.row_bytes(cols)?)))
        else {
            return Err(WeightsError::Pack {
                path: path.to_owned(),
                reason: format!("tensor {name} is not quantised row by row"),
            });
        };
        let file = file.try_clone().map_err(|source| WeightsError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Some(RowFile {
            file,
            path: path.to_owned(),
            start: info.start,
            rows,
            cols,
            row_bytes,
            kind,
        }))
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Reads rows into `bytes` and gives them as a matrix, `[rows.len(), cols]`. The disk is asked for all of them before the first is
    /// waited for, and gives neighbours together.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    ///
    /// # Panics
    /// There is no such row.
    pub fn read<'b>(
        &self,
        rows: &[u32],
        bytes: &'b mut Vec<u8>,
    ) -> Result<Matrix<'b>, WeightsError> {
        assert!(
            rows.iter().all(|&row| (row as usize) < self.rows),
            "a row beyond {}",
            self.rows
        );
        bytes.resize(rows.len() * self.row_bytes, 0);
        let neighbours = || rows.chunk_by(|&a, &b| a + 1 == b);
        let at = |row: u32| self.start + u64::from(row) * self.row_bytes as u64;
        for run in neighbours() {
            let length = run.len() * self.row_bytes;
            pages::will_need(&self.file, at(run[0]), length as u64);
        }
        let mut rest = bytes.as_mut_slice();
        for run in neighbours() {
            let (now, later) = rest.split_at_mut(run.len() * self.row_bytes);
            rest = later;
            self.file
                .read_exact_at(now, at(run[0]))
                .map_err(|source| WeightsError::Io {
                    action: "read rows of the LM head from",
                    path: self.path.clone(),
                    source,
                })?;
        }
        Ok(self.kind.rows(bytes, rows.len(), self.cols))
    }

    /// Drops the rows from the page cache.
    pub fn evict(&self) {
        let bytes = self.rows as u64 * self.row_bytes as u64;
        pages::forget_all(&self.file, self.start, bytes);
    }
}
