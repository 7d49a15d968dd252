//! Which files hold the weights of a checkpoint in the published layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::files;
use super::WeightsError;
use super::error::io;

/// The index of the largest published checkpoint is 170 kB; read it takes ten times its bytes.
const MAX_INDEX_BYTES: u64 = 2 << 20;

/// The files that hold the weights.
pub(super) struct Source {
    /// Each once, in order.
    pub(super) files: Vec<PathBuf>,
    /// Tensors that the index promises, and the file of each.
    pub(super) promised: Vec<(String, String)>,
    /// The index, for errors.
    pub(super) index: PathBuf,
    /// What is odd about the files, in one line each.
    pub(super) warnings: Vec<String>,
}

impl Source {
    pub(super) fn of_files(files: Vec<PathBuf>) -> Source {
        Source {
            files,
            promised: Vec::new(),
            index: PathBuf::new(),
            warnings: Vec::new(),
        }
    }
}

/// `model.safetensors`, or the shards that the index names; `None` where `dir` has neither.
///
/// A whole file beside an index of other files was saved over an older, sharded model, or the other way round. The whole one counts,
/// as it does for the reference implementation.
pub(super) fn find(dir: &Path) -> Result<Option<Source>, WeightsError> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    if !single.exists() {
        return index.exists().then(|| read(dir, index)).transpose();
    }
    if !index.exists() {
        return Ok(Some(Source::of_files(vec![single])));
    }
    let mut source = match read(dir, index.clone()) {
        Ok(source) if source.files.contains(&single) => return Ok(Some(source)),
        _ => Source::of_files(vec![single.clone()]),
    };
    source.warnings.push(format!(
        "the weights are read from {}, and not from the files that {} names: remove the one that is old",
        single.display(),
        index.display()
    ));
    Ok(Some(source))
}

fn read(dir: &Path, path: PathBuf) -> Result<Source, WeightsError> {
    #[derive(serde::Deserialize)]
    struct IndexFile {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |reason: String| WeightsError::Index {
        path: path.clone(),
        reason,
    };
    let text = files::read(&path, MAX_INDEX_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => WeightsError::Instead {
            path: path.clone(),
            reason: error.to_string(),
        },
        _ => io("read", &path)(error),
    })?;
    let index: IndexFile =
        serde_json::from_slice(&text).map_err(|e| bad(format!("not an index of shards: {e}")))?;
    let mut names: Vec<&String> = index.weight_map.values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(bad("its weight_map is empty".to_owned()));
    }
    if let Some(name) = names.iter().find(|name| !is_plain_file_name(name)) {
        return Err(bad(format!("shard name {name:?} is not a plain file name")));
    }
    Ok(Source {
        files: names.into_iter().map(|name| dir.join(name)).collect(),
        promised: index.weight_map.into_iter().collect(),
        index: path,
        warnings: Vec::new(),
    })
}

/// A shard must lie in the checkpoint's own directory: an index cannot make us open other files.
pub(super) fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(_)), None)
    )
}
