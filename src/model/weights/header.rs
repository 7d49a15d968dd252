//! Safetensors headers, single file or sharded: read, checked, merged into one table of tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use safetensors::{Dtype, SafeTensors};

use super::super::files;
use super::foreign;
use super::index::{self, Source};
use super::mapping::{self, Mapped};
use super::pack::{Blocks, PackManifest};
use super::{Group, HEAD_RESIDUAL, HEAD_RESIDUAL_PEAKS, WeightsError};

/// The headers of all files together. Those of published checkpoints are below 1 MiB; parsed they take up to thirty times their
/// bytes, so the library's own limit of 100 MB a file would let a hostile one fill a board's memory.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Gemma 3n has two levels below `layers`; names are short.
const MAX_NAME_BYTES: usize = 256;

/// One tensor as its header describes it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Canonical name: text tensors start with `model.language_model.` also where a text-only checkpoint leaves
    /// `language_model.` out.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
    /// Parameter group; `None` for a tensor that Gemma 3n does not have (it is never loaded).
    pub group: Option<Group>,
    /// Index of the file in the checkpoint's list.
    pub(super) file: usize,
    /// First byte in the file.
    pub(super) start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// How a quantised tensor of a pack is read; `shape` is then that of the matrix.
    pub blocks: Option<Blocks>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// Parameters of the model that it holds: those of a head in two planes are the first one's.
    pub fn parameters(&self) -> u64 {
        match self.name.as_str() {
            HEAD_RESIDUAL | HEAD_RESIDUAL_PEAKS => 0,
            _ => self.elements(),
        }
    }
}

/// The headers of a checkpoint in the published layout, or of a pack; nothing is mapped yet.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<PathBuf>,
    /// The same files, kept open: a group that is loaded when the pack was replaced comes from the pack that was opened.
    handles: Vec<File>,
    tensors: BTreeMap<String, TensorInfo>,
    pack: Option<PackManifest>,
    warnings: Vec<String>,
    /// The groups that somebody has mapped.
    mapped: [Mutex<Weak<Mapped>>; Group::ALL.len()],
}

/// All dimensions of a shape but the first, multiplied. Beside a 0 any number may stand: what is beyond a `usize` is its largest, which no
/// matrix has.
pub fn columns(shape: &[usize]) -> usize {
    shape
        .iter()
        .skip(1)
        .fold(1, |product: usize, &n| product.saturating_mul(n))
}

impl Checkpoint {
    /// Reads and checks the headers of a pack's files, of `model.safetensors`, or of the shards that
    /// `model.safetensors.index.json` names. Where there are both, the whole file counts, as in the reference implementation.
    ///
    /// # Errors
    /// A file that is missing, truncated, overlapping, or whose header is malformed or too large; a tensor found twice, or named by
    /// the index and not found; tensors as other programs name or quantise them.
    pub fn open(dir: &Path) -> Result<Checkpoint, WeightsError> {
        let no_weights = || match files::instead_of_checkpoint(dir) {
            Some(reason) => WeightsError::NotACheckpoint {
                path: dir.to_owned(),
                reason,
            },
            None => WeightsError::NoWeights {
                dir: dir.to_owned(),
            },
        };
        let pack = PackManifest::read(dir)?;
        let Source {
            files,
            promised,
            index,
            warnings,
        } = match &pack {
            Some(pack) => Source::of_files(pack.weight_files(dir)?),
            None => index::find(dir)?.ok_or_else(no_weights)?,
        };
        let mut tensors = BTreeMap::new();
        let mut handles = Vec::with_capacity(files.len());
        let mut header_bytes = MAX_HEADER_BYTES;
        for (file, path) in files.iter().enumerate() {
            let handle = File::open(path).map_err(io("open", path))?;
            let infos = read_header(file, path, &handle, pack.is_some(), &mut header_bytes)
                .map_err(|error| error.noting(&warnings))?;
            handles.push(handle);
            for info in infos {
                if let Some(other) = tensors.insert(info.name.clone(), info) {
                    return Err(WeightsError::Header {
                        path: path.clone(),
                        reason: format!(
                            "tensor {} is also in {}",
                            other.name,
                            files[other.file].display()
                        ),
                    });
                }
            }
        }
        // What is tied to the embeddings is listed by some writers and needed by nobody.
        if let Some((tensor, shard)) = promised
            .iter()
            .find(|(name, _)| !tensors.contains_key(name) && !name.ends_with("lm_head.weight"))
        {
            return Err(WeightsError::Index {
                path: index,
                reason: format!("it places tensor {tensor} in {shard}, which does not hold it"),
            });
        }
        let mut checkpoint = Checkpoint {
            dir: dir.to_owned(),
            files,
            handles,
            tensors,
            pack,
            warnings,
            mapped: Default::default(),
        };
        checkpoint.canonicalise();
        if checkpoint.pack.is_none() {
            foreign::refuse(&checkpoint)?;
            checkpoint.warnings.extend(foreign::unmerged_adapter(dir));
        }
        Ok(checkpoint)
    }

    /// Gives the text tensors of a text-only checkpoint (`model.layers.…`) the names they have in a complete one, and the
    /// embeddings theirs where they were saved as what is tied to them.
    fn canonicalise(&mut self) {
        self.name_text();
        let embeddings = "model.language_model.embed_tokens.weight";
        if self.tensors.contains_key(embeddings) {
            return;
        }
        for head in ["lm_head.weight", "language_model.lm_head.weight"] {
            if let Some(mut info) = self.tensors.remove(head) {
                info.name = embeddings.to_owned();
                info.group = Group::of(embeddings);
                self.tensors.insert(embeddings.to_owned(), info);
                return;
            }
        }
    }

