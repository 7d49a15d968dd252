//! Keys and values of the tokens so far: whole for full-attention layers, a ring for sliding ones, none for layers that
//! share another layer's. Each layer has heads of its own number and width.
//!
//! Source: reference sections 2.5 (sharing, windows) and 2.8 (sizes).

mod block;

use std::ops::Range;

use kernels::Isa;
use kernels::attention::KvSegment;

use self::block::Block;
pub use self::block::KvType;
use super::{LayerShape, Slice};

/// The cache of one conversation.
///
/// | layer | slots |
/// |---|---|
/// | full attention, with K/V of its own | `context` |
/// | sliding attention, with K/V of its own | min(`window`, `context`), a ring |
/// | shared K/V | none |
#[derive(Clone, Debug)]
pub struct KvCache {
    /// By layer of the full model; `None` for layers that share.
    layers: Vec<Option<LayerKv>>,
    /// K/V of the chunk in work: a block for the sliding layer in work, and one for each whose K/V other layers read.
    fresh: Vec<Block>,
    /// How many tokens the last chunk had, where they may be taken back.
    revocable: usize,
    kind: KvType,
    context: usize,
    chunk: usize,
    position: usize,
    /// The slice that the tokens so far went through.
    pub(crate) slice: Option<Slice>,
}

#[derive(Clone, Debug)]
struct LayerKv {
    block: Block,
    ring: Option<Ring>,
    /// Of a ring, what the last chunk wrote over, slot by slot.
    displaced: Option<Block>,
}

/// Tokens of a chunk that can be taken back, at most ([`KvCache::take_back`]): a longer one is a prompt.
const MAX_REVOCABLE: usize = 16;

/// What a sliding layer keeps: the last tokens, and beside them those of the chunk in work.
#[derive(Clone, Copy, Debug)]
struct Ring {
    window: usize,
    /// Which of the cache's fresh blocks.
    fresh: usize,
    /// Whether later layers are to read the chunk's keys and values too.
    is_shared: bool,
}

/// Keys and values of a conversation that may go on.
#[derive(Debug)]
pub struct KvSnapshot {
    layers: Vec<Option<Block>>,
    position: usize,
    slice: Option<Slice>,
}

impl KvSnapshot {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let blocks = self.layers.iter().flatten();
        blocks.map(|block| block.bytes_for(self.position)).sum()
    }

    /// Tokens held.
    pub fn position(&self) -> usize {
        self.position
    }
}

fn slots(layer: &LayerShape, context: usize) -> usize {
    layer.window.map_or(context, |window| window.min(context))
}

impl KvCache {
    /// An empty cache for up to `context` tokens, filled by chunks of up to `chunk` tokens.
    pub fn new(layers: &[LayerShape], kind: KvType, context: usize, chunk: usize) -> KvCache {
        // Of the fresh blocks, those that layers have in turn.
        let mut in_turn: Vec<usize> = Vec::new();
        let mut fresh: Vec<Block> = Vec::new();
        let mut layer_kv = |(index, layer): (usize, &LayerShape)| {
            if layer.kv_of.is_some() {
                return None;
            }
            let block = Block::new(kind, layer.kv_heads, layer.head_dim, slots(layer, context));
            let ring = layer.window.map(|window| {
                let is_shared = layers.iter().any(|other| other.kv_of == Some(index));
                let mut free = in_turn.iter().copied();
                let free = free.find(|&at| !is_shared && fresh[at].has_shape_of(&block));
                let fresh = free.unwrap_or_else(|| {
                    if !is_shared {
                        in_turn.push(fresh.len());
                    }
                    fresh.push(block.with_slots(kind, chunk));
                    fresh.len() - 1
                });
                Ring {
                    window,
                    fresh,
                    is_shared,
                }
            });
            let displaced = ring.map(|_| block.with_slots(kind, MAX_REVOCABLE));
            Some(LayerKv {
                block,
                ring,
                displaced,
            })
        };
        let layers = layers.iter().enumerate().map(&mut layer_kv).collect();
        KvCache {
            layers,
            fresh,
            revocable: 0,
            kind,
            context,
            chunk,
            position: 0,
            slice: None,
        }
    }

