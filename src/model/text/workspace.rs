//! Every buffer that a chunk of tokens passes through, allocated once.

use super::{attention, feed_forward, head};
use crate::model::config::TextConfig;

/// Buffers for chunks of up to `chunk` tokens; D, A, P, L, R as in `config.json`.
#[derive(Debug)]
pub struct Workspace {
    pub(super) chunk: usize,
    /// Merged embeddings, \[T, D\].
    pub(super) e: Vec<f32>,
    /// Rows of the PLE table, \[T, L·P\].
    pub(super) token_part: Vec<f32>,
    /// Per-layer inputs, \[T, layers·P\].
    pub(super) per_layer_inputs: Vec<f32>,
    /// Residual streams, \[T, A, D\], before and after a layer.
    pub(super) h: Vec<f32>,
    /// Predicted streams, \[T, A, D\].
    pub(super) q: Vec<f32>,
    /// Normed input of the module in work, \[T, D\].
    pub(super) x: Vec<f32>,
    /// Output of the module in work, \[T, D\].
    pub(super) out: Vec<f32>,
    /// LAuReL's output, then the feed-forward's, \[T, D\].
    pub(super) laurel: Vec<f32>,
    /// \[T, R\].
    pub(super) low_rank: Vec<f32>,
    /// \[T, P\].
    pub(super) gated: Vec<f32>,
    pub(super) attention: attention::Scratch,
    pub(super) feed_forward: feed_forward::Scratch,
    pub(super) rope_full: attention::RopeTable,
    pub(super) rope_sliding: attention::RopeTable,
    /// Final hidden states of the tokens that went through every layer, \[ready, D\].
    pub(super) hidden: Vec<f32>,
    pub(super) ready: usize,
    pub(super) head: head::Scratch,
    pub(super) laurel_rank: usize,
    pub(super) ple_width: usize,
}

impl Workspace {
    /// Allocates the buffers for chunks of up to `chunk` tokens.
    pub fn new(config: &TextConfig, chunk: usize) -> Workspace {
        let (d, a) = (config.hidden_size, config.altup_num_inputs);
        let (p, r) = (config.hidden_size_per_layer_input, config.laurel_rank);
        let ple = config.num_hidden_layers * p;
        let width = config.intermediate_size.iter().copied().max().unwrap_or(0);
        let rows = |n: usize| vec![0.0; chunk * n];
        Workspace {
            chunk,
            e: rows(d),
            token_part: rows(ple),
            per_layer_inputs: rows(ple),
            h: rows(a * d),
            q: rows(a * d),
            x: rows(d),
            out: rows(d),
            laurel: rows(d),
            low_rank: rows(r),
            gated: rows(p),
            attention: attention::Scratch::new(chunk, config),
            feed_forward: feed_forward::Scratch::new(chunk, width, d),
            rope_full: attention::RopeTable::new(config.rope_theta, config.head_dim, chunk),
            rope_sliding: attention::RopeTable::new(
                config.rope_local_base_freq,
                config.head_dim,
                chunk,
            ),
            hidden: rows(d),
            ready: 0,
            head: head::Scratch::default(),
            laurel_rank: r,
            ple_width: p,
        }
    }

    /// Tokens of the last chunk that went through every layer: all of them, or only the last with the K/V cut.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Rows that logits have taken of the second plane of the LM head so far, where it has one.
    pub fn second_plane_rows(&self) -> u64 {
        self.head.rows_read()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let rows = [
            &self.e,
            &self.token_part,
            &self.per_layer_inputs,
            &self.h,
            &self.q,
            &self.x,
            &self.out,
            &self.laurel,
            &self.low_rank,
            &self.gated,
            &self.hidden,
        ];
        let floats: usize = rows.iter().map(|row| row.len()).sum();
        4 * floats + self.attention.bytes() + self.feed_forward.bytes() + self.head.bytes()
    }
}
