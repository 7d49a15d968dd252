//! Facts about a model: all that the rest of the program needs to know of its family.

use std::ops::Range;

use super::decoder::LayerShape;
use super::special_ids::SpecialIds;

/// What a model's family, and its config.json, fix.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The family's name, for people.
    pub family: &'static str,
    /// Token ids with a meaning.
    pub ids: SpecialIds,
    /// The shape of each layer of the decoder.
    pub layers: Vec<LayerShape>,
    /// Width of the text model, and so of every soft token.
    pub hidden_size: usize,
    /// Rows of the token embeddings, media ids included.
    pub vocab_size: usize,
    /// Ids below this have a row in the LM head, and one of per-layer embeddings.
    pub text_vocab_size: usize,
    /// Ids whose embeddings are given with them, for they stand in the places of pictures and sound.
    pub row_ids: Vec<Range<u32>>,
    /// Width of a layer's row of per-layer embeddings.
    pub per_layer_input_size: usize,
    /// Keys that a layer with a window sees, the query's own included.
    pub sliding_window: usize,
    /// Longest context, tokens.
    pub max_context: usize,
    /// How sound is heard; `None` in a text-only checkpoint.
    pub audio: Option<AudioSpec>,
    /// How pictures are seen; `None` in a text-only checkpoint.
    pub pictures: Option<PictureSpec>,
}

impl Spec {
    /// Whether the embedding of an id is given with it.
    pub fn takes_row(&self, id: u32) -> bool {
        self.row_ids.iter().any(|ids| ids.contains(&id))
    }

    /// Whether clips are filled up with soft tokens that nothing was heard for.
    pub fn pads_clips(&self) -> bool {
        let audio = self.audio.as_ref();
        audio.is_some_and(|audio| audio.padded_soft_tokens.is_some())
    }

    /// Layers that compute keys and values of their own.
    pub fn own_kv_layers(&self) -> usize {
        let own = self.layers.iter().filter(|layer| layer.kv_of.is_none());
        own.count()
    }
}

/// How sound is heard.
#[derive(Clone, Debug)]
pub struct AudioSpec {
    /// Soft tokens that the reference fills each clip up to; `None` where a clip has those that were heard, and no more.
    pub padded_soft_tokens: Option<usize>,
    /// How the processor's config must prepare sound, for that is how it is done here.
    pub processor: serde_json::Value,
}

/// How pictures are seen.
#[derive(Clone, Debug)]
pub struct PictureSpec {
    /// As [`Spec::family`].
    pub family: &'static str,
    /// What [`PictureOptions::soft_tokens`](super::encoder::PictureOptions) may be; none where pictures have a resolution instead.
    pub soft_tokens: &'static [usize],
    /// How the processor's config must prepare pictures, for that is how it is done here.
    pub processor: serde_json::Value,
}
