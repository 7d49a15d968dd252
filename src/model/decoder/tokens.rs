//! Tokens on their way into a context: what is asked of a decoder, how far it got, and why it could not.

use std::ops::ControlFlow;

use super::Slice;
use crate::model::weights::WeightsError;

/// Tokens for a context, and how they are to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// A prompt, or one decoded token.
    pub ids: &'a [u32],
    /// The embeddings of the ids that take rows ([`Spec::takes_row`](crate::model::spec::Spec::takes_row)), \[number of such ids, D\], in
    /// the order in which they stand in `ids`.
    pub media_rows: &'a [f32],
    /// The layers that run, and how wide they are.
    pub slice: &'a Slice,
    /// What is skipped.
    pub shortcuts: Shortcuts,
    /// How many of the last are to have logits, at least; those of them that are in the last chunk do.
    pub logits: usize,
}

impl<'a> Tokens<'a> {
    /// Text, with every shortcut.
    pub fn new(ids: &'a [u32], slice: &'a Slice) -> Tokens<'a> {
        Tokens {
            ids,
            media_rows: &[],
            slice,
            shortcuts: Shortcuts::default(),
            logits: 1,
        }
    }
}

/// What need not be computed; the results are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcuts {
    /// Only the tokens that are to have logits, the last ones of a prompt, pass the layers behind the last K/V producer (reference 11.1).
    pub kv_cut: bool,
    /// Through a sparse FFN only the active rows are read (reference 11.2).
    pub sparse_ffn: bool,
}

impl Shortcuts {
    /// Every token passes every layer, and has logits.
    pub const ALL_LOGITS: Shortcuts = Shortcuts {
        kv_cut: false,
        sparse_ffn: true,
    };
}

impl Default for Shortcuts {
    fn default() -> Shortcuts {
        Shortcuts {
            kv_cut: true,
            sparse_ffn: true,
        }
    }
}

/// Tokens that are taken chunk by chunk, and how many of them have been.
pub struct Chunks<'a> {
    pub(crate) tokens: Tokens<'a>,
    /// Tokens whose rows of the per-layer embedding have been asked for, and tokens taken.
    pub(crate) requested: usize,
    pub(crate) done: usize,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(tokens: Tokens<'a>) -> Chunks<'a> {
        Chunks {
            tokens,
            requested: 0,
            done: 0,
        }
    }
}

/// Sees intermediate results by name and layer: (name, layer, values). Normal use passes a closure that does nothing.
pub type Probe<'a> = &'a mut dyn FnMut(&'static str, usize, &[f32]);

/// A probe that looks at nothing.
pub fn no_probe(_: &'static str, _: usize, _: &[f32]) {}

/// Called before each layer: tells a watchdog that work goes on, and may break it off.
pub type Watch<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// A prompt that cannot be taken into the context.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// More tokens than the context has room for.
    #[error(
        "the prompt needs {needed} tokens and {used} of the context's {context} are in use: shorten it or raise the context (at most {limit})"
    )]
    ContextFull {
        /// Tokens to add.
        needed: usize,
        /// Tokens in the cache.
        used: usize,
        /// Room in all.
        context: usize,
        /// What the model supports.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// Media tokens and the rows given for them differ in number.
    #[error("the prompt has {tokens} media tokens, but {rows} embeddings were given for them")]
    MediaRows {
        /// Ids that take rows.
        tokens: usize,
        /// Rows given.
        rows: usize,
    },
    /// The tokens so far went through a slice whose K and V do not serve this one.
    #[error(
        "the conversation so far went through MatFormer slice {before:?}, whose keys and values do not fit slice {now:?}: start a new conversation"
    )]
    OtherSlice {
        /// The slice of the tokens in the cache.
        before: String,
        /// The slice asked for.
        now: String,
    },
    /// Nothing to do.
    #[error("the prompt is empty")]
    Empty,
    /// Whoever watches broke it off between two layers; the cache is empty now, for a part of a chunk is of no use.
    #[error("broken off")]
    Interrupted,
    /// What is read by row (the per-layer-embedding table, a second plane of the LM head) cannot be read any more; the tokens before
    /// the chunk at hand were taken.
    #[error(transparent)]
    Rows(#[from] WeightsError),
}
