//! Rows of keys and values in memory.

use half::f16;
use kernels::attention::{KvSegment, int8};
use kernels::{Isa, Matrix};

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
pub(super) struct Block {
    k: Store,
    v: Store,
    heads: usize,
    head_dim: usize,
    pub(super) slots: usize,
    row_bytes: usize,
}

impl Block {
    pub(super) fn new(kind: KvType, heads: usize, head_dim: usize, slots: usize) -> Block {
        let store = || Store::new(kind, heads * slots, head_dim);
        Block {
            k: store(),
            v: store(),
            heads,
            head_dim,
            slots,
            row_bytes: kind.row_bytes(head_dim),
        }
    }

    /// An empty block of the same shape with so many slots.
    pub(super) fn with_slots(&self, kind: KvType, slots: usize) -> Block {
        Block::new(kind, self.heads, self.head_dim, slots)
    }

    pub(super) fn has_shape_of(&self, other: &Block) -> bool {
        (self.heads, self.head_dim) == (other.heads, other.head_dim)
    }

    /// Bytes that the keys and values of `tokens` tokens take.
    pub(super) fn bytes_for(&self, tokens: usize) -> usize {
        2 * self.heads * self.row_bytes * tokens.min(self.slots)
    }

    /// Stores the keys and values of one token, \[kv heads · head_dim\] each.
    pub(super) fn write(&mut self, isa: Isa, slot: usize, k: &[f32], v: &[f32]) {
        let heads = k
            .chunks_exact(self.head_dim)
            .zip(v.chunks_exact(self.head_dim));
        for (head, (k, v)) in heads.enumerate() {
            let row = head * self.slots + slot;
            self.k.write(isa, row, k);
            self.v.write(isa, row, v);
        }
    }

    /// Copies `count` slots of every head from a block of the same shape and type.
    pub(super) fn copy_slots(&mut self, to: usize, from: &Block, from_slot: usize, count: usize) {
        let len = count * self.row_bytes;
        for (store, from_store) in [(&mut self.k, &from.k), (&mut self.v, &from.v)] {
            for head in 0..self.heads {
                let to = (head * self.slots + to) * self.row_bytes;
                let start = (head * from.slots + from_slot) * self.row_bytes;
                store.bytes_mut()[to..to + len]
                    .copy_from_slice(&from_store.bytes()[start..start + len]);
            }
        }
    }

    /// Appends the first `used` slots: keys of every head, then values.
    pub(super) fn append_to(&self, used: usize, bytes: &mut Vec<u8>) {
        for store in [&self.k, &self.v] {
            for head in store.bytes().chunks_exact(self.slots * self.row_bytes) {
                bytes.extend_from_slice(&head[..used * self.row_bytes]);
            }
        }
    }

    /// Takes the first `used` slots from the beginning of `bytes`, as [`Block::append_to`] wrote them; gives the rest.
    pub(super) fn take_from<'a>(&mut self, used: usize, mut bytes: &'a [u8]) -> &'a [u8] {
        let (slots, row_bytes) = (self.slots, self.row_bytes);
        for store in [&mut self.k, &mut self.v] {
            for head in store.bytes_mut().chunks_exact_mut(slots * row_bytes) {
                let from;
                (from, bytes) = bytes.split_at(used * row_bytes);
                head[..from.len()].copy_from_slice(from);
            }
        }
        bytes
    }

    /// `len` slots of one head, from `slot` on.
    pub(super) fn segment(&self, head: usize, slot: usize, len: usize) -> KvSegment<'_> {
        let head_dim = self.head_dim;
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
