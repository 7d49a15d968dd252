//! The header of a GGUF file: its keys and its table of tensors, read with limits.
//!
//! Source: the GGUF specification of the ggml project, versions 2 and 3.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use super::super::error::PackError;
use super::blocks::{self, BlockType};
use super::others::{self, GEMMA_3N, GEMMA_4, TOWERS, Wanted};

pub(super) const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 14;
/// The longest list is that of the merges, some 515,000.
const MAX_LIST: u64 = 1 << 21;
/// The longest text is the chat template.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// No token's text is longer: the published ones have 93 bytes at most. What is made of tokens grows with the square of that.
const MAX_TOKEN_BYTES: usize = 1024;
/// The header of the largest model has 20 MB.
const MAX_HEADER_BYTES: u64 = 128 << 20;
/// Memory that what is kept of a header may take, as it is allocated; that of the largest model takes 50 MB.
const MAX_KEPT_BYTES: u64 = 192 << 20;
/// What a text takes beside its bytes: where it lies, and what the allocator adds.
const TEXT_COST: u64 = 40;
/// What an entry of a map takes beside its name.
const ENTRY_COST: u64 = 160;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

const ARCHITECTURE: &str = "general.architecture";
const TYPE: &str = "general.type";
/// Other keys that are kept.
const KEPT: [&str; 14] = [
    ARCHITECTURE,
    TYPE,
    "general.alignment",
    "split.count",
    "split.no",
    "split.tensors.count",
    "tokenizer.chat_template",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
];
const PADDING: &str = "tokenizer.ggml.padding_token_id";

fn is_kept(key: &str) -> bool {
    let own = key.split_once('.').map(|(first, _)| first);
    matches!(own, Some(GEMMA_3N | GEMMA_4 | TOWERS)) || key == PADDING || KEPT.contains(&key)
}

/// The value of a key. Truth values are 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// A tensor as the table describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorInfo {
    /// Dimensions, outermost first (the file has them the other way round).
    pub(super) shape: Vec<usize>,
    pub(super) block_type: BlockType,
    /// First byte in the file.
    pub(super) start: u64,
    /// Which part of the model that is, from 0 on.
    pub(super) part: usize,
}

/// Keys and tensors.
#[derive(Debug)]
pub(in crate::pack) struct Header {
    pub(super) values: HashMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads the header of a file of `size` bytes.
    pub(in crate::pack) fn read(
        file: impl Read + Seek,
        size: u64,
        path: &Path,
        wanted: Wanted,
    ) -> Result<Header, PackError> {
        let limit = size.min(MAX_HEADER_BYTES);
        let mut reader = Reader {
            path,
            wanted,
            input: BufReader::new(file),
            left: limit,
            room: MAX_KEPT_BYTES,
        };
        let header = reader.header(size)?;
        Ok(header)
    }

    /// A number, 0 where it is not there.
    pub(super) fn number(&self, key: &str) -> f64 {
        number(&self.values, key)
    }

    /// What llama.cpp calls the model; of one in parts only the first says it.
    pub(super) fn architecture(&self) -> Option<&str> {
        match self.values.get(ARCHITECTURE) {
            Some(Value::Text(name)) => Some(name),
            _ => None,
        }
    }
}

fn number(values: &HashMap<String, Value>, key: &str) -> f64 {
    match values.get(key) {
        Some(Value::Number(n)) => *n,
        _ => 0.0,
    }
}

