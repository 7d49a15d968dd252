//! Keys and values of the tokens so far: whole for full-attention layers, a ring for sliding ones, none for layers that
//! share another layer's.
//!
//! Source: reference sections 2.5 (sharing, windows) and 2.8 (sizes).

use half::f16;
use kernels::attention::KvSegment;
use kernels::{Isa, Matrix};

use super::config::{LayerType, TextConfig};
use super::matformer::Slice;

/// Element type of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// 32 bits: the reference path that the goldens test.
    F32,
    /// 16 bits, half the memory. Keys and values are normed, so they fit the narrow range of IEEE half precision.
    F16,
}

impl KvType {
    /// Size of an element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

/// Values of either type; `[kv_head][slot][head_dim]`.
#[derive(Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Store {
    /// Zeroed: the kernel hands out the pages when they are first written, so a long context costs nothing until used.
    fn new(kind: KvType, len: usize) -> Store {
        match kind {
            KvType::F32 => Store::F32(vec![0.0; len]),
            KvType::F16 => Store::F16(vec![f16::ZERO; len]),
        }
    }

    fn write(&mut self, isa: Isa, offset: usize, row: &[f32]) {
        match self {
            Store::F32(data) => data[offset..offset + row.len()].copy_from_slice(row),
            Store::F16(data) => {
                kernels::widen::to_f16(isa, row, &mut data[offset..offset + row.len()])
            }
        }
    }

    fn copy_from(&mut self, offset: usize, from: &Store, from_offset: usize, len: usize) {
        let (to, from_range) = (offset..offset + len, from_offset..from_offset + len);
        match (self, from) {
            (Store::F32(data), Store::F32(from)) => data[to].copy_from_slice(&from[from_range]),
            (Store::F16(data), Store::F16(from)) => data[to].copy_from_slice(&from[from_range]),
            // A cache has one element type.
            _ => unreachable!("stores of one cache have one type"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Store::F32(data) => bytemuck::cast_slice(data),
            Store::F16(data) => bytemuck::cast_slice(data),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Store::F32(data) => bytemuck::cast_slice_mut(data),
            Store::F16(data) => bytemuck::cast_slice_mut(data),
        }
    }

    fn rows(&self, offset: usize, rows: usize, cols: usize) -> Matrix<'_> {
        let range = offset..offset + rows * cols;
        match self {
            Store::F32(data) => Matrix::f32(&data[range], rows, cols),
            Store::F16(data) => Matrix::f16(&data[range], rows, cols),
        }
    }
}

/// Keys and values of one layer, or of the tokens of the chunk in work.
#[derive(Debug)]
struct Block {
    k: Store,
    v: Store,
    slots: usize,
}

impl Block {
    fn new(kind: KvType, heads: usize, slots: usize, head_dim: usize) -> Block {
        let len = heads * slots * head_dim;
        Block {
            k: Store::new(kind, len),
            v: Store::new(kind, len),
            slots,
        }
    }

    /// Copies the first `used` slots of every head.
    fn copy_slots(&mut self, from: &Block, used: usize, heads: usize, head_dim: usize) {
        for head in 0..heads {
            let (to, start) = (head * self.slots * head_dim, head * from.slots * head_dim);
            self.k.copy_from(to, &from.k, start, used * head_dim);
            self.v.copy_from(to, &from.v, start, used * head_dim);
        }
    }

    fn segment(&self, head: usize, slot: usize, len: usize, head_dim: usize) -> KvSegment<'_> {
        let offset = (head * self.slots + slot) * head_dim;
        KvSegment::new(
            self.k.rows(offset, len, head_dim),
            self.v.rows(offset, len, head_dim),
        )
    }
}

/// The cache of one conversation.
///
/// | layer | slots |
/// |---|---|
/// | full attention, with K/V of its own | `context` |
/// | sliding attention, with K/V of its own | min(`sliding_window`, `context`), a ring |
/// | shared K/V | none |
#[derive(Debug)]
pub struct KvCache {
    /// By layer of the full model; `None` for layers that share.
    layers: Vec<Option<Block>>,
    /// K/V of the chunk in work: one block for the layer in work, one for the sliding layer that shared layers read.
    fresh: [Block; 2],
    kind: KvType,
    heads: usize,
    head_dim: usize,
    window: usize,
    context: usize,
    position: usize,
    /// The sliding layer whose K/V the shared layers read.
    shared_sliding: Option<usize>,
    layer_types: Vec<LayerType>,
    /// The slice that the tokens so far went through.
    pub(super) slice: Option<Slice>,
}

/// Keys and values of a conversation that may go on.
#[derive(Debug)]
pub struct KvSnapshot {
    layers: Vec<Option<Block>>,
    position: usize,
    slice: Option<Slice>,
    bytes: usize,
}

