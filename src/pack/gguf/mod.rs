//! Tensors, hyper-parameters and tokens of a model in llama.cpp's GGUF: a text model, and beside it perhaps the towers.

mod blocks;
mod config;
mod header;
mod mmproj;
mod names;
mod others;
mod parts;
mod text;
mod tokenizer;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use half::f16;
use kernels::Pool;
use kernels::quant::GROUP;

use super::error::PackError;
use super::plan::{Described, matrix_shape};
use super::source::{Fetch, Groups, Located, Location, Source};
use blocks::LONGEST_BLOCK;
pub(super) use header::Header;
use header::TensorInfo;
pub use mmproj::Mmproj;
pub(super) use others::Wanted;
use parts::Part;

/// A GGUF model whose tensors are read a rectangle at a time.
#[derive(Debug)]
pub(super) struct Gguf {
    path: PathBuf,
    /// Its parts in order, mostly one.
    parts: Vec<Part>,
    header: Header,
    /// Canonical tensors that lie in one with others: which, and their rows there.
    stacked: HashMap<String, (String, Range<usize>)>,
}

impl Gguf {
    /// A text model.
    pub(super) fn open(path: &Path) -> Result<Gguf, PackError> {
        Gguf::open_as(path, Wanted::Text)
    }

    fn open_as(path: &Path, wanted: Wanted) -> Result<Gguf, PackError> {
        let (parts, header) = parts::open(path, wanted)?;
        Ok(Gguf {
            path: path.to_owned(),
            parts,
            header,
            stacked: HashMap::new(),
        })
    }

    /// The file, or the one of its parts that was given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Some of the `of` rows of a matrix that a tensor holds from `first_row` on.
    fn locate_in(
        &self,
        info: &TensorInfo,
        of: usize,
        first_row: usize,
        rows: Range<usize>,
    ) -> Location {
        let bytes = info.block_type.bytes(&info.shape).unwrap_or(0);
        let place = info.start..info.start + bytes;
        let rows = first_row + rows.start..first_row + rows.end;
        Location::of_rows(&self.parts[info.part].path, place, of, rows)
    }

    fn bad(&self, reason: String) -> PackError {
        PackError::Gguf {
            path: self.path.clone(),
            reason,
        }
    }

    /// The tensor that holds a canonical one, its shape, and the first of its rows there.
    fn find(&self, canonical: &str) -> Option<(&TensorInfo, Vec<usize>, usize)> {
        if let Some((stack, rows)) = self.stacked.get(canonical) {
            let info = self.header.tensors.get(stack)?;
            let shape = vec![rows.len(), matrix_shape(&info.shape).1];
            return Some((info, shape, rows.start));
        }
        let (name, part) = names::in_gguf(canonical)?;
        let info = self.header.tensors.get(&name)?;
        match part {
            None => Some((info, info.shape.clone(), 0)),
            Some(part) => {
                let (&parts, shape) = info.shape.split_first()?;
                let rows = *shape.first()?;
                (part < parts).then(|| (info, shape.to_vec(), part * rows))
            }
        }
    }

    fn place(&self, canonical: &str) -> Result<Place<'_>, PackError> {
        let (info, shape, first_row) = self.find(canonical).ok_or_else(|| PackError::Missing {
            path: self.path.clone(),
            tensor: canonical.to_owned(),
        })?;
        Ok(self.place_of(info, matrix_shape(&shape).1, first_row))
    }

    /// Where a tensor lies that is a matrix of `cols` from `first_row` on.
    fn place_of<'a>(&'a self, info: &'a TensorInfo, cols: usize, first_row: usize) -> Place<'a> {
        Place {
            path: &self.path,
            file: &self.parts[info.part].file,
            info,
            first_row,
            row_blocks: cols / info.block_type.block_len(),
        }
    }
}

/// Where a tensor lies.
struct Place<'a> {
    path: &'a Path,
    file: &'a File,
    info: &'a TensorInfo,
    first_row: usize,
    /// Blocks of a row.
    row_blocks: usize,
}

