//! What decoders are made of, whatever their family: attention over a cache of keys and values, the gated feed-forward network,
//! per-layer embeddings, the LM head.
//!
//! A part is built from the shape of its layer ([`LayerShape`]) and knows neither a family nor its configuration.

pub(crate) mod attention;
mod chunk;
mod compute;
pub(crate) mod feed_forward;
pub(crate) mod head;
mod interface;
pub mod kv_cache;
mod lane;
mod layout;
mod load;
mod norm;
pub(crate) mod per_layer_embedding;
pub(crate) mod rope;
mod shape;
mod slice;
mod stack;
mod sublayers;
mod text_decoder;
mod text_model;
mod tokens;
mod workspace;

pub(crate) use compute::Compute;
pub use head::Exact;
pub use interface::Decoder;
pub use lane::Lane;
pub(crate) use layout::{Dimensions, Layout};
pub(crate) use load::Loader;
pub(crate) use norm::RmsNorm;
pub use shape::{LayerShape, Rope, last_kv_producer};
pub use slice::{Slice, SliceError, Slices};
pub(crate) use stack::{Stack, Step};
pub(crate) use sublayers::Sublayers;
pub(in crate::model) use text_decoder::TextDecoder;
pub use text_model::TextModel;
pub use tokens::{Chunks, Probe, Shortcuts, TextError, Tokens, Watch, no_probe};
pub use workspace::Workspace;
