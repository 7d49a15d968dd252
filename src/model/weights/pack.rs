//! What a pack says of itself: `pack.json`, and the block formats in the headers of its files.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::quant::Format;

use super::super::files::{self, MAX_JSON_BYTES};
use super::WeightsError;

/// The file that makes a directory a pack.
pub const PACK_JSON: &str = "pack.json";
/// `format` of every pack.
pub const PACK_FORMAT: &str = "gemmad-pack";
/// The `version` that this program reads and writes. Since 3 the scales of a tile stand before each pair of groups; in older packs
/// they are behind all of them.
pub const PACK_VERSION: u32 = 3;

/// The second plane of the token embeddings and LM head, where a pack has one: 4 bit, row by row, to be added to the first.
pub const HEAD_RESIDUAL: &str = "model.language_model.embed_tokens.residual";
/// For each row of [`HEAD_RESIDUAL`] the largest root mean square of a group of its weights, BF16, rounded up.
pub const HEAD_RESIDUAL_PEAKS: &str = "model.language_model.embed_tokens.residual_peaks";

/// What the names of a drafter's tensors begin with.
pub const DRAFTER: &str = "model.drafter.";
/// The output matrix of a drafter, row by row as [`DRAFTER_ORDERING`] says, of which a guess reads the rows of a few clusters.
pub const DRAFTER_HEAD: &str = "model.drafter.embed_tokens.weight";
/// The ids of a drafter, cluster by cluster, as integers of 32 bits.
pub const DRAFTER_ORDERING: &str = "model.drafter.masked_embedding.token_ordering";
/// The `config.json` of a drafter, as a file of a pack.
pub const DRAFTER_CONFIG: &str = "drafter_config.json";

/// `pack.json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PackManifest {
    /// [`PACK_FORMAT`].
    pub format: String,
    /// [`PACK_VERSION`] of the program that wrote it.
    pub version: u32,
    /// Recipe of the quantisation.
    pub recipe: String,
    /// The program and version that wrote it.
    pub created_by: String,
    /// Name of the directory or file that it was made from.
    pub source: String,
    /// Every other file of the pack.
    pub files: BTreeMap<String, PackedFile>,
}

