//! GGUF files as tests change them: read and written by the description of the format, not by the code under test.

mod k_blocks;

use std::path::Path;

use half::{bf16, f16};

/// Numbers of types in ggml's enumeration.
pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const Q4_0: u32 = 2;
pub const Q8_0: u32 = 8;
pub const Q4_K: u32 = 12;
pub const Q5_K: u32 = 13;
pub const Q6_K: u32 = 14;
pub const BF16: u32 = 30;

/// Numbers of a block.
pub fn block_len(kind: u32) -> usize {
    match kind {
        F32 | F16 | BF16 => 1,
        Q4_0 | Q8_0 => 32,
        _ => k_blocks::BLOCK,
    }
}

/// A tensor: dimensions outermost first, its type, its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// A whole file; a key's value is its bytes, from the number of its type on.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub keys: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        self.at += n;
        &self.bytes[self.at - n..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let n = self.u64();
        String::from_utf8(self.take(n).to_vec()).unwrap()
    }

    fn pass(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            10..=12 => self.at += 8,
            8 => drop(self.text()),
            9 => {
                let (kind, n) = (self.u32(), self.u64());
                (0..n).for_each(|_| self.pass(kind));
            }
            other => panic!("type {other}"),
        }
    }
}

/// Bytes of so many numbers.
fn bytes_of(kind: u32, n: usize) -> usize {
    match kind {
        F32 => 4 * n,
        F16 | BF16 => 2 * n,
        Q4_0 => n / 32 * 18,
        Q8_0 => n / 32 * 34,
        kind => n / k_blocks::BLOCK * k_blocks::block_bytes(kind),
    }
}

impl Gguf {
    pub fn new(architecture: &str) -> Gguf {
        let mut file = Gguf {
            keys: Vec::new(),
            tensors: Vec::new(),
        };
        file.set("general.architecture", &text_value(architecture));
        file
    }

    pub fn read(path: &Path) -> Gguf {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut file = Cursor {
            bytes: &bytes,
            at: 8,
        };
        let (tensors, keys) = (file.u64(), file.u64());
        let keys = (0..keys).map(|_| {
            let (key, start) = (file.text(), file.at);
            let kind = file.u32();
            file.pass(kind);
            (key, bytes[start..file.at].to_vec())
        });
        let keys = keys.collect();
        let infos: Vec<_> = (0..tensors)
            .map(|_| {
                let (name, n) = (file.text(), file.u32());
                let mut shape: Vec<usize> = (0..n).map(|_| file.u64()).collect();
                shape.reverse();
                (name, shape, file.u32(), file.u64())
            })
            .collect();
        let start = file.at.next_multiple_of(32);
        let tensors = infos.into_iter().map(|(name, shape, kind, at)| {
            let n = bytes_of(kind, shape.iter().product());
            let data = bytes[start + at..][..n].to_vec();
            Tensor {
                name,
                shape,
                kind,
                data,
            }
        });
        Gguf {
            keys,
            tensors: tensors.collect(),
        }
    }

    pub fn write(&self, path: &Path) {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            file.extend(text(key));
            file.extend(value);
        }
        let mut at = 0_u64;
        for tensor in &self.tensors {
            file.extend(text(&tensor.name));
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            for &n in tensor.shape.iter().rev() {
                file.extend((n as u64).to_le_bytes());
            }
            file.extend(tensor.kind.to_le_bytes());
            file.extend(at.to_le_bytes());
            at += tensor.data.len().next_multiple_of(32) as u64;
        }
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(&tensor.data);
        }
        std::fs::write(path, file).unwrap();
    }

    /// Gives a key a value, its type's number first.
    pub fn set(&mut self, key: &str, value: &[u8]) {
        self.keys.retain(|(name, _)| name != key);
        self.keys.push((key.to_owned(), value.to_vec()));
    }

    pub fn remove(&mut self, key: &str) -> Vec<u8> {
        let at = self.keys.iter().position(|(name, _)| name == key).unwrap();
        self.keys.remove(at).1
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let mut tensors = self.tensors.iter_mut();
        tensors
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("{name}"))
    }

    pub fn add(&mut self, name: &str, shape: &[usize], kind: u32, values: &[f32]) {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: stored(kind, values),
            kind,
        });
    }

    pub fn take(&mut self, name: &str) -> Tensor {
        let tensor = self.tensor(name).clone();
        self.tensors.retain(|tensor| tensor.name != name);
        tensor
    }
}

