//! Which tensors a model has, of which shapes, and how each is read: what a pack is laid out by.

/// What a matrix is for: a recipe's unit of choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gate, up and down: most of a decoded token's bytes.
    FeedForward,
    /// Q, K, V and output projections.
    Attention,
    /// Token embeddings, also the LM head.
    Head,
    /// One row per token id and layer.
    PleTable,
    /// Small matrices that every layer's error passes, such as the projections of per-layer inputs.
    Side,
    /// Linear layers, pointwise and depthwise convolutions of what hears and sees.
    Encoder,
}

/// How a matrix is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every row, for every token.
    Whole,
    /// Rows are picked.
    Rows,
    /// Columns are picked.
    Columns,
    /// Columns from the first on, as many as the layer of a slice has neurons.
    LeadingColumns,
}

/// A tensor of the text model.
#[derive(Clone, Debug)]
pub struct TextTensor {
    /// Its canonical name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The layer that it is of.
    pub layer: Option<usize>,
    /// What it is for, and how it is read; `None` for what is read number by number, such as a norm.
    pub matrix: Option<(Role, Access)>,
    /// The share of it that one decoded token reads: less than 1 where most activations are zero.
    pub token_share: f64,
}

impl TextTensor {
    /// Whether it is the LM head.
    pub fn is_head(&self) -> bool {
        matches!(self.matrix, Some((Role::Head, _)))
    }

    /// Neurons that it has rows or columns for, if it is of a feed-forward network.
    pub fn neurons(&self) -> Option<usize> {
        match self.matrix? {
            (Role::FeedForward, Access::Whole | Access::Rows) => self.shape.first().copied(),
            (Role::FeedForward, Access::Columns | Access::LeadingColumns) => {
                self.shape.get(1).copied()
            }
            _ => None,
        }
    }
}

/// The canonical name of a tensor, and its dimensions, outermost first.
pub type NamedShape = (String, Vec<usize>);

/// How a tensor of an encoder is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderTensor {
    /// Number by number: norms, the first convolutions, embeddings.
    Numbers,
    /// Number by number, and of a large table a few rows only: the others are not read ahead.
    Rows,
    /// As a matrix that many frames or pixels are multiplied with.
    Matrix,
    /// As a depthwise convolution, `[channels, 1, taps]` or `[channels, 1, side, side]`, tap by tap.
    Depthwise,
}

/// A row in which `gemmad inspect` counts parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Category {
    /// The name under which it is printed.
    pub name: &'static str,
    /// Whether it counts to the "effective" parameters that a model's makers publish.
    pub is_effective: bool,
}

/// A category that counts to the effective parameters.
pub(super) const fn effective(name: &'static str) -> Category {
    Category {
        name,
        is_effective: true,
    }
}

/// One that does not.
pub(super) const fn other(name: &'static str) -> Category {
    Category {
        name,
        is_effective: false,
    }
}

/// The name of the category of a canonical tensor name. `own` are a family's own parts: how the name goes on behind
/// `model.language_model.`, or behind a layer's number there, up to the next dot, and the category.
pub(super) fn category(
    name: &str,
    first_kv_shared_layer: usize,
    own: &[(&str, &'static str)],
) -> Option<&'static str> {
    let rest = name.strip_prefix("model.")?;
    let Some(text) = rest.strip_prefix("language_model.") else {
        return match rest.split('.').next()? {
            "vision_tower" => Some("vision_tower"),
            "embed_vision" => Some("embed_vision"),
            "audio_tower" => Some("audio_tower"),
            "embed_audio" => Some("embed_audio"),
            _ => None,
        };
    };
    let of_family = |part: &str| own.iter().find(|(own, _)| *own == part).map(|own| own.1);
    let Some(layer) = text.strip_prefix("layers.") else {
        return match text.split('.').next()? {
            "embed_tokens" => Some("embed_tokens"),
            "embed_tokens_per_layer" => Some("ple_table"),
            "per_layer_model_projection" | "per_layer_projection_norm" => Some("text.ple_side"),
            "norm" => Some("text.norms"),
            part => of_family(part),
        };
    };
    let (index, leaf) = layer.split_once('.')?;
    let is_shared = index.parse::<usize>().ok()? >= first_kv_shared_layer;
    match leaf.split('.').next()? {
        "mlp" => Some("text.mlp"),
        "per_layer_input_gate" | "per_layer_projection" | "post_per_layer_input_norm" => {
            Some("text.ple_side")
        }
        "input_layernorm"
        | "post_attention_layernorm"
        | "pre_feedforward_layernorm"
        | "post_feedforward_layernorm" => Some("text.norms"),
        "self_attn" => {
            let is_kv = ["k_proj", "v_proj", "k_norm"]
                .iter()
                .any(|part| leaf.contains(part));
            Some(match is_shared && is_kv {
                true => "kv_shared_unused",
                false => "text.attn",
            })
        }
        part => of_family(part),
    }
}

/// What the names of text tensors begin with.
const TEXT: &str = "model.language_model.";

/// A list of text tensors in the making.
pub(super) struct TextTable {
    /// What their names begin with.
    prefix: &'static str,
    /// The layer that the tensors to come are of.
    pub(super) layer: Option<usize>,
    pub(super) tensors: Vec<TextTensor>,
}

impl Default for TextTable {
    fn default() -> TextTable {
        TextTable::of(TEXT)
    }
}

impl TextTable {
    pub(super) fn of(prefix: &'static str) -> TextTable {
        TextTable {
            prefix,
            layer: None,
            tensors: Vec::new(),
        }
    }

    pub(super) fn numbers(&mut self, leaf: &str, shape: &[usize]) {
        self.add(leaf, shape, None, 1.0);
    }

    pub(super) fn matrix(&mut self, leaf: &str, role: Role, rows: usize, cols: usize) {
        self.add(leaf, &[rows, cols], Some((role, Access::Whole)), 1.0);
    }

    pub(super) fn add(
        &mut self,
        leaf: &str,
        shape: &[usize],
        matrix: Option<(Role, Access)>,
        token_share: f64,
    ) {
        let name = match self.layer {
            Some(layer) => format!("{}layers.{layer}.{leaf}", self.prefix),
            None => format!("{}{leaf}", self.prefix),
        };
        self.tensors.push(TextTensor {
            name,
            shape: shape.to_vec(),
            layer: self.layer,
            matrix,
            token_share,
        });
    }
}