/// A file of a pack.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PackedFile {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl PackManifest {
    /// Reads `pack.json` of `dir`; `None` where `dir` is no pack.
    ///
    /// # Errors
    /// The file is malformed, or written by an older or a newer version of this program.
    pub fn read(dir: &Path) -> Result<Option<PackManifest>, WeightsError> {
        let path = dir.join(PACK_JSON);
        let text = match files::read(&path, MAX_JSON_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(match files::instead_of_checkpoint(dir) {
                    Some(reason) if dir.is_file() => WeightsError::NotACheckpoint {
                        path: dir.to_owned(),
                        reason,
                    },
                    _ => WeightsError::Io {
                        action: "read",
                        path,
                        source,
                    },
                });
            }
        };
        let bad = |reason: String| WeightsError::Pack {
            path: path.clone(),
            reason,
        };
        // The version first: a newer file may have other keys.
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| bad(format!("not JSON: {error}")))?;
        if value["format"] != PACK_FORMAT {
            return Err(bad(format!(
                "format is {}, expected {PACK_FORMAT:?}",
                value["format"]
            )));
        }
        match value["version"].as_u64() {
            Some(version) => match version.cmp(&u64::from(PACK_VERSION)) {
                Ordering::Less => return Err(WeightsError::OlderPack { path, version }),
                Ordering::Equal => {}
                Ordering::Greater => return Err(WeightsError::NewerPack { path, version }),
            },
            None => return Err(bad("version is missing or no number".to_owned())),
        }
        let manifest =
            PackManifest::deserialize_from(value).map_err(|error| bad(error.to_string()))?;
        Ok(Some(manifest))
    }

    fn deserialize_from(value: serde_json::Value) -> Result<PackManifest, serde_json::Error> {
        serde_json::from_value(value)
    }

    /// The pack's safetensors files, each of the size that `pack.json` gives.
    ///
    /// # Errors
    /// A file is missing or has another size, or a name is no plain file name.
    pub(super) fn weight_files(&self, dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        let mut files = Vec::new();
        for (name, expected) in &self.files {
            let path = dir.join(name);
            let bad = |reason: String| WeightsError::Pack {
                path: dir.join(PACK_JSON),
                reason,
            };
            if !super::index::is_plain_file_name(name) {
                return Err(bad(format!("file name {name:?} is not a plain file name")));
            }
            let bytes = std::fs::metadata(&path)
                .map_err(|source| WeightsError::Io {
                    action: "read",
                    path: path.clone(),
                    source,
                })?
                .len();
            if bytes != expected.bytes {
                return Err(bad(format!(
                    "{name} has {bytes} bytes instead of {}",
                    expected.bytes
                )));
            }
            if name.ends_with(".safetensors") {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// How a quantised tensor is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The block format of what is stored.
    pub format: Format,
    /// Whether the stored rows are the columns of the matrix.
    pub columns: bool,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
}

impl Blocks {
    /// Reads `"FORMAT ROWS COLS"` as it stands in a header's metadata; `None` where it is anything else.
    pub(super) fn parse(text: &str) -> Option<Blocks> {
        let mut words = text.split(' ');
        let (format, columns) = match words.next()? {
            "q4_tiled" => (Format::Q4Tiled, false),
            "q8_tiled" => (Format::Q8Tiled, false),
            "q4_rows" => (Format::Q4Rows, false),
            "q8_rows" => (Format::Q8Rows, false),
            "q4_columns" => (Format::Q4Rows, true),
            "q8_columns" => (Format::Q8Rows, true),
            "q2_row_scaled" => (Format::Q2RowScaled, false),
            "q4_row_scaled" => (Format::Q4RowScaled, false),
            "q8_row_scaled" => (Format::Q8RowScaled, false),
            word => match word.split_once("_layer_scaled/")? {
                ("q2", width) => (
                    Format::Q2LayerScaled {
                        width: width.parse().ok()?,
                    },
                    false,
                ),
                ("q4", width) => (
                    Format::Q4LayerScaled {
                        width: width.parse().ok()?,
                    },
                    false,
                ),
                _ => return None,
            },
        };
        let blocks = Blocks {
            format,
            columns,
            rows: words.next()?.parse().ok()?,
            cols: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(blocks)
    }

    /// The words that [`Blocks::parse`] reads.
    pub fn describe(&self) -> String {
        let layer_scaled;
        let format = match (self.format, self.columns) {
            (Format::Q4Tiled, _) => "q4_tiled",
            (Format::Q8Tiled, _) => "q8_tiled",
            (Format::Q4Rows, false) => "q4_rows",
            (Format::Q8Rows, false) => "q8_rows",
            (Format::Q4Rows, true) => "q4_columns",
            (Format::Q8Rows, true) => "q8_columns",
            (Format::Q2RowScaled, _) => "q2_row_scaled",
            (Format::Q4RowScaled, _) => "q4_row_scaled",
            (Format::Q8RowScaled, _) => "q8_row_scaled",
            (Format::Q2LayerScaled { width } | Format::Q4LayerScaled { width }, _) => {
                layer_scaled = format!("q{}_layer_scaled/{width}", self.format.bits());
                &layer_scaled
            }
        };
        format!("{format} {} {}", self.rows, self.cols)
    }

    /// Rows and columns as stored.
    pub fn stored(&self) -> (usize, usize) {
        if self.columns {
            (self.cols, self.rows)
        } else {
            (self.rows, self.cols)
        }
    }

    /// Bytes of the tensor; `None` where that does not fit a `usize`.
    pub fn bytes(&self) -> Option<usize> {
        let (rows, cols) = self.stored();
        self.format.matrix_bytes(rows, cols)
    }
}