/// A value of a key: a number of 32 bits.
pub fn u32_value(n: u32) -> Vec<u8> {
    [4_u32.to_le_bytes(), n.to_le_bytes()].concat()
}

/// One of 16 bits.
pub fn u16_value(n: u16) -> Vec<u8> {
    [&2_u32.to_le_bytes()[..], &n.to_le_bytes()].concat()
}

/// A truth value.
pub fn bool_value(is: bool) -> Vec<u8> {
    [&7_u32.to_le_bytes()[..], &[u8::from(is)]].concat()
}

/// A text.
pub fn text_value(text: &str) -> Vec<u8> {
    [
        &8_u32.to_le_bytes()[..],
        &(text.len() as u64).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

/// Integers and scales of a tensor of blocks, `[rows, cols]` and `[rows, cols / 32]`.
pub fn blocks(tensor: &Tensor) -> (Vec<i8>, Vec<f16>) {
    let (mut integers, mut scales) = (Vec::new(), Vec::new());
    let size = bytes_of(tensor.kind, 32);
    for block in tensor.data.chunks_exact(size) {
        scales.push(f16::from_le_bytes([block[0], block[1]]));
        if tensor.kind == Q8_0 {
            integers.extend(block[2..].iter().map(|&byte| byte as i8));
        } else {
            integers.extend(block[2..].iter().map(|byte| (byte & 15) as i8 - 8));
            integers.extend(block[2..].iter().map(|byte| (byte >> 4) as i8 - 8));
        }
    }
    (integers, scales)
}

/// What a tensor says in f32.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    match tensor.kind {
        F16 => tensor
            .data
            .as_chunks()
            .0
            .iter()
            .map(|&b| f16::from_le_bytes(b).to_f32())
            .collect(),
        F32 => tensor
            .data
            .as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect(),
        BF16 => tensor
            .data
            .as_chunks()
            .0
            .iter()
            .map(|&b| bf16::from_le_bytes(b).to_f32())
            .collect(),
        Q4_K | Q5_K | Q6_K => k_blocks::values(tensor.kind, &tensor.data),
        _ => {
            let (integers, scales) = blocks(tensor);
            let scales = scales.iter().flat_map(|scale| [scale.to_f32(); 32]);
            integers
                .iter()
                .zip(scales)
                .map(|(&q, scale)| f32::from(q) * scale)
                .collect()
        }
    }
}

/// Blocks of Q4_0 as ggml's reference makes them: the value of largest magnitude becomes -8.
pub fn q4_0(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in values.as_chunks::<32>().0 {
        let (mut most, mut peak) = (0.0, 0.0);
        for &value in group {
            if f32::abs(value) > most {
                (most, peak) = (value.abs(), value);
            }
        }
        let d = peak / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let nibble = |value: f32| ((value * inverse + 8.5).floor() as i32).min(15) as u8;
        bytes.extend(f16::from_f32(d).to_le_bytes());
        bytes.extend((0..16).map(|j| nibble(group[j]) | nibble(group[j + 16]) << 4));
    }
    bytes
}

/// Numbers in a type, as near as it comes.
pub fn stored(kind: u32, values: &[f32]) -> Vec<u8> {
    let numbers = values.iter();
    match kind {
        F32 => numbers.flat_map(|x| x.to_le_bytes()).collect(),
        F16 => numbers
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect(),
        BF16 => numbers
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect(),
        Q8_0 => q8_0(values),
        kind => k_blocks::stored(kind, values),
    }
}

/// Blocks of Q8_0 as ggml's reference makes them: the largest magnitude becomes 127.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in values.as_chunks::<32>().0 {
        let d = group.iter().fold(0.0, |most, x| f32::max(most, x.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        bytes.extend(f16::from_f32(d).to_le_bytes());
        bytes.extend(group.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
    bytes
}
