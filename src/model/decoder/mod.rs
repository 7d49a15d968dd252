//! What decoders are made of, whatever their family: attention over a cache of keys and values, the gated feed-forward network,
//! per-layer embeddings, the LM head.

pub(in crate::model) mod attention;
pub(in crate::model) mod feed_forward;
pub(in crate::model) mod head;
pub mod kv_cache;
pub(in crate::model) mod load;
pub(in crate::model) mod per_layer_embedding;
