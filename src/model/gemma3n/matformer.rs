//! MatFormer slices: one checkpoint holds many models, nested in the FFN width and in the number of layers.
//!
//! A slice keeps some layers and, of each, the first so many FFN neurons. Source: MatFormer (arXiv 2310.07707) section 3;
//! the published slices are those of Google's MatFormer Lab (reference section 6).

use std::path::{Path, PathBuf};

use crate::model::config::TextConfig;
use crate::model::files::{self, MAX_JSON_BYTES};

/// A sub-model: which layers run, and how wide each FFN is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The name by which a request asks for it.
    pub name: String,
    /// FFN width of each layer of the full model; 0 where the layer is dropped.
    widths: Vec<usize>,
}

/// A slice cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// No slice of that name.
    #[error("no MatFormer slice is called {name:?}; this model offers {offered}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names on offer.
        offered: String,
    },
    /// `slices.toml` cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// `slices.toml` is malformed.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The slice does not fit the model.
    #[error("MatFormer slice {name:?}: {reason}")]
    Misfit {
        /// The slice.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Slice {
    /// The whole model.
    pub fn full(config: &TextConfig) -> Slice {
        Slice {
            name: "full".to_owned(),
            widths: config.intermediate_size.clone(),
        }
    }

    /// A slice from the width of each layer of the full model (0 drops the layer).
    ///
    /// # Errors
    /// A width is larger than the layer's, the number of layers differs, or a layer is dropped whose K and V other
    /// layers read.
    pub fn new(name: &str, widths: Vec<usize>, config: &TextConfig) -> Result<Slice, SliceError> {
        let misfit = |reason: String| SliceError::Misfit {
            name: name.to_owned(),
            reason,
        };
        if widths.len() != config.num_hidden_layers {
            return Err(misfit(format!(
                "it lists {} layers, the model has {}",
                widths.len(),
                config.num_hidden_layers
            )));
        }
        for (layer, (&width, &full)) in widths.iter().zip(&config.intermediate_size).enumerate() {
            if width > full {
                return Err(misfit(format!(
                    "layer {layer} is {width} wide, the model's only {full}"
                )));
            }
            let needed = (config.first_kv_shared_layer()..config.num_hidden_layers)
                .any(|shared| widths[shared] > 0 && config.kv_source(shared) == layer);
            let last_producer = layer + 1 == config.first_kv_shared_layer();
            if width == 0 && (needed || last_producer) {
                return Err(misfit(format!(
                    "layer {layer} cannot be dropped: other layers read its K and V"
                )));
            }
        }
        Ok(Slice {
            name: name.to_owned(),
            widths,
        })
    }

    /// FFN width of a layer of the full model, or `None` where the slice drops it.
    pub fn width(&self, layer: usize) -> Option<usize> {
        Some(self.widths[layer]).filter(|&width| width > 0)
    }

    /// The layers that run, by their index in the full model.
    pub fn layers(&self) -> impl Iterator<Item = usize> {
        self.widths
            .iter()
            .enumerate()
            .filter(|&(_, &width)| width > 0)
            .map(|(layer, _)| layer)
    }

    /// Number of layers that run.
    pub fn num_layers(&self) -> usize {
        self.layers().count()
    }

    /// Whether K and V computed by one slice serve the other: they depend on nothing but the widths of the layers
    /// before the last K/V producer, and on which producers run.
    pub fn shares_kv_with(&self, other: &Slice, config: &TextConfig) -> bool {
        let last_producer = config.first_kv_shared_layer() - 1;
        self.widths[..last_producer] == other.widths[..last_producer]
    }
}

/// FFN widths in units of 2048 as (width, repetitions), for E4B's 35 layers; 0 drops the layer.
type Published = (&'static str, &'static [(usize, usize)]);

/// The slices that Google published for E4B, named by effective parameters in billions; the first is the official E2B.
///
/// Source: data set google/gemma3n-slicing-configs, as tabled in reference section 6.
const PUBLISHED: [Published; 16] = [
    ("e2b", &[(4, 20), (0, 5), (4, 10)]),
    ("1.96b", &[(4, 4), (8, 1), (4, 15), (0, 5), (4, 10)]),
    ("2.49b", &[(4, 20), (8, 5), (4, 10)]),
    ("2.54b", &[(4, 4), (8, 1), (4, 15), (8, 5), (4, 10)]),
    (
        "2.69b",
        &[
            (4, 4),
            (8, 1),
            (4, 4),
            (8, 1),
            (4, 4),
            (8, 1),
            (4, 4),
            (8, 6),
            (4, 10),
        ],
    ),
    ("2.73b", &[(4, 15), (8, 10), (4, 10)]),
    ("2.98b-layer", &[(4, 15), (8, 10), (4, 5), (8, 5)]),
    ("2.98b-block", &[(4, 10), (8, 15), (4, 10)]),
    (
        "3.18b",
        &[
            (4, 4),
            (8, 1),
            (4, 4),
            (8, 16),
            (4, 4),
            (8, 1),
            (4, 4),
            (8, 1),
        ],
    ),
    ("3.24b", &[(4, 10), (8, 20), (4, 5)]),
    ("3.39b", &[(4, 4), (8, 1), (4, 4), (8, 21), (4, 4), (8, 1)]),
    ("3.49b", &[(4, 5), (8, 25), (4, 5)]),
    ("3.59b", &[(4, 4), (8, 26), (4, 4), (8, 1)]),
    ("3.74b", &[(4, 5), (8, 30)]),
    ("3.79b", &[(4, 4), (8, 31)]),
    ("e4b", &[(8, 35)]),
];
const PUBLISHED_UNIT: usize = 2048;
const E4B_LAYERS: usize = 35;
const E4B_WIDTH: usize = 16_384;