    fn name_text(&mut self) {
        if self
            .tensors
            .keys()
            .any(|name| name.starts_with("model.language_model."))
        {
            return;
        }
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors
            .into_values()
            .map(|mut info| {
                if let (None, Some(rest)) = (info.group, info.name.strip_prefix("model.")) {
                    info.name = format!("model.language_model.{rest}");
                    info.group = Group::of(&info.name);
                }
                (info.name.clone(), info)
            })
            .collect();
    }

    /// What the pack says of itself; `None` for a checkpoint in the published layout.
    pub fn pack(&self) -> Option<&PackManifest> {
        self.pack.as_ref()
    }

    /// What is odd about its files, in one line each: it serves all the same.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The checkpoint's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every tensor, by canonical name in alphabetical order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Whether any tensor of the group is there: a text-only checkpoint has no audio and no vision.
    pub fn has(&self, group: Group) -> bool {
        self.tensors().any(|info| info.group == Some(group))
    }

    /// Where the file lies that holds a tensor.
    pub fn path(&self, info: &TensorInfo) -> &Path {
        self.file(info).0
    }

    /// The tensor of this name.
    pub(super) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The file that holds a tensor.
    pub(super) fn file(&self, info: &TensorInfo) -> (&Path, &File) {
        (&self.files[info.file], &self.handles[info.file])
    }

    /// Maps the byte ranges of one group, read-only and in place; while somebody has the group mapped, gives that mapping. Left out
    /// is the head's second plane, of which single rows are read ([`super::RowFile`]).
    ///
    /// # Errors
    /// The files changed size since [`Checkpoint::open`], or cannot be opened or mapped.
    pub fn load(&self, group: Group) -> Result<Arc<Mapped>, WeightsError> {
        let mut last = self.mapped[group as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = last.upgrade() {
            return Ok(mapped);
        }
        let tensors: Vec<&TensorInfo> = self
            .tensors()
            .filter(|info| info.group == Some(group) && info.name != HEAD_RESIDUAL)
            .collect();
        let mapped = Arc::new(mapping::map(self, group, &tensors)?);
        *last = Arc::downgrade(&mapped);
        Ok(mapped)
    }
}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WeightsError {
    let path = path.to_owned();
    move |source| WeightsError::Io {
        action,
        path,
        source,
    }
}

fn read_header(
    file: usize,
    path: &Path,
    mut handle: &File,
    is_pack: bool,
    left: &mut u64,
) -> Result<Vec<TensorInfo>, WeightsError> {
    use std::io::Read;
    let bad = |reason: String| WeightsError::Header {
        path: path.to_owned(),
        reason,
    };
    let size = handle.metadata().map_err(io("read", path))?.len();
    let mut length = [0u8; 8];
    handle.read_exact(&mut length).map_err(|_| {
        bad(format!(
            "it has {size} bytes, too few for a safetensors header"
        ))
    })?;
    let mut start = length.to_vec();
    let length = u64::from_le_bytes(length);
    if length > *left || length > size.saturating_sub(8) {
        // Not worth more words where it cannot be read.
        handle.take(512).read_to_end(&mut start).ok();
        if let Some(what) = files::instead_of_file(&start) {
            return Err(bad(what.to_owned()));
        }
        return Err(bad(format!(
            "its header claims {length} bytes; the file has {size} bytes and the headers of all files together may have {MAX_HEADER_BYTES}"
        )));
    }
    *left -= length;
    let whole = mapping::map_whole(handle, path)?;
    let (header_bytes, metadata) =
        SafeTensors::read_metadata(&whole).map_err(|e| bad(header_reason(&e, size)))?;
    let data_start = header_bytes as u64 + 8;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if name.len() > MAX_NAME_BYTES {
            return Err(bad(format!(
                "a tensor name has {} bytes; {MAX_NAME_BYTES} are allowed",
                name.len()
            )));
        }
        let (start, end) = info.data_offsets;
        let bytes = (end - start) as u64;
        let blocks = metadata
            .metadata()
            .as_ref()
            .and_then(|formats| formats.get(&name));
        let blocks = match blocks.filter(|_| is_pack) {
            None => None,
            Some(text) => Some(
                Blocks::parse(text)
                    .filter(|blocks| blocks.bytes().map(|bytes| bytes as u64) == Some(bytes))
                    .ok_or_else(|| WeightsError::Pack {
                        path: path.to_owned(),
                        reason: format!("tensor {name} is said to be {text:?}, which does not fit its {bytes} bytes"),
                    })?,
            ),
        };
        tensors.push(TensorInfo {
            group: Group::of(&name),
            name,
            shape: blocks.map_or_else(
                || info.shape.clone(),
                |blocks| vec![blocks.rows, blocks.cols],
            ),
            dtype: info.dtype,
            file,
            start: data_start + start as u64,
            bytes,
            blocks,
        });
    }
    Ok(tensors)
}

/// The library's message with what a person can do about it.
fn header_reason(error: &safetensors::SafeTensorError, size: u64) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::MetadataIncompleteBuffer => format!(
            "its header describes more or fewer bytes than the {size} that the file has: it is truncated or was changed"
        ),
        E::InvalidOffset(tensor) => {
            format!("tensor {tensor} overlaps another one or leaves a gap before it")
        }
        E::TensorInvalidInfo => {
            "a tensor's shape and type do not match its size in bytes".to_owned()
        }
        E::ValidationOverflow => "a tensor's shape is absurdly large".to_owned(),
        other => format!("not a safetensors file: {other}"),
    }
}
