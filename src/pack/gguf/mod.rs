//! Tensors, hyper-parameters and tokens of a text model in llama.cpp's GGUF.

mod blocks;
mod config;
mod header;
mod names;
mod tokenizer;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kernels::Pool;

use super::error::PackError;
use super::plan::{Described, matrix_shape};
use super::quantize::Source;
use super::{Companion, companions};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use blocks::LONGEST_BLOCK;
use header::{Header, TensorInfo};

/// A GGUF file whose tensors are read a rectangle at a time.
#[derive(Debug)]
pub(super) struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Gguf {
    pub(super) fn open(path: &Path) -> Result<Gguf, PackError> {
        let file = File::open(path).map_err(PackError::read(path))?;
        let header = Header::read(&file, path)?;
        Ok(Gguf {
            path: path.to_owned(),
            file,
            header,
        })
    }

    /// The hyper-parameters, and the small files of the pack; the tokenizer of `tokenizer_dir` instead of the file's own.
    pub(super) fn companions(
        &self,
        tokenizer_dir: Option<&Path>,
    ) -> Result<(Arc<dyn Architecture>, Vec<Companion>), PackError> {
        let path = &self.path;
        let (bos, pad, eos) = tokenizer::ids(&self.header);
        // The architecture first: a file of another model is told so, not that its tokens are odd.
        let config_json = config::config_json(&self.header, path, &eos, bos, pad)?;
        let architecture = family::parse(config_json.as_bytes(), path)?;
        let spec = architecture.spec();
        let mut files = vec![("config.json".to_owned(), config_json.into_bytes())];
        match tokenizer_dir {
            Some(dir) => {
                Tokenizer::load(dir)?.check_config(&spec.ids, spec.vocab_size, path)?;
                let own = companions(dir)?.into_iter();
                files.extend(own.filter(|(name, _)| {
                    name.contains("tokenizer") || name == "generation_config.json"
                }));
            }
            None => {
                let json = tokenizer::tokenizer_json(&self.header, path)?;
                Tokenizer::parse(&json, path)?.check_config(&spec.ids, spec.vocab_size, path)?;
                files.push(("tokenizer.json".to_owned(), json.into_bytes()));
            }
        }
        Ok((architecture, files))
    }

    /// The tensor that holds a canonical one, and the first of its rows there.
    fn find(&self, canonical: &str) -> Option<(&TensorInfo, Vec<usize>, usize)> {
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
}

impl Source for Gguf {
    fn path(&self) -> &Path {
        &self.path
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.find(name).map(|(info, shape, _)| Described {
            shape,
            dtype: info.block_type.plain(),
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
        let (info, shape, first_row) = self.find(name).ok_or_else(|| PackError::Missing {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })?;
        let kind = info.block_type;
        let (len, bytes) = (kind.block_len(), kind.block_bytes());
        let row_len = matrix_shape(&shape).1;
        let blocks = cols.start / len..cols.end.div_ceil(len);
        let failed = Mutex::new(None);
        pool.for_each_row_mut(out, cols.len(), &|row, out| {
            let row = (first_row + rows.start + row) as u64;
            let at = (row * (row_len / len) as u64 + blocks.start as u64) * bytes as u64;
            let mut packed = vec![0; blocks.len() * bytes];
            if let Err(error) = self.file.read_exact_at(&mut packed, info.start + at) {
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert(error);
                }
                return;
            }
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
        match failed.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(PackError::read(&self.path)(error)),
            Err(_) => Err(PackError::read(&self.path)(std::io::Error::other(
                "another thread failed",
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
