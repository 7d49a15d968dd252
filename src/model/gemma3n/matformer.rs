//! MatFormer slices: one checkpoint holds many models, nested in the FFN width and in the number of layers.
//!
//! A slice keeps some layers and, of each, the first so many FFN neurons. Source: MatFormer (arXiv 2310.07707) section 3;
//! the published slices are those of Google's MatFormer Lab (reference section 6).

use std::path::Path;

use crate::model::decoder::{LayerShape, Slice, SliceError, Slices, last_kv_producer};
use crate::model::files::{self, MAX_JSON_BYTES};
use crate::model::gemma3n::config::TextConfig;

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
const E4B_LAST_PRODUCER: usize = 19;
const E4B_WIDTH: usize = 16_384;

/// The whole model, the published slices where its shape is E4B's, and those of `slices.toml` in a checkpoint's directory.
///
/// # Errors
/// `slices.toml` exists and cannot be read, is malformed, or names a slice that does not fit the model.
pub fn slices(config: &TextConfig, dir: Option<&Path>) -> Result<Slices, SliceError> {
    let layers = config.layers();
    let mut slices = Slices::new(Slice::full(&layers), published(&layers)?);
    let Some(path) = dir.map(|dir| dir.join("slices.toml")) else {
        return Ok(slices);
    };
    let text = files::read(&path, MAX_JSON_BYTES).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into())
    });
    match text {
        Ok(text) => {
            for slice in read_file(&text, &path, &layers)? {
                if slices.iter().any(|other| other.name == slice.name) {
                    return Err(SliceError::File {
                        path,
                        reason: format!("[{}]: a slice of that name is built in", slice.name),
                    });
                }
                slices.push(slice);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(SliceError::Io { path, source }),
    }
    Ok(slices)
}

fn published(layers: &[LayerShape]) -> Result<Vec<Slice>, SliceError> {
    let e4b = layers.len() == E4B_LAYERS
        && last_kv_producer(layers) == E4B_LAST_PRODUCER
        && layers.iter().all(|layer| layer.ffn_width == E4B_WIDTH);
    if !e4b {
        return Ok(Vec::new());
    }
    PUBLISHED
        .iter()
        .map(|(name, runs)| {
            let widths = runs
                .iter()
                .flat_map(|&(units, n)| std::iter::repeat_n(units * PUBLISHED_UNIT, n));
            Slice::new(name, widths.collect(), layers)
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

fn read_file(text: &str, path: &Path, layers: &[LayerShape]) -> Result<Vec<Slice>, SliceError> {
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
                Widths::Same(width) => vec![width; layers.len()],
                Widths::Each(widths) => widths,
            };
            for layer in table.skip_layers {
                *widths.get_mut(layer).ok_or_else(|| {
                    bad(format!(
                        "[{name}] skip_layers: the model has no layer {layer}"
                    ))
                })? = 0;
            }
            Slice::new(&name, widths, layers)
        })
        .collect()
}
