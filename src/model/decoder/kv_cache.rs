//! Keys and values of the tokens so far: whole for full-attention layers, a ring for sliding ones, none for layers that
//! share another layer's.
//!
//! Source: reference sections 2.5 (sharing, windows) and 2.8 (sizes).

use half::f16;
use kernels::attention::{KvSegment, int8};
use kernels::{Isa, Matrix};

use crate::model::config::{LayerType, TextConfig};
use crate::model::gemma3n::matformer::Slice;

/// Element type of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// 32 bits: the reference path that the goldens test.
    F32,
    /// 16 bits, half the memory. Keys and values are normed, so they fit the narrow range of IEEE half precision.
    F16,
    /// 8 bits and a scale for each head's row: half of the memory again, and of what attention reads in a long context.
    Int8,
}

impl KvType {
    /// Size of one head's key, or value, of one token.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => 4 * head_dim,
            KvType::F16 => 2 * head_dim,
            KvType::Int8 => int8::row_len(head_dim),
        }
    }
}

/// Rows of any type, `[kv_head][slot]`, each of `head_dim` elements.
#[derive(Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Int8(Vec<i8>),
}

impl Store {
    /// Zeroed: the kernel hands out the pages when they are first written, so a long context costs nothing until used.
    fn new(kind: KvType, rows: usize, head_dim: usize) -> Store {
        match kind {
            KvType::F32 => Store::F32(vec![0.0; rows * head_dim]),
            // `vec!` would write each of these, because it does not know that they are zeros.
            KvType::F16 => Store::F16(bytemuck::zeroed_vec(rows * head_dim)),
            KvType::Int8 => Store::Int8(vec![0; rows * int8::row_len(head_dim)]),
        }
    }

    fn write(&mut self, isa: Isa, row: usize, from: &[f32]) {
        let head_dim = from.len();
        match self {
            Store::F32(data) => data[row * head_dim..][..head_dim].copy_from_slice(from),
            Store::F16(data) => {
                kernels::widen::to_f16(isa, from, &mut data[row * head_dim..][..head_dim])
            }
            Store::Int8(data) => {
                let len = int8::row_len(head_dim);
                int8::quantize(from, &mut data[row * len..][..len]);
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Store::F32(data) => bytemuck::cast_slice(data),
            Store::F16(data) => bytemuck::cast_slice(data),
            Store::Int8(data) => bytemuck::cast_slice(data),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Store::F32(data) => bytemuck::cast_slice_mut(data),
            Store::F16(data) => bytemuck::cast_slice_mut(data),
            Store::Int8(data) => bytemuck::cast_slice_mut(data),
        }
    }
}

/// Keys and values of one layer, or of the tokens of the chunk in work.
#[derive(Debug)]
struct Block {
    k: Store,
    v: Store,
    slots: usize,
    row_bytes: usize,
}

impl Block {
    fn new(kind: KvType, heads: usize, slots: usize, head_dim: usize) -> Block {
        let store = || Store::new(kind, heads * slots, head_dim);
        Block {
            k: store(),
            v: store(),
            slots,
            row_bytes: kind.row_bytes(head_dim),
        }
    }

    /// Copies `rows` rows of keys and of values; both blocks are of one cache, so of one type.
    fn copy_rows(&mut self, to: usize, from: &Block, from_row: usize, rows: usize) {
        let len = rows * self.row_bytes;
        let (to, start) = (to * self.row_bytes, from_row * self.row_bytes);
        for (store, from) in [(&mut self.k, &from.k), (&mut self.v, &from.v)] {
            store.bytes_mut()[to..to + len].copy_from_slice(&from.bytes()[start..start + len]);
        }
    }

    /// Copies the first `used` slots of every head.
    fn copy_slots(&mut self, from: &Block, used: usize, heads: usize) {
        for head in 0..heads {
            self.copy_rows(head * self.slots, from, head * from.slots, used);
        }
    }