struct Reader<'a, R> {
    path: &'a Path,
    wanted: Wanted,
    input: BufReader<R>,
    /// Bytes that the header may still take.
    left: u64,
    /// Memory that what is kept of it may still take.
    room: u64,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn bad(&self, reason: impl Into<String>) -> PackError {
        PackError::Gguf {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn take(&mut self, n: u64) -> Result<(), PackError> {
        self.left = self.left.checked_sub(n).ok_or_else(|| {
            self.bad(
                "the header goes beyond the end of the file: it is truncated; download it again",
            )
        })?;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.input
            .read_exact(&mut bytes)
            .map_err(PackError::read(self.path))?;
        Ok(bytes)
    }

    /// Passes over bytes that nobody needs.
    fn skip(&mut self, n: u64) -> Result<(), PackError> {
        self.take(n)?;
        // What may be left is far below 2^63.
        self.input
            .seek_relative(n as i64)
            .map_err(PackError::read(self.path))
    }

    /// Accounts for memory before it is taken.
    fn keep(&mut self, bytes: u64) -> Result<(), PackError> {
        self.room = self.room.checked_sub(bytes).ok_or_else(|| {
            self.bad(format!(
                "what its header holds takes more than {MAX_KEPT_BYTES} bytes of memory; no model that gemmad packs needs so much"
            ))
        })?;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, PackError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, PackError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A number that says how many things follow.
    fn count(&mut self, what: &str, max: u64) -> Result<u64, PackError> {
        let n = self.u64()?;
        if n > max {
            return Err(self.bad(format!("it claims {n} {what}; {max} are allowed")));
        }
        Ok(n)
    }

    fn text(&mut self) -> Result<String, PackError> {
        let n = self.count("bytes of one text", MAX_TEXT_BYTES)?;
        self.take(n)?;
        self.keep(n + TEXT_COST)?;
        // The file has so many bytes, and there is room for them.
        let mut bytes = Vec::with_capacity(n as usize);
        self.input
            .by_ref()
            .take(n)
            .read_to_end(&mut bytes)
            .map_err(PackError::read(self.path))?;
        if bytes.len() as u64 != n {
            return Err(self.bad("it ends within a text: it is truncated; download it again"));
        }
        String::from_utf8(bytes).map_err(|_| self.bad("a text in the header is no UTF-8"))
    }

    fn header(&mut self, size: u64) -> Result<Header, PackError> {
        if self.left < 24 || &self.bytes()? != b"GGUF" {
            return Err(self.bad(others::instead(self.path)));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(self.bad(format!(
                "GGUF version {version} (or the byte order of another machine); versions 2 and 3 in little-endian are read"
            )));
        }
        let n_tensors = self.count("tensors", MAX_TENSORS)?;
        let n_keys = self.count("keys", MAX_KEYS)?;
        let mut values = HashMap::new();
        for _ in 0..n_keys {
            let room = self.room;
            let key = self.text()?;
            let kind = self.u32()?;
            if !is_kept(&key) {
                self.room = room;
                self.skip_value(&key, kind)?;
                continue;
            }
            self.keep(ENTRY_COST)?;
            let value = self.value(&key, kind)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(self.bad(format!("key {key} is there twice")));
            }
        }
        if let Some(Value::Text(kind)) = values.get(TYPE)
            && let Some(reason) = others::no_model(kind)
        {
            return Err(self.bad(reason));
        }
        if let Some(Value::Text(architecture)) = values.get(ARCHITECTURE)
            && let Some(reason) = others::reason(architecture, self.wanted)
        {
            return Err(self.bad(reason));
        }
        let alignment = match values.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Number(n)) if *n >= 1.0 && *n <= 65_536.0 && n.fract() == 0.0 => *n as u64,
            Some(_) => return Err(self.bad("general.alignment is no size")),
        };
        let mut tensors = BTreeMap::new();
        for _ in 0..n_tensors {
            let name = self.text()?;
            self.keep(ENTRY_COST)?;
            let tensor = self.tensor(&name)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(self.bad(format!("tensor {name} is there twice")));
            }
        }
        let position = size.min(MAX_HEADER_BYTES) - self.left;
        let data_start = position.next_multiple_of(alignment);
        for (name, tensor) in &mut tensors {
            let bytes = tensor.block_type.bytes(&tensor.shape);
            let end = tensor
                .start
                .checked_add(data_start)
                .zip(bytes)
                .and_then(|(start, bytes)| start.checked_add(bytes));
            match end {
                Some(end) if end <= size => tensor.start += data_start,
                _ => {
                    return Err(PackError::Gguf {
                        path: self.path.to_owned(),
                        reason: format!(
                            "tensor {name} of shape {:?} goes beyond the {size} bytes of the file: it is truncated, or the first part of a file that was cut; download it again, whole",
                            tensor.shape
                        ),
                    });
                }
            }
        }
        Ok(Header { values, tensors })
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, PackError> {
        match kind {
            8 => self.text().map(Value::Text),
            9 => {
                let (kind, n) = self.list(key)?;
                if kind == 8 {
                    self.keep(n * size_of::<String>() as u64)?;
                    let mut texts = Vec::with_capacity(n as usize);
                    for _ in 0..n {
                        let text = self.text()?;
                        if key.ends_with(".tokens") && text.len() > MAX_TOKEN_BYTES {
                            return Err(self.bad(format!(
                                "token {} has {} bytes; {MAX_TOKEN_BYTES} are allowed",
                                texts.len(),
                                text.len()
                            )));
                        }
                        texts.push(text);
                    }
                    return Ok(Value::Texts(texts));
                }
                self.keep(n * size_of::<f64>() as u64)?;
                let mut numbers = Vec::with_capacity(n as usize);
                for _ in 0..n {
                    numbers.push(self.number(key, kind)?);
                }
                Ok(Value::Numbers(numbers))
            }
            kind => self.number(key, kind).map(Value::Number),
        }
    }

    /// The kind of a list's items and their number, for which the file has bytes enough.
    fn list(&mut self, key: &str) -> Result<(u32, u64), PackError> {
        let kind = self.u32()?;
        let n = self.count(&format!("items in {key}"), MAX_LIST)?;
        let least = match kind {
            8 => 8,
            kind => self.number_bytes(key, kind)?,
        };
        if n * least > self.left {
            self.take(n * least)?;
        }
        Ok((kind, n))
    }

    fn skip_value(&mut self, key: &str, kind: u32) -> Result<(), PackError> {
        let (kind, n) = match kind {
            9 => self.list(key)?,
            kind => (kind, 1),
        };
        if kind != 8 {
            return self.skip(n * self.number_bytes(key, kind)?);
        }
        for _ in 0..n {
            let length = self.count("bytes of one text", MAX_TEXT_BYTES)?;
            self.skip(length)?;
        }
        Ok(())
    }

    fn number_bytes(&self, key: &str, kind: u32) -> Result<u64, PackError> {
        Ok(match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            // Lists of lists exist in the format and in no model.
            other => return Err(self.bad(format!("key {key} has a value of unknown type {other}"))),
        })
    }

    fn number(&mut self, key: &str, kind: u32) -> Result<f64, PackError> {
        Ok(match kind {
            0 | 7 => f64::from(self.bytes::<1>()?[0]),
            1 => f64::from(i8::from_le_bytes(self.bytes()?)),
            2 => f64::from(u16::from_le_bytes(self.bytes()?)),
            3 => f64::from(i16::from_le_bytes(self.bytes()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.bytes()?)),
            6 => f64::from(f32::from_le_bytes(self.bytes()?)),
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.bytes()?) as f64,
            12 => f64::from_le_bytes(self.bytes()?),
            other => self.number_bytes(key, other)? as f64,
        })
    }

    fn tensor(&mut self, name: &str) -> Result<TensorInfo, PackError> {
        let n = self.u32()?;
        if n == 0 || n > MAX_DIMENSIONS {
            return Err(self.bad(format!(
                "tensor {name} has {n} dimensions; 1 to {MAX_DIMENSIONS} are read"
            )));
        }
        let mut shape = Vec::new();
        for _ in 0..n {
            let dimension = self.u64()?;
            let dimension = usize::try_from(dimension)
                .ok()
                .filter(|&n| n > 0 && n <= 1 << 40);
            shape.push(
                dimension.ok_or_else(|| self.bad(format!("tensor {name} has an absurd shape")))?,
            );
        }
        shape.reverse();
        let number = self.u32()?;
        let block_type = BlockType::of_number(number).ok_or_else(|| {
            self.bad(format!(
                "tensor {name} has type {}; read are F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K: take a file in these, such as …-Q8_0.gguf or …-Q4_K_M.gguf",
                blocks::name(number)
            ))
        })?;
        let row = shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(block_type.block_len()) || block_type.bytes(&shape).is_none() {
            return Err(self.bad(format!(
                "tensor {name}: shape {shape:?} does not fit its type"
            )));
        }
        let start = self.u64()?;
        Ok(TensorInfo {
            shape,
            block_type,
            start,
            part: 0,
        })
    }
}
