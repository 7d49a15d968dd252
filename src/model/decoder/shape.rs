//! The shape of a layer: made once from the configuration, and all that the layer's parts know of it.

/// How queries and keys are turned by their position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub base: f64,
    /// Divides the frequencies; 1 leaves them.
    pub factor: f64,
    /// Pairs of a head that turn, the first ones; those behind them stay as they are.
    pub rotated_pairs: usize,
}

/// One layer's attention and feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerShape {
    /// Query heads, a multiple of the key/value heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Keys that a query sees, its own included; `None` for every one so far.
    pub window: Option<usize>,
    /// How positions are told.
    pub rope: Rope,
    /// The earlier layer whose keys and values it reads; `None` for a layer that computes its own.
    pub kv_of: Option<usize>,
    /// Neurons of the feed-forward network.
    pub ffn_width: usize,
}

impl LayerShape {
    /// Width of the query projection.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Floats of a part of the attention of all heads of a token.
    pub(crate) fn part_len(&self) -> usize {
        kernels::attention::part_len(self.heads, self.head_dim)
    }

    /// Width of the key projection, and of the value projection.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The last layer that computes keys and values; the tokens of a prompt but the last need pass no other behind it.
pub fn last_kv_producer(layers: &[LayerShape]) -> usize {
    let own = |layer: &LayerShape| layer.kv_of.is_none();
    layers.iter().rposition(own).unwrap_or(0)
}