    fn segment(&self, head: usize, slot: usize, len: usize, head_dim: usize) -> KvSegment<'_> {
        let first = head * self.slots + slot;
        let floats = first * head_dim..(first + len) * head_dim;
        match (&self.k, &self.v) {
            (Store::F32(k), Store::F32(v)) => {
                let matrix = |data| Matrix::f32(data, len, head_dim);
                KvSegment::new(matrix(&k[floats.clone()]), matrix(&v[floats]))
            }
            (Store::F16(k), Store::F16(v)) => {
                let matrix = |data| Matrix::f16(data, len, head_dim);
                KvSegment::new(matrix(&k[floats.clone()]), matrix(&v[floats]))
            }
            (Store::Int8(k), Store::Int8(v)) => {
                let bytes = first * self.row_bytes..(first + len) * self.row_bytes;
                KvSegment::int8(&k[bytes.clone()], &v[bytes], head_dim)
            }
            _ => unreachable!("keys and values of one cache have one type"),
        }
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
    pub(in crate::model) slice: Option<Slice>,
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
        let slot_bytes = 2 * config.num_key_value_heads * kind.row_bytes(config.head_dim);
        (0..config.first_kv_shared_layer())
            .map(|layer| (slots(config, layer, context) * slot_bytes) as u64)
            .sum()
    }

    /// Bytes held for the layers' keys and values.
    pub fn bytes(&self) -> u64 {
        self.layers_bytes(&self.layers) as u64
    }

    /// Bytes of them that tokens have taken: memory comes as it is used.
    pub fn used_bytes(&self) -> u64 {
        let row = 2 * self.heads * self.kind.row_bytes(self.head_dim);
        let blocks = self.layers.iter().flatten();
        blocks
            .map(|block| (block.slots.min(self.position) * row) as u64)
            .sum()
    }

    fn layers_bytes(&self, layers: &[Option<Block>]) -> usize {
        let slots: usize = layers.iter().flatten().map(|block| block.slots).sum();
        slots * 2 * self.heads * self.kind.row_bytes(self.head_dim)
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
            copy.copy_slots(block, used, heads);
            copy
        };
        let layers: Vec<Option<Block>> = self
            .layers
            .iter()
            .map(|block| block.as_ref().map(copy))
            .collect();
        KvSnapshot {
            bytes: self.layers_bytes(&layers),
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
        for (block, from) in self.layers.iter_mut().zip(&snapshot.layers) {
            if let (Some(block), Some(from)) = (block, from) {
                block.copy_slots(from, from.slots, self.heads);
            }
        }
        self.position = snapshot.position;
        self.slice = snapshot.slice.clone();
    }

    /// The keys and values so far as bytes, little-endian: for each layer that has its own, K and V of every head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let head_bytes = self.kind.row_bytes(self.head_dim);
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
        let head_bytes = self.kind.row_bytes(self.head_dim);
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
    pub(in crate::model) fn write(
        &mut self,
        isa: Isa,
        layer: usize,
        t: usize,
        k: &[f32],
        v: &[f32],
    ) {
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
                let to = head * block.slots + first + t;
                block.k.write(isa, to, &k[row.clone()]);
                block.v.write(isa, to, &v[row]);
            }
        }
    }

    /// What token `t` of the chunk in work sees of one K/V head of a layer: up to three runs of slots, oldest first
    /// (empty ones at the end).
    pub(in crate::model) fn visible(
        &self,
        layer: usize,
        head: usize,
        t: usize,
    ) -> [KvSegment<'_>; 3] {
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
    pub(in crate::model) fn finish_layer(&mut self, layer: usize, t: usize) {
        if self.layer_types[layer] == LayerType::Sliding && self.shared_sliding != Some(layer) {
            self.commit(layer, t);
        }
    }

    /// Called when a chunk has passed its last layer.
    pub(in crate::model) fn finish_chunk(&mut self, t: usize) {
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
                let to = head * block.slots + slot;
                block.copy_rows(to, fresh, head * fresh.slots + t, 1);
            }
        }
    }
}
