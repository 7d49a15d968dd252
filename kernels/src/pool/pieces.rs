//! The pieces of a slice, handed out to a pool's tasks: chunks, rows, and tiles of a matrix, each to one task.

use std::marker::PhantomData;
use std::ops::Range;

use super::Pool;

/// Pieces that [`Pool::for_each_row_mut`] cuts for each thread: enough to even out unequal cores, few enough to be cheap.
pub(crate) const TASKS_PER_THREAD: usize = 8;

impl Pool {
    /// Calls `f(row, row_out)` once for each row of `row_len` elements of `out`; consecutive rows go to one thread in batches.
    ///
    /// # Panics
    /// When `out` is not a whole number of rows, and as [`Pool::run`].
    pub fn for_each_row_mut<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        if out.is_empty() {
            return;
        }
        assert!(
            row_len > 0 && out.len().is_multiple_of(row_len),
            "{} elements are no whole number of rows of {row_len}",
            out.len()
        );
        let rows = out.len() / row_len;
        let batch = rows.div_ceil(self.threads() * TASKS_PER_THREAD);
        self.for_each_chunk_mut(out, batch * row_len, &|chunk, rows_out| {
            for (i, row_out) in rows_out.chunks_exact_mut(row_len).enumerate() {
                f(chunk * batch + i, row_out);
            }
        });
    }

    /// Calls `f(chunk, slice)` once for each chunk of `chunk_len` elements of `out` (the last may be shorter), each a task.
    ///
    /// # Panics
    /// When `chunk_len` is 0 and `out` is not empty, and as [`Pool::run`].
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        out: &mut [T],
        chunk_len: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        if out.is_empty() {
            return;
        }
        self.for_each_tile_mut(out, out.len(), 1, chunk_len, &|_, first, tile| {
            f(first / chunk_len, tile.row_mut(0));
        });
    }

    /// Calls `f(first, tile)` once for each stretch of the rows of `row_len` elements that `out` is made of, each a task that begins with
    /// column `first`: whole units of `unit_len` columns (the last may be shorter), at first a share of what is left for each thread, and
    /// so fewer and fewer, but never under `least` units.
    ///
    /// Memory delivers one long stretch faster than many short ones, and the short ones at the end even out threads that are not
    /// equally fast.
    ///
    /// Source: guided self-scheduling (Polychronopoulos and Kuck, 1987), each task half of a fair share.
    ///
    /// # Panics
    /// When `out` is not a whole number of rows, when `unit_len` or `least` is 0 and `out` is not empty, and as [`Pool::run`].
    pub(crate) fn for_each_stretch_mut<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        unit_len: usize,
        least: usize,
        f: &(dyn Fn(usize, &mut TileMut<'_, T>) + Sync),
    ) {
        if out.is_empty() {
            return;
        }
        assert!(unit_len > 0 && least > 0, "{least} units of {unit_len}");
        let threads = self.threads();
        let mut all = TileMut::new(out, row_len);
        let rows = all.rows();
        let start = SendPtr(all.as_mut_ptr());
        let stretches = || stretches(row_len.div_ceil(unit_len), least, threads);
        self.run(stretches().count(), &|task| {
            let Some(units) = stretches().nth(task) else {
                return;
            };
            let first = units.start * unit_len;
            let mut tile = TileMut {
                // SAFETY: stretches lie within the rows of `out` and do not overlap, and each is handed out once.
                start: unsafe { start.get().add(first) },
                rows,
                cols: row_len.min(units.end * unit_len) - first,
                stride: row_len,
                borrow: PhantomData,
            };
            f(first, &mut tile);
        });
    }

    /// Calls `f(chunk, a, b)` once for each chunk of two slices that are given with the lengths of their chunks, each pair a task; the
    /// last chunk of `a` may be shorter.
    ///
    /// # Panics
    /// When a length is 0, `b` is not a whole number of chunks, as many as `a` has, and as [`Pool::run`].
    pub(crate) fn for_each_chunk_pair_mut<A: Send, B: Send>(
        &self,
        (a, a_len): (&mut [A], usize),
        (b, b_len): (&mut [B], usize),
        f: &(impl Fn(usize, &mut [A], &mut [B]) + Sync),
    ) {
        let chunks = a.len().div_ceil(a_len);
        assert_eq!(b.len(), chunks * b_len, "chunks of two slices");
        let b = SendPtr(b.as_mut_ptr());
        self.for_each_chunk_mut(a, a_len, &|chunk, a| {
            // SAFETY: there are so many chunks of `b`, and each is handed out once, with its chunk of `a`.
            let b = unsafe { std::slice::from_raw_parts_mut(b.get().add(chunk * b_len), b_len) };
            f(chunk, a, b);
        });
    }

    /// Cuts `out`, rows of `row_len` elements, into tiles of at most `tile_rows` by `tile_cols`, and calls
    /// `f(first_row, first_col, tile)` once for each, each a task; tiles of the same columns follow each other.
    ///
    /// # Panics
    /// When `out` is not a whole number of rows or a tile is empty, and as [`Pool::run`].
    pub fn for_each_tile_mut<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        tile_rows: usize,
        tile_cols: usize,
        f: &(dyn Fn(usize, usize, &mut TileMut<'_, T>) + Sync),
    ) {
        if out.is_empty() {
            return;
        }
        assert!(
            row_len > 0 && out.len().is_multiple_of(row_len),
            "{} elements are no whole number of rows of {row_len}",
            out.len()
        );
        assert!(
            tile_rows > 0 && tile_cols > 0,
            "a tile of {tile_rows} x {tile_cols} elements"
        );
        let rows = out.len() / row_len;
        let tiles_down = rows.div_ceil(tile_rows);
        let tiles_across = row_len.div_ceil(tile_cols);
        let start = SendPtr(out.as_mut_ptr());
        self.run(tiles_down * tiles_across, &|task| {
            let row = task % tiles_down * tile_rows;
            let col = task / tiles_down * tile_cols;
            let mut tile = TileMut {
                // SAFETY: row < rows and col < row_len, so the element is in `out`.
                start: unsafe { start.get().add(row * row_len + col) },
                rows: tile_rows.min(rows - row),
                cols: tile_cols.min(row_len - col),
                stride: row_len,
                borrow: PhantomData,
            };
            f(row, col, &mut tile);
        });
    }
}

/// The stretches of [`Pool::for_each_stretch_mut`], in units.
fn stretches(units: usize, least: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = units - done;
        let next = (left / (2 * threads)).max(least).min(left);
        let stretch = done..done + next;
        done = stretch.end;
        (next > 0).then_some(stretch)
    })
}

