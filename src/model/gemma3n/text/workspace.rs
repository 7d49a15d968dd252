//! Every buffer that a chunk of tokens passes through, allocated once.

use kernels::Inputs;

use crate::model::config::TextConfig;
use crate::model::decoder::{attention, feed_forward, head};

/// Buffers for chunks of up to `chunk` tokens; D, A, P, L, R as in `config.json`.
#[derive(Debug)]
pub struct Workspace {
    pub(super) chunk: usize,
    /// Rows of the PLE table, then the per-layer inputs, \[T, L·P\].
    pub(super) per_layer_inputs: Vec<f32>,
    /// Residual streams, \[T, A, D\]: before a layer, predicted, corrected.
    pub(super) h: Vec<f32>,
    /// Normed input of the module in work, \[T, D\].
    pub(super) x: Inputs,
    /// Merged embeddings, then the output of the module in work, \[T, D\].
    pub(super) out: Vec<f32>,
    /// LAuReL's output, then the feed-forward's; before and behind, room for one of the streams, \[T, D\].
    pub(super) laurel: Vec<f32>,
    /// \[T, R\].
    pub(super) low_rank: Vec<f32>,
    /// \[T, P\].
    pub(super) gated: Vec<f32>,
    /// What only one module needs, several values for each token: the context projection, then for each layer its keys and values,
    /// its queries and what they attended to, and its gates.
    pub(super) wide: Vec<f32>,
    /// Partial results of one token's attention, \[kv heads, parts, `part_len`\].
    pub(super) attention_parts: Vec<f32>,
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
        let attention = 2 * config.query_width().max(config.kv_width());
        let rows = |n: usize| vec![0.0; chunk * n];
        Workspace {
            chunk,
            per_layer_inputs: rows(ple),
            h: rows(a * d),
            x: Inputs::new(chunk, d),
            out: rows(d),
            laurel: rows(d),
            low_rank: rows(r),
            gated: rows(p),
            wide: rows(width.max(ple).max(attention)),
            attention_parts: vec![0.0; attention::parts_len(config)],
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
            &self.per_layer_inputs,
            &self.h,
            &self.out,
            &self.laurel,
            &self.low_rank,
            &self.gated,
            &self.wide,
            &self.attention_parts,
            &self.hidden,
        ];
        let floats: usize = rows.iter().map(|row| row.len()).sum();
        4 * floats + self.x.bytes() + self.feed_forward.bytes() + self.head.bytes()
    }
}
