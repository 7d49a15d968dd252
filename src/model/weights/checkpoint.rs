//! A checkpoint: what its headers say, one table of tensors, and the groups that are mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::super::files;
use super::error::io;
use super::foreign;
use super::header::{MAX_HEADER_BYTES, read_header};
use super::index::{self, Source};
use super::mapping::{self, Mapped};
use super::mobile;
use super::pack::{DRAFTER, HEAD_RESIDUAL, PackManifest};
use super::tensor_info::TensorInfo;
use super::{Group, WeightsError};

/// The headers of a checkpoint in the published layout, or of a pack; nothing is mapped yet.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<PathBuf>,
    /// The same files, kept open: a group that is loaded when the pack was replaced comes from the pack that was opened.
    handles: Vec<File>,
    tensors: BTreeMap<String, TensorInfo>,
    pack: Option<PackManifest>,
    is_mobile: bool,
    warnings: Vec<String>,
    /// The groups that somebody has mapped.
    mapped: [Mutex<Weak<Mapped>>; Group::ALL.len()],
}

impl Checkpoint {
    /// Reads and checks the headers of a pack's files, of `model.safetensors`, or of the shards that
    /// `model.safetensors.index.json` names. Where there are both, the whole file counts, as in the reference implementation.
    ///
    /// # Errors
    /// A file that is missing, truncated, overlapping, or whose header is malformed or too large; a tensor found twice, or named by
    /// the index and not found; tensors as other programs name or quantise them; weights that run from a pack only.
    pub fn open(dir: &Path) -> Result<Checkpoint, WeightsError> {
        let checkpoint = Checkpoint::open_source(dir)?;
        match checkpoint.is_mobile {
            true => Err(WeightsError::PackFirst {
                dir: dir.to_owned(),
            }),
            false => Ok(checkpoint),
        }
    }

    /// As [`Checkpoint::open`], for making a pack of it: the weights may be trained in few bits ([`Checkpoint::is_mobile`]).
    ///
    /// # Errors
    /// As there, but for that.
    pub fn open_source(dir: &Path) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint = Checkpoint::read(dir)?;
        checkpoint.canonicalise();
        if checkpoint.pack.is_none() {
            if !checkpoint.is_mobile {
                foreign::refuse(dir, &checkpoint.tensors)?;
            }
            checkpoint.warnings.extend(foreign::unmerged_adapter(dir));
        }
        Ok(checkpoint)
    }

    /// The weights of a drafter, for making a pack of them: its tensors get the names that they have beside a model's.
    ///
    /// # Errors
    /// A file is missing, truncated, overlapping, or has a header that is malformed or too large.
    pub fn open_drafter(dir: &Path) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint = Checkpoint::read(dir)?;
        checkpoint
            .rename(|name| format!("{DRAFTER}{}", name.strip_prefix("model.").unwrap_or(name)));
        Ok(checkpoint)
    }

    fn read(dir: &Path) -> Result<Checkpoint, WeightsError> {
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
        Ok(Checkpoint {
            dir: dir.to_owned(),
            files,
            handles,
            is_mobile: pack.is_none() && tensors.keys().any(|name: &String| mobile::marks(name)),
            tensors,
            pack,
            warnings,
            mapped: Default::default(),
        })
    }

    /// Gives the text tensors of a text-only checkpoint (`model.layers.…`) the names they have in a complete one, and the
    /// embeddings theirs where they were saved as what is tied to them.
    fn canonicalise(&mut self) {
        self.name_text();
        if self.is_mobile {
            return self.rename(mobile::canonical);
        }
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
        self.rename(
            |name| match (Group::of(name), name.strip_prefix("model.")) {
                (None, Some(rest)) => format!("model.language_model.{rest}"),
                _ => name.to_owned(),
            },
        );
    }

    fn rename(&mut self, canonical: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors
            .into_values()
            .map(|mut info| {
                info.name = canonical(&info.name);
                info.group = Group::of(&info.name);
                (info.name.clone(), info)
            })
            .collect();
    }

    /// What the pack says of itself; `None` for a checkpoint in the published layout.
    pub fn pack(&self) -> Option<&PackManifest> {
        self.pack.as_ref()
    }

    /// Whether its weights are quantised as they were trained ([`mobile`]): a pack takes them over as they are.
    pub fn is_mobile(&self) -> bool {
        self.is_mobile
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
        let (files, handles) = (&self.files, &self.handles);
        let mapped = Arc::new(mapping::map(&self.dir, group, &tensors, files, handles)?);
        *last = Arc::downgrade(&mapped);
        Ok(mapped)
    }
}