/// A rectangle of a larger row-major matrix that one task may write.
pub struct TileMut<'a, T> {
    start: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    borrow: PhantomData<&'a mut T>,
}

impl<'a, T> TileMut<'a, T> {
    /// All of `out`, as rows of `cols` elements.
    ///
    /// # Panics
    /// When `out` is not a whole number of rows.
    pub(crate) fn new(out: &'a mut [T], cols: usize) -> TileMut<'a, T> {
        assert!(
            cols > 0 && out.len().is_multiple_of(cols),
            "{} elements in rows of {cols}",
            out.len()
        );
        TileMut {
            rows: out.len() / cols,
            start: out.as_mut_ptr(),
            cols,
            stride: cols,
            borrow: PhantomData,
        }
    }

    /// Some of its rows and columns.
    ///
    /// # Panics
    /// When a range is empty or there are fewer.
    pub(crate) fn part(&mut self, rows: Range<usize>, cols: Range<usize>) -> TileMut<'_, T> {
        assert!(rows.start < rows.end && rows.end <= self.rows, "{rows:?}");
        assert!(cols.start < cols.end && cols.end <= self.cols, "{cols:?}");
        TileMut {
            // SAFETY: that element is in the tile, as just checked.
            start: unsafe { self.start.add(rows.start * self.stride + cols.start) },
            rows: rows.len(),
            cols: cols.len(),
            stride: self.stride,
            borrow: PhantomData,
        }
    }

    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the tile.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from the start of one row to the start of the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first element; valid for `rows` rows of `cols` elements, `stride` apart.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }

    /// The `cols` elements of one row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of a tile of {} rows", self.rows);
        // SAFETY: the tile lies in the matrix that `for_each_tile_mut` borrows, no other task has these elements, and
        // `&mut self` keeps this task from having them twice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.cols) }
    }
}

/// Lets tasks on other threads see the pointer; each makes its own disjoint part of it.
struct SendPtr<T>(*mut T);

impl<T> SendPtr<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: tasks get disjoint parts of elements that are `Send`.
unsafe impl<T: Send> Sync for SendPtr<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn stretches_are_long_first_and_cover_the_output() {
        let lengths: Vec<usize> = stretches(100, 4, 2).map(|units| units.len()).collect();
        assert_eq!(lengths, [25, 18, 14, 10, 8, 6, 4, 4, 4, 4, 3]);
        for threads in 1..4 {
            let pool = Pool::new(Isa::scalar(), threads);
            for (rows, len) in [0, 1, 15, 16, 17, 1000]
                .into_iter()
                .flat_map(|len| [(1, len), (3, len)])
            {
                let mut out = vec![0; rows * len];
                pool.for_each_stretch_mut(&mut out, len, 16, 2, &|first, tile| {
                    assert!(first.is_multiple_of(16) && tile.rows() == rows);
                    for row in 0..rows {
                        for (i, x) in (row * len + first + 1..).zip(tile.row_mut(row)) {
                            *x += i;
                        }
                    }
                });
                assert!(out.iter().enumerate().all(|(i, &x)| x == i + 1));
            }
        }
    }
}
