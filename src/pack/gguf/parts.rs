//! A model in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp splits it.
//!
//! The first has the keys, each has a table of its own tensors. Source: `llama-gguf-split` of the llama.cpp project.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::error::PackError;
use super::header::{Header, MAX_TENSORS};
use super::others::Wanted;

/// A model is split by bytes, into a handful of files.
const MAX_PARTS: usize = 64;

/// A file of a model.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Opens a model whole: the files in order, and a header that tells of each tensor in which of them it lies. Any of them may be given.
pub(super) fn open(path: &Path, wanted: Wanted) -> Result<(Vec<Part>, Header), PackError> {
    let (file, header) = open_one(path, wanted)?;
    let count = header.number("split.count");
    if count <= 1.0 {
        let path = path.to_owned();
        return Ok((vec![Part { path, file }], header));
    }
    let bad = |path: &Path, reason: String| PackError::Gguf {
        path: path.to_owned(),
        reason,
    };
    let no = header.number("split.no") + 1.0;
    let Some(name) = Name::of(path) else {
        return Err(bad(
            path,
            format!(
                "it is part {no} of a model in {count} files, but not under its own name, which ends in -{no:05}-of-{count:05}.gguf (files put together with `cat` are no model): download all parts into one directory as they are called, or merge them with `llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf`"
            ),
        ));
    };
    if name.count > MAX_PARTS {
        return Err(bad(
            path,
            format!("it is one of {count} parts; {MAX_PARTS} are read"),
        ));
    }
    // The one that was given is read again in its turn, so that there is one way.
    drop((file, header));
    let mut files = Vec::new();
    let mut whole: Option<Header> = None;
    for part in 0..name.count {
        let path = name.path_of(part);
        if !path.exists() {
            return Err(bad(
                &path,
                format!(
                    "it is missing: the model is in {} files, which lie side by side; download it, too",
                    name.count
                ),
            ));
        }
        let (file, mut header) = open_one(&path, wanted)?;
        let says = (header.number("split.no"), header.number("split.count"));
        if says != (part as f64, name.count as f64) {
            return Err(bad(
                &path,
                format!(
                    "by its name it is part {} of {}, but it says that it is part {} of {}: download it again under its own name",
                    part + 1,
                    name.count,
                    says.0 + 1.0,
                    says.1
                ),
            ));
        }
        for tensor in header.tensors.values_mut() {
            tensor.part = part;
        }
        files.push(Part {
            path: path.clone(),
            file,
        });
        match &mut whole {
            None => whole = Some(header),
            Some(whole) => {
                if (whole.tensors.len() + header.tensors.len()) as u64 > MAX_TENSORS {
                    let reason = format!("its parts hold more than {MAX_TENSORS} tensors");
                    return Err(bad(&path, reason));
                }
                for (name, tensor) in header.tensors {
                    if whole.tensors.insert(name.clone(), tensor).is_some() {
                        return Err(bad(
                            &path,
                            format!(
                                "tensor {name} is in a part before it, too: the parts are of two models"
                            ),
                        ));
                    }
                }
            }
        }
    }
    let whole = whole.ok_or_else(|| bad(path, "it has no parts".to_owned()))?;
    let tensors = whole.number("split.tensors.count");
    if tensors != 0.0 && tensors != whole.tensors.len() as f64 {
        return Err(bad(
            path,
            format!(
                "its parts hold {} tensors, of {tensors}: they are of two models; download all of them from one place",
                whole.tensors.len()
            ),
        ));
    }
    Ok((files, whole))
}

fn open_one(path: &Path, wanted: Wanted) -> Result<(File, Header), PackError> {
    let file = File::open(path).map_err(PackError::read(path))?;
    let size = file.metadata().map_err(PackError::read(path))?.len();
    let header = Header::read(&file, size, path, wanted)?;
    Ok((file, header))
}

/// A part's name: what all have in common, and how many there are.
struct Name {
    stem: PathBuf,
    count: usize,
}

impl Name {
    fn of(path: &Path) -> Option<Name> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, no) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let is_number = digits.len() == 5 && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| is_number)
        };
        let (no, count) = (number(no)?, number(count)?);
        (no >= 1 && no <= count).then(|| Name {
            stem: path.with_file_name(stem),
            count,
        })
    }

    fn path_of(&self, part: usize) -> PathBuf {
        let mut name = self.stem.as_os_str().to_owned();
        name.push(format!("-{:05}-of-{:05}.gguf", part + 1, self.count));
        PathBuf::from(name)
    }
}
