//! Which layers of a decoder run, and how wide the feed-forward network of each is.

use std::path::PathBuf;

use super::{LayerShape, last_kv_producer};

/// A sub-model: some layers and, of each, the first so many FFN neurons. Where a family has none but the whole model, it is that.
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
    /// The model has no slices.
    #[error(
        "no MatFormer slice is called {name:?}: this model has none but the whole of it, {whole:?}; what makes it lighter is a pack of recipe small, or a smaller model (gemmad plan lists them)"
    )]
    None {
        /// The name asked for.
        name: String,
        /// The name of the whole model.
        whole: String,
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
    pub fn full(layers: &[LayerShape]) -> Slice {
        Slice {
            name: "full".to_owned(),
            widths: layers.iter().map(|layer| layer.ffn_width).collect(),
        }
    }

    /// A slice from the width of each layer of the full model (0 drops the layer).
    ///
    /// # Errors
    /// A width is larger than the layer's, the number of layers differs, or a layer is dropped whose K and V other
    /// layers read.
    pub fn new(name: &str, widths: Vec<usize>, layers: &[LayerShape]) -> Result<Slice, SliceError> {
        let misfit = |reason: String| SliceError::Misfit {
            name: name.to_owned(),
            reason,
        };
        if widths.len() != layers.len() {
            return Err(misfit(format!(
                "it lists {} layers, the model has {}",
                widths.len(),
                layers.len()
            )));
        }
        let last_producer = last_kv_producer(layers);
        for (layer, (&width, shape)) in widths.iter().zip(layers).enumerate() {
            if width > shape.ffn_width {
                return Err(misfit(format!(
                    "layer {layer} is {width} wide, the model's only {}",
                    shape.ffn_width
                )));
            }
            let mut readers = widths.iter().zip(layers);
            let needed = readers.any(|(&width, other)| width > 0 && other.kv_of == Some(layer));
            if width == 0 && (needed || layer == last_producer) {
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
    pub fn shares_kv_with(&self, other: &Slice, layers: &[LayerShape]) -> bool {
        let last_producer = last_kv_producer(layers);
        self.widths[..last_producer] == other.widths[..last_producer]
    }
}

/// The slices that a model offers, the whole model first.
#[derive(Clone, Debug)]
pub struct Slices {
    full: Slice,
    others: Vec<Slice>,
}

impl Slices {
    /// The whole model, and others.
    pub(in crate::model) fn new(full: Slice, others: Vec<Slice>) -> Slices {
        Slices { full, others }
    }

    /// One more.
    pub(in crate::model) fn push(&mut self, slice: Slice) {
        self.others.push(slice);
    }

    /// All slices; the first is the whole model.
    pub fn iter(&self) -> impl Iterator<Item = &Slice> {
        std::iter::once(&self.full).chain(&self.others)
    }

    /// The whole model.
    pub fn full(&self) -> &Slice {
        &self.full
    }

    /// The slice of a name, upper or lower case.
    ///
    /// # Errors
    /// No such slice; the message lists the names.
    pub fn get(&self, name: &str) -> Result<&Slice, SliceError> {
        self.iter()
            .find(|slice| slice.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> SliceError {
        let name = name.to_owned();
        if self.others.is_empty() {
            let whole = self.full.name.clone();
            return SliceError::None { name, whole };
        }
        let offered: Vec<&str> = self.iter().map(|slice| slice.name.as_str()).collect();
        SliceError::Unknown {
            name,
            offered: offered.join(", "),
        }
    }
}