/// The slices that a model offers: the whole model, the published ones where its shape is E4B's, and those of
/// `slices.toml` beside the checkpoint.
#[derive(Clone, Debug)]
pub struct Slices {
    offered: Vec<Slice>,
}

impl Slices {
    /// The whole model, and the published slices where the model has E4B's shape.
    ///
    /// # Errors
    /// None for a configuration that was read from a file.
    pub fn built_in(config: &TextConfig) -> Result<Slices, SliceError> {
        let mut offered = vec![Slice::full(config)];
        offered.extend(published(config)?);
        Ok(Slices { offered })
    }

    /// Collects the slices on offer for the checkpoint in `dir`.
    ///
    /// # Errors
    /// `slices.toml` exists and cannot be read, is malformed, or names a slice that does not fit the model.
    pub fn load(dir: &Path, config: &TextConfig) -> Result<Slices, SliceError> {
        let Slices { mut offered } = Slices::built_in(config)?;
        let path = dir.join("slices.toml");
        let text = files::read(&path, MAX_JSON_BYTES).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into())
        });
        match text {
            Ok(text) => {
                for slice in read_file(&text, &path, config)? {
                    if offered.iter().any(|other| other.name == slice.name) {
                        return Err(SliceError::File {
                            path,
                            reason: format!("[{}]: a slice of that name is built in", slice.name),
                        });
                    }
                    offered.push(slice);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(SliceError::Io { path, source }),
        }
        Ok(Slices { offered })
    }

    /// All slices; the first is the whole model.
    pub fn iter(&self) -> impl Iterator<Item = &Slice> {
        self.offered.iter()
    }

    /// The whole model.
    pub fn full(&self) -> &Slice {
        &self.offered[0]
    }

    /// The slice of a name, upper or lower case.
    ///
    /// # Errors
    /// No such slice; the message lists the names.
    pub fn get(&self, name: &str) -> Result<&Slice, SliceError> {
        self.iter()
            .find(|slice| slice.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| SliceError::Unknown {
                name: name.to_owned(),
                offered: self
                    .iter()
                    .map(|slice| slice.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

fn published(config: &TextConfig) -> Result<Vec<Slice>, SliceError> {
    let e4b = config.num_hidden_layers == E4B_LAYERS
        && config.first_kv_shared_layer() == 20
        && config
            .intermediate_size
            .iter()
            .all(|&width| width == E4B_WIDTH);
    if !e4b {
        return Ok(Vec::new());
    }
    PUBLISHED
        .iter()
        .map(|(name, runs)| {
            let widths = runs
                .iter()
                .flat_map(|&(units, n)| std::iter::repeat_n(units * PUBLISHED_UNIT, n));
            Slice::new(name, widths.collect(), config)
        })
        .collect()
}

/// One table of `slices.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SliceTable {
    /// FFN width of every layer, or a list with one width per layer of the full model.
    intermediate_size: Widths,
    /// Layers that do not run.
    #[serde(default)]
    skip_layers: Vec<usize>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Widths {
    Same(usize),
    Each(Vec<usize>),
}

fn read_file(text: &str, path: &Path, config: &TextConfig) -> Result<Vec<Slice>, SliceError> {
    let bad = |reason: String| SliceError::File {
        path: path.to_owned(),
        reason,
    };
    let tables: std::collections::BTreeMap<String, SliceTable> =
        toml::from_str(text).map_err(|e| bad(e.to_string().trim_end().replace('\n', " ")))?;
    tables
        .into_iter()
        .map(|(name, table)| {
            let mut widths = match table.intermediate_size {
                Widths::Same(width) => vec![width; config.num_hidden_layers],
                Widths::Each(widths) => widths,
            };
            for layer in table.skip_layers {
                *widths.get_mut(layer).ok_or_else(|| {
                    bad(format!(
                        "[{name}] skip_layers: the model has no layer {layer}"
                    ))
                })? = 0;
            }
            Slice::new(&name, widths, config)
        })
        .collect()
}