impl Place<'_> {
    /// Reads some blocks of a row.
    fn read(&self, row: usize, blocks: &Range<usize>) -> std::io::Result<Vec<u8>> {
        let bytes = self.info.block_type.block_bytes();
        let block = (self.first_row + row) as u64 * self.row_blocks as u64 + blocks.start as u64;
        let mut packed = vec![0; blocks.len() * bytes];
        let at = self.info.start + block * bytes as u64;
        self.file.read_exact_at(&mut packed, at)?;
        Ok(packed)
    }

    /// As [`Source::read`].
    fn numbers(
        &self,
        pool: &Pool,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        let kind = self.info.block_type;
        let (len, bytes) = (kind.block_len(), kind.block_bytes());
        let blocks = cols.start / len..cols.end.div_ceil(len);
        let failed = Failed::default();
        pool.for_each_row_mut(out, cols.len(), &|row, out| {
            let Some(packed) = failed.check(self.read(rows.start + row, &blocks)) else {
                return;
            };
            let mut weights = [0.0; LONGEST_BLOCK];
            for (block, packed) in blocks.clone().zip(packed.chunks_exact(bytes)) {
                kind.dequantize(packed, &mut weights[..len]);
                // The rectangle may begin and end within a block.
                let start = (block * len).max(cols.start);
                let end = (block * len + len).min(cols.end);
                out[start - cols.start..end - cols.start]
                    .copy_from_slice(&weights[start - block * len..end - block * len]);
            }
        });
        failed.result(self.path)
    }

    /// As [`Source::read_groups`].
    fn groups(
        &self,
        pool: &Pool,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        let kind = self.info.block_type;
        let blocks = cols.start / GROUP..cols.end / GROUP;
        let failed = Failed::default();
        // A row's scales, and then its integers: the pool hands out rows of one slice.
        for (row, scales) in rows
            .clone()
            .zip(groups.scales.chunks_exact_mut(blocks.len()))
        {
            let Some(packed) = failed.check(self.read(row, &blocks)) else {
                break;
            };
            for (scale, block) in scales
                .iter_mut()
                .zip(packed.chunks_exact(kind.block_bytes()))
            {
                *scale = f16::from_le_bytes([block[0], block[1]]);
            }
        }
        pool.for_each_row_mut(&mut groups.integers, cols.len(), &|row, out| {
            let Some(packed) = failed.check(self.read(rows.start + row, &blocks)) else {
                return;
            };
            let packed = packed.chunks_exact(kind.block_bytes());
            for (out, block) in out.as_chunks_mut().0.iter_mut().zip(packed) {
                kind.integers(block, out);
            }
        });
        failed.result(self.path)?;
        // The kernels take the magnitude of an integer of 8 bits for one of 7.
        Ok(kind.bits() == Some(4) || !groups.integers.contains(&i8::MIN))
    }
}

/// The first error of several threads.
#[derive(Default)]
struct Failed(Mutex<Option<std::io::Error>>);

impl Failed {
    /// The value, or nothing and the error kept.
    fn check<T>(&self, result: std::io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if let Ok(mut failed) = self.0.lock() {
                    failed.get_or_insert(error);
                }
                None
            }
        }
    }

    fn result(self, path: &Path) -> Result<(), PackError> {
        match self.0.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(PackError::read(path)(error)),
            Err(_) => Err(PackError::read(path)(std::io::Error::other(
                "another thread failed",
            ))),
        }
    }
}

impl Located for Gguf {
    fn locate(&self, name: &str, rows: Range<usize>) -> Vec<Location> {
        let found = self.find(name).map(|(info, shape, first_row)| {
            // Those of all that the tensor holds: it may be a stack.
            let elements: usize = info.shape.iter().product();
            let of = elements / matrix_shape(&shape).1.max(1);
            self.locate_in(info, of, first_row, rows)
        });
        found.into_iter().collect()
    }

    fn look_at(&mut self, _: &Pool, _: &str, _: &mut Fetch<'_>) -> Result<(), PackError> {
        Ok(())
    }
}

impl Source for Gguf {
    fn path_of(&self, _name: &str) -> &Path {
        &self.path
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.find(name).map(|(info, shape, _)| Described {
            shape,
            dtype: info.block_type.plain(),
            block_bits: info.block_type.bits(),
        })
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        self.place(name)?.numbers(pool, rows, cols, out)
    }

    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        self.place(name)?.groups(pool, rows, cols, groups)
    }
}

#[cfg(test)]
mod tests;
