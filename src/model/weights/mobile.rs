//! Matrices whose bits were trained with them, as Google's "mobile" checkpoints of Gemma 4 store them.
//!
//! `X.weight` holds integers of 8 bits, or of 2 or 4 packed into bytes, `X.weight_scale` a factor for each row (in the table of
//! per-layer embeddings for each row and layer). `X.input_activation_scale` and `X.output_activation_scale` are the steps to which what
//! goes into the layer and what comes out of it is rounded; they are part of the model. Tables are called `X.embedding_quantized` and
//! `X.embedding_scale` in the files, and the head, whose integers are the token embeddings', has a name of its own.
//!
//! Source: `src/model/gemma4/mobile.md` section 1.2 and 1.3.

use safetensors::Dtype;

/// The head, where it is stored apart from the token embeddings, and what the names of its roundings begin with.
pub const HEAD: &str = "model.language_model.lm_head";
/// How the name of the number goes on behind a layer's that its inputs are rounded to, and that of its outputs.
pub const ACTIVATION_SCALES: [&str; 2] = [".input_activation_scale", ".output_activation_scale"];

/// What a table's integers and scales are called in the files, and how every other matrix calls them.
const TABLE_ENDS: [(&str, &str); 2] = [
    (".embedding_quantized", ".weight"),
    (".embedding_scale", ".weight_scale"),
];

/// Whether a checkpoint that has a tensor of this name is a mobile one: nobody else calls a table so.
pub(super) fn marks(name: &str) -> bool {
    name.ends_with(TABLE_ENDS[0].0)
}

/// The canonical name of a tensor that is called `name` in a mobile checkpoint.
pub(super) fn canonical(name: &str) -> String {
    let table =
        |(end, canonical): &(&str, &str)| Some(format!("{}{canonical}", name.strip_suffix(end)?));
    match (
        name.strip_prefix("lm_head."),
        TABLE_ENDS.iter().find_map(table),
    ) {
        (Some(leaf), _) => format!("{HEAD}.{leaf}"),
        (None, Some(table)) => table,
        (None, None) => name.to_owned(),
    }
}

/// The name of a matrix's scales.
pub fn scale_of(weight: &str) -> String {
    format!("{weight}_scale")
}

/// The layer that a matrix is of.
pub fn layer_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// Bits of a matrix whose rows of `cols` integers take `row_bytes` bytes each; `None` where that is no row of any width.
pub fn bits(dtype: Dtype, row_bytes: usize, cols: usize) -> Option<usize> {
    let takes = |&bits: &usize| row_bytes == cols.div_ceil(8 / bits);
    match dtype {
        Dtype::I8 => [8].into_iter().find(takes),
        Dtype::U8 => [2, 4].into_iter().find(takes),
        _ => None,
    }
}
