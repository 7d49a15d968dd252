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

/// Rows of one head, of any type: those that were written, and room for the others, which takes no memory until then.
#[derive(Clone, Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Int8(Vec<i8>),
}

impl Store {
    fn new(kind: KvType, rows: usize, head_dim: usize) -> Store {
        match kind {
            KvType::F32 => Store::F32(Vec::with_capacity(rows * head_dim)),
            KvType::F16 => Store::F16(Vec::with_capacity(rows * head_dim)),
            KvType::Int8 => Store::Int8(Vec::with_capacity(rows * int8::row_len(head_dim))),
        }
    }

    fn write(&mut self, isa: Isa, row: usize, from: &[f32]) {
        let head_dim = from.len();
        match self {
            Store::F32(data) => grown(data, row, head_dim).copy_from_slice(from),
            Store::F16(data) => kernels::widen::to_f16(isa, from, grown(data, row, head_dim)),
            Store::Int8(data) => {
                int8::quantize(from, grown(data, row, int8::row_len(head_dim)));
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

    /// The bytes of the rows before `rows`, which are there from now on.
    fn bytes_mut(&mut self, rows: usize, head_dim: usize) -> &mut [u8] {
        match self {
            Store::F32(data) => bytemuck::cast_slice_mut(up_to(data, rows * head_dim)),
            Store::F16(data) => bytemuck::cast_slice_mut(up_to(data, rows * head_dim)),
            Store::Int8(data) => {
                bytemuck::cast_slice_mut(up_to(data, rows * int8::row_len(head_dim)))
            }
        }
    }
}

/// Row `row` of rows of `len` elements, which is there from now on.
fn grown<T: Copy + Default>(data: &mut Vec<T>, row: usize, len: usize) -> &mut [T] {
    &mut up_to(data, (row + 1) * len)[row * len..]
}

/// The first `len` elements, which are there from now on.
fn up_to<T: Copy + Default>(data: &mut Vec<T>, len: usize) -> &mut [T] {
    if data.len() < len {
        data.resize(len, T::default());
    }
    &mut data[..len]
}

/// Keys and values of one layer, or of the tokens of the chunk in work.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// By head, each up to `slots` rows.
    k: Vec<Store>,
    v: Vec<Store>,
    head_dim: usize,
    pub(super) slots: usize,
    row_bytes: usize,
}

impl Block {
    pub(super) fn new(kind: KvType, heads: usize, head_dim: usize, slots: usize) -> Block {
        let stores = || (0..heads).map(|_| Store::new(kind, slots, head_dim));
        Block {
            k: stores().collect(),
            v: stores().collect(),
            head_dim,
            slots,
            row_bytes: kind.row_bytes(head_dim),
        }
    }

    /// An empty block of the same shape with so many slots.
    pub(super) fn with_slots(&self, kind: KvType, slots: usize) -> Block {
        Block::new(kind, self.k.len(), self.head_dim, slots)
    }

    pub(super) fn has_shape_of(&self, other: &Block) -> bool {
        (self.k.len(), self.head_dim) == (other.k.len(), other.head_dim)
    }

    /// Bytes that the keys and values of `tokens` tokens take.
    pub(super) fn bytes_for(&self, tokens: usize) -> usize {
        2 * self.k.len() * self.row_bytes * tokens.min(self.slots)
    }

    /// Stores the keys and values of one token, \[kv heads · head_dim\] each.
    pub(super) fn write(&mut self, isa: Isa, slot: usize, k: &[f32], v: &[f32]) {
        for (stores, rows) in [(&mut self.k, k), (&mut self.v, v)] {
            for (store, row) in stores.iter_mut().zip(rows.chunks_exact(self.head_dim)) {
                store.write(isa, slot, row);
            }
        }
    }

    /// Copies `count` slots of every head from a block of the same shape and type.
    pub(super) fn copy_slots(&mut self, to: usize, from: &Block, from_slot: usize, count: usize) {
        let from_bytes = from_slot * self.row_bytes..(from_slot + count) * self.row_bytes;
        let (head_dim, skipped) = (self.head_dim, to * self.row_bytes);
        for (store, from) in self.stores_mut().zip(from.stores()) {
            let bytes = store.bytes_mut(to + count, head_dim);
            bytes[skipped..].copy_from_slice(&from.bytes()[from_bytes.clone()]);
        }
    }

    /// Appends the first `used` slots: keys of every head, then values.
    pub(super) fn append_to(&self, used: usize, bytes: &mut Vec<u8>) {
        for store in self.stores() {
            bytes.extend_from_slice(&store.bytes()[..used * self.row_bytes]);
        }
    }

    /// Takes the first `used` slots from the beginning of `bytes`, as [`Block::append_to`] wrote them; gives the rest.
    pub(super) fn take_from<'a>(&mut self, used: usize, mut bytes: &'a [u8]) -> &'a [u8] {
        let (head_dim, len) = (self.head_dim, used * self.row_bytes);
        for store in self.stores_mut() {
            let from;
            (from, bytes) = bytes.split_at(len);
            store.bytes_mut(used, head_dim).copy_from_slice(from);
        }
        bytes
    }

    /// `len` slots of one head, from `slot` on.
    pub(super) fn segment(&self, head: usize, slot: usize, len: usize) -> KvSegment<'_> {
        let head_dim = self.head_dim;
        let floats = slot * head_dim..(slot + len) * head_dim;
        match (&self.k[head], &self.v[head]) {
            (Store::F32(k), Store::F32(v)) => {
                let matrix = |data| Matrix::f32(data, len, head_dim);
                KvSegment::new(matrix(&k[floats.clone()]), matrix(&v[floats]))
            }
            (Store::F16(k), Store::F16(v)) => {
                let matrix = |data| Matrix::f16(data, len, head_dim);
                KvSegment::new(matrix(&k[floats.clone()]), matrix(&v[floats]))
            }
            (Store::Int8(k), Store::Int8(v)) => {
                let bytes = slot * self.row_bytes..(slot + len) * self.row_bytes;
                KvSegment::int8(&k[bytes.clone()], &v[bytes], head_dim)
            }
            _ => unreachable!("keys and values of one cache have one type"),
        }
    }

    /// Keys of every head, then values.
    fn stores(&self) -> impl Iterator<Item = &Store> {
        self.k.iter().chain(&self.v)
    }

    fn stores_mut(&mut self) -> impl Iterator<Item = &mut Store> {
        self.k.iter_mut().chain(&mut self.v)
    }
}