    /// Size of the cache for a context: `2 · kv_heads · head_dim` values per slot of every layer with K/V of its own.
    ///
    /// Source: reference section 2.8 (272 MiB at 32,768 tokens in 16 bit, for E2B and E4B alike).
    pub fn bytes_for(layers: &[LayerShape], kind: KvType, context: usize) -> u64 {
        let own = layers.iter().filter(|layer| layer.kv_of.is_none());
        own.map(|layer| {
            let slot_bytes = 2 * layer.kv_heads * kind.row_bytes(layer.head_dim);
            (slots(layer, context) * slot_bytes) as u64
        })
        .sum()
    }

    /// Bytes held for the layers' keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes_of(self.context)
    }

    /// Bytes of them that tokens have taken: memory comes as it is used.
    pub fn used_bytes(&self) -> u64 {
        self.bytes_of(self.position)
    }

    fn bytes_of(&self, tokens: usize) -> u64 {
        let blocks = self.layers.iter().flatten();
        blocks
            .map(|layer| layer.block.bytes_for(tokens) as u64)
            .sum()
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
        self.chunk
    }

    /// A copy of the keys and values so far, without the room for more.
    pub fn snapshot(&self) -> KvSnapshot {
        let copy = |layer: &LayerKv| {
            let used = self.position.min(layer.block.slots);
            let mut copy = layer.block.with_slots(self.kind, used);
            copy.copy_slots(0, &layer.block, 0, used);
            copy
        };
        let layers = self.layers.iter();
        KvSnapshot {
            layers: layers.map(|layer| layer.as_ref().map(copy)).collect(),
            position: self.position,
            slice: self.slice.clone(),
        }
    }

    /// Takes up where a snapshot of a cache of the same model, type and context was taken; what was here is forgotten.
    ///
    /// # Panics
    /// If the snapshot is of another shape or type.
    pub fn restore(&mut self, snapshot: &KvSnapshot) {
        for (layer, from) in self.layers.iter_mut().zip(&snapshot.layers) {
            if let (Some(layer), Some(from)) = (layer, from) {
                layer.block.copy_slots(0, from, 0, from.slots);
            }
        }
        self.position = snapshot.position;
        self.slice = snapshot.slice.clone();
        self.revocable = 0;
    }

    /// The keys and values so far as bytes, little-endian: for each layer that has its own, K and V of every head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.position as u64).to_le_bytes().to_vec();
        for LayerKv { block, .. } in self.layers.iter().flatten() {
            block.append_to(self.position.min(block.slots), &mut bytes);
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
        if position > self.context || rest.len() as u64 != self.bytes_of(position) {
            return false;
        }
        for LayerKv { block, .. } in self.layers.iter_mut().flatten() {
            rest = block.take_from(position.min(block.slots), rest);
        }
        self.position = position;
        self.slice = Some(slice.clone());
        self.revocable = 0;
        true
    }

    /// Forgets every token; the memory stays.
    pub fn clear(&mut self) {
        self.position = 0;
        self.slice = None;
        self.revocable = 0;
    }

    /// Tokens that a chunk may have for [`KvCache::take_back`].
    pub fn max_revocable(&self) -> usize {
        let rings = self.layers.iter().flatten();
        let rings = rings.filter(|layer| layer.ring.is_some());
        let shortest = rings.map(|layer| layer.block.slots).min();
        shortest
            .map_or(MAX_REVOCABLE, |slots| slots.min(MAX_REVOCABLE))
            .min(self.chunk)
    }

    /// Takes the last `count` tokens of the last chunk back, as if they had never been: guesses that turned out wrong.
    ///
    /// # Panics
    /// If the last chunk had fewer tokens, or more than [`KvCache::max_revocable`].
    pub fn take_back(&mut self, count: usize) {
        assert!(
            count <= self.revocable,
            "{count} tokens of a chunk of {} cannot be taken back",
            self.revocable
        );
        let chunk = self.revocable;
        self.revocable -= count;
        self.position -= count;
        for LayerKv {
            block, displaced, ..
        } in self.layers.iter_mut().flatten()
        {
            let Some(displaced) = displaced else { continue };
            for t in chunk - count..chunk {
                let position = self.position + t - (chunk - count);
                // Before the ring was full nothing was written over.
                if position >= block.slots {
                    block.copy_slots(position % block.slots, displaced, t, 1);
                }
            }
        }
    }

    /// Stores the keys and values of the `t` tokens of the chunk in work, \[T, kv heads · head_dim\] each.
    pub(crate) fn write(&mut self, isa: Isa, layer: usize, t: usize, k: &[f32], v: &[f32]) {
        let Some(LayerKv { block, ring, .. }) = &mut self.layers[layer] else {
            return;
        };
        let (block, first) = match ring {
            None => (block, self.position),
            Some(ring) => (&mut self.fresh[ring.fresh], 0),
        };
        let width = k.len() / t;
        for (t, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
            block.write(isa, first + t, k, v);
        }
    }

    /// Positions that token `t` of the chunk in work sees in a layer, its own the last of them.
    pub(crate) fn positions(&self, layer: usize, t: usize) -> Range<usize> {
        let end = self.position + t + 1;
        let ring = self.layers[layer].as_ref().and_then(|layer| layer.ring);
        end - end.min(ring.map_or(end, |ring| ring.window))..end
    }

    /// What some tokens of the chunk in work see of one K/V head of a layer, from the first one's [`KvCache::positions`] to the last
    /// one's: up to three runs of slots, oldest first (perhaps empty ones).
    pub(crate) fn visible(
        &self,
        layer: usize,
        head: usize,
        tokens: Range<usize>,
    ) -> [KvSegment<'_>; 3] {
        let Some(LayerKv { block, ring, .. }) = &self.layers[layer] else {
            unreachable!("attention asks for layers with K/V of their own");
        };
        let part = |slot: usize, len: usize| block.segment(head, slot, len);
        let Some(ring) = ring else {
            return [part(0, self.position + tokens.end), part(0, 0), part(0, 0)];
        };
        let oldest = self.positions(layer, tokens.start).start;
        let first_fresh = oldest.saturating_sub(self.position);
        let fresh = self.fresh[ring.fresh].segment(head, first_fresh, tokens.end - first_fresh);
        if oldest >= self.position {
            return [part(0, 0), part(0, 0), fresh];
        }
        let (slot, len) = (oldest % block.slots, self.position - oldest);
        let until_wrap = len.min(block.slots - slot);
        [part(slot, until_wrap), part(0, len - until_wrap), fresh]
    }

    /// The newest positions that a layer has keys and values of, `most` of them at most; none of the chunk in work.
    pub(crate) fn stored(&self, layer: usize, most: usize) -> Range<usize> {
        let slots = self.layers[layer]
            .as_ref()
            .map_or(0, |layer| layer.block.slots);
        self.position - self.position.min(most).min(slots)..self.position
    }

    /// What is stored of one K/V head of a layer at some of its [`KvCache::stored`] positions: up to two runs of slots, oldest first.
    pub(crate) fn stored_at(
        &self,
        layer: usize,
        head: usize,
        positions: Range<usize>,
    ) -> [KvSegment<'_>; 3] {
        let Some(LayerKv { block, .. }) = &self.layers[layer] else {
            unreachable!("attention asks for layers with K/V of their own");
        };
        let part = |slot: usize, len: usize| block.segment(head, slot, len);
        // Where nothing slides, the context has as many slots as positions.
        let slot = positions.start % block.slots;
        let until_wrap = positions.len().min(block.slots - slot);
        let wrapped = part(0, positions.len() - until_wrap);
        [part(slot, until_wrap), wrapped, part(0, 0)]
    }

    /// Called when a layer's attention is done: a sliding layer's fresh K/V go into its ring, except those that shared
    /// layers are still to read.
    pub(crate) fn finish_layer(&mut self, layer: usize, t: usize) {
        self.commit(layer, t, false);
    }

    /// Called when a chunk has passed its last layer.
    pub(crate) fn finish_chunk(&mut self, t: usize) {
        for layer in 0..self.layers.len() {
            self.commit(layer, t, true);
        }
        self.position += t;
        self.revocable = if t <= self.max_revocable() { t } else { 0 };
    }

    /// Puts the last of `t` fresh tokens into a layer's ring, if it has one that `is_shared`, or one that is not.
    fn commit(&mut self, layer: usize, t: usize, is_shared: bool) {
        let is_revocable = t <= self.max_revocable();
        let Some(LayerKv {
            block,
            ring: Some(ring),
            displaced,
        }) = &mut self.layers[layer]
        else {
            return;
        };
        if ring.is_shared != is_shared {
            return;
        }
        for t in t.saturating_sub(block.slots)..t {
            let slot = (self.position + t) % block.slots;
            if let Some(displaced) = displaced
                && is_revocable
                && self.position + t >= block.slots
            {
                displaced.copy_slots(t, block, slot, 1);
            }
            block.copy_slots(slot, &self.fresh[ring.fresh], t, 1);
        }
    }
}

#[cfg(test)]
mod tests;