impl KvSnapshot {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tokens held.
    pub fn position(&self) -> usize {
        self.position
    }
}

fn shared_sliding_source(config: &TextConfig) -> Option<usize> {
    (config.first_kv_shared_layer()..config.num_hidden_layers)
        .find(|&layer| config.layer_types[layer] == LayerType::Sliding)
        .map(|layer| config.kv_source(layer))
}

fn slots(config: &TextConfig, layer: usize, context: usize) -> usize {
    match config.layer_types[layer] {
        LayerType::Full => context,
        LayerType::Sliding => config.sliding_window.min(context),
    }
}

impl KvCache {
    /// An empty cache for up to `context` tokens, filled by chunks of up to `chunk` tokens.
    pub fn new(config: &TextConfig, kind: KvType, context: usize, chunk: usize) -> KvCache {
        let (heads, head_dim) = (config.num_key_value_heads, config.head_dim);
        let block = |slots| Block::new(kind, heads, slots, head_dim);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                (config.kv_source(layer) == layer).then(|| block(slots(config, layer, context)))
            })
            .collect();
        KvCache {
            layers,
            fresh: [block(chunk), block(chunk)],
            kind,
            heads,
            head_dim,
            window: config.sliding_window,
            context,
            position: 0,
            shared_sliding: shared_sliding_source(config),
            layer_types: config.layer_types.clone(),
            slice: None,
        }
    }

    /// Size of the cache for a context: `2 · num_key_value_heads · head_dim` values per slot of every layer with K/V of
    /// its own.
    ///
    /// Source: reference section 2.8 (272 MiB at 32,768 tokens in 16 bit, for E2B and E4B alike).
    pub fn bytes_for(config: &TextConfig, kind: KvType, context: usize) -> u64 {
        (0..config.first_kv_shared_layer())
            .map(|layer| {
                (slots(config, layer, context) * 2 * config.kv_width() * kind.bytes()) as u64
            })
            .sum()
    }

    /// Bytes held for the layers' keys and values.
    pub fn bytes(&self) -> u64 {
        let slots: usize = self.layers.iter().flatten().map(|block| block.slots).sum();
        (slots * 2 * self.heads * self.head_dim * self.kind.bytes()) as u64
    }

    /// Tokens in the cache: the position of the next one.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that fit.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens that one chunk may have.
    pub fn chunk(&self) -> usize {
        self.fresh[0].slots
    }

    /// A copy of the keys and values so far, without the room for more.
    pub fn snapshot(&self) -> KvSnapshot {
        let (heads, head_dim) = (self.heads, self.head_dim);
        let copy = |block: &Block| {
            let used = self.position.min(block.slots);
            let mut copy = Block::new(self.kind, heads, used, head_dim);
            copy.copy_slots(block, used, heads, head_dim);
            copy
        };
        let layers: Vec<Option<Block>> = self
            .layers
            .iter()
            .map(|block| block.as_ref().map(copy))
            .collect();
        let slots: usize = layers.iter().flatten().map(|block| block.slots).sum();
        KvSnapshot {
            bytes: slots * 2 * heads * head_dim * self.kind.bytes(),
            layers,
            position: self.position,
            slice: self.slice.clone(),
        }
    }

    /// Takes up where a snapshot of a cache of the same model, type and context was taken; what was here is forgotten.
    ///
    /// # Panics
    /// If the snapshot is of another shape or type.
    pub fn restore(&mut self, snapshot: &KvSnapshot) {
        let (heads, head_dim) = (self.heads, self.head_dim);
        for (block, from) in self.layers.iter_mut().zip(&snapshot.layers) {
            if let (Some(block), Some(from)) = (block, from) {
                block.copy_slots(from, from.slots, heads, head_dim);
            }
        }
        self.position = snapshot.position;
        self.slice = snapshot.slice.clone();
    }

    /// The keys and values so far as bytes, little-endian: for each layer that has its own, K and V of every head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let head_bytes = self.head_dim * self.kind.bytes();
        let mut bytes = (self.position as u64).to_le_bytes().to_vec();
        for block in self.layers.iter().flatten() {
            let used = self.position.min(block.slots) * head_bytes;
            for store in [&block.k, &block.v] {
                for head in store.bytes().chunks_exact(block.slots * head_bytes) {
                    bytes.extend_from_slice(&head[..used]);
                }
            }
        }
        bytes
    }

    /// Takes up where [`KvCache::to_bytes`] of a cache of the same model, type and context was, whose tokens had gone through a
    /// slice that shares K and V with `slice`; false, and nothing is changed, where the bytes are not of such a cache.
    pub fn restore_bytes(&mut self, bytes: &[u8], slice: &Slice) -> bool {
        let Some((position, mut rest)) = bytes.split_first_chunk() else {
            return false;
        };
        let position = u64::from_le_bytes(*position) as usize;
        let used = |block: &Block| position.min(block.slots);
        let head_bytes = self.head_dim * self.kind.bytes();
        let needed: usize = self.layers.iter().flatten().map(used).sum();
        if position > self.context || rest.len() != needed * 2 * self.heads * head_bytes {
            return false;
        }
        for block in self.layers.iter_mut().flatten() {
            let (used, slots) = (position.min(block.slots), block.slots);
            for store in [&mut block.k, &mut block.v] {
                for head in 0..self.heads {
                    let from;
                    (from, rest) = rest.split_at(used * head_bytes);
                    let to = head * slots * head_bytes;
                    store.bytes_mut()[to..to + from.len()].copy_from_slice(from);
                }
            }
        }
        self.position = position;
        self.slice = Some(slice.clone());
        true
    }

    /// Forgets every token; the memory stays.
    pub fn clear(&mut self) {
        self.position = 0;
        self.slice = None;
    }

    fn fresh_index(&self, layer: usize) -> usize {
        usize::from(self.shared_sliding == Some(layer))
    }

    /// Stores the keys and values of the `t` tokens of the chunk in work, \[T, kv heads · head_dim\] each.
    pub(super) fn write(&mut self, isa: Isa, layer: usize, t: usize, k: &[f32], v: &[f32]) {
        let (head_dim, heads, position) = (self.head_dim, self.heads, self.position);
        let (block, first) = match self.layer_types[layer] {
            LayerType::Full => match &mut self.layers[layer] {
                Some(block) => (block, position),
                None => return,
            },
            LayerType::Sliding => {
                let index = self.fresh_index(layer);
                (&mut self.fresh[index], 0)
            }
        };
        for t in 0..t {
            for head in 0..heads {
                let row = (t * heads + head) * head_dim..(t * heads + head + 1) * head_dim;
                let offset = (head * block.slots + first + t) * head_dim;
                block.k.write(isa, offset, &k[row.clone()]);
                block.v.write(isa, offset, &v[row]);
            }
        }
    }

    /// What token `t` of the chunk in work sees of one K/V head of a layer: up to three runs of slots, oldest first
    /// (empty ones at the end).
    pub(super) fn visible(&self, layer: usize, head: usize, t: usize) -> [KvSegment<'_>; 3] {
        let position = self.position + t;
        let Some(block) = &self.layers[layer] else {
            unreachable!("attention asks for layers with K/V of their own");
        };
        let part = |slot: usize, len: usize| block.segment(head, slot, len, self.head_dim);
        if self.layer_types[layer] == LayerType::Full {
            return [part(0, position + 1), part(0, 0), part(0, 0)];
        }
        let oldest = (position + 1).saturating_sub(self.window);
        let fresh = &self.fresh[self.fresh_index(layer)];
        let first_fresh = oldest.saturating_sub(self.position);
        let fresh = fresh.segment(head, first_fresh, t + 1 - first_fresh, self.head_dim);
        if oldest >= self.position {
            return [part(0, 0), part(0, 0), fresh];
        }
        let (slot, len) = (oldest % block.slots, self.position - oldest);
        let until_wrap = len.min(block.slots - slot);
        [part(slot, until_wrap), part(0, len - until_wrap), fresh]
    }

    /// Called when a layer's attention is done: a sliding layer's fresh K/V go into its ring, except those that shared
    /// layers are still to read.
    pub(super) fn finish_layer(&mut self, layer: usize, t: usize) {
        if self.layer_types[layer] == LayerType::Sliding && self.shared_sliding != Some(layer) {
            self.commit(layer, t);
        }
    }

    /// Called when a chunk has passed its last layer.
    pub(super) fn finish_chunk(&mut self, t: usize) {
        if let Some(layer) = self.shared_sliding {
            self.commit(layer, t);
        }
        self.position += t;
    }

    fn commit(&mut self, layer: usize, t: usize) {
        let fresh = &self.fresh[usize::from(self.shared_sliding == Some(layer))];
        let Some(block) = &mut self.layers[layer] else {
            return;
        };
        for t in t.saturating_sub(block.slots)..t {
            let slot = (self.position + t) % block.slots;
            for head in 0..self.heads {
                let to = (head * block.slots + slot) * self.head_dim;
                let from = (head * fresh.slots + t) * self.head_dim;
                block.k.copy_from(to, &fresh.k, from, self.head_dim);
                block.v.copy_from(to, &fresh.v, from, self.head_dim);
            }
        }
    }
}
