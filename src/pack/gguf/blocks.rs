//! ggml's block formats, and the way out of them.
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of the ggml project describe the blocks; the tests compare with the `gguf`
//! package's own dequantisation.

use half::{bf16, f16};
use kernels::quant::GROUP;
use safetensors::Dtype;

/// How a tensor of a GGUF file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Names of ggml's enumeration from 0 on, those of types that were given up included.
const NAMES: [&str; 41] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
];

/// What ggml calls the type of this number.
pub(super) fn name(number: u32) -> String {
    NAMES
        .get(number as usize)
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// Weights of the longest block.
pub(super) const LONGEST_BLOCK: usize = 256;

impl BlockType {
    /// The type of this number in ggml's enumeration.
    pub(super) fn of_number(number: u32) -> Option<BlockType> {
        Some(match number {
            0 => BlockType::F32,
            1 => BlockType::F16,
            2 => BlockType::Q4_0,
            8 => BlockType::Q8_0,
            12 => BlockType::Q4K,
            13 => BlockType::Q5K,
            14 => BlockType::Q6K,
            30 => BlockType::Bf16,
            _ => return None,
        })
    }

    /// Weights of a block.
    pub(super) fn block_len(self) -> usize {
        match self {
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => 1,
            BlockType::Q4_0 | BlockType::Q8_0 => 32,
            BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => LONGEST_BLOCK,
        }
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::F16 | BlockType::Bf16 => 2,
            BlockType::Q4_0 => 18,
            BlockType::Q8_0 => 34,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
        }
    }

    /// Bits of an integer, where a block is 32 of them and a scale, which is first.
    pub(super) fn bits(self) -> Option<usize> {
        match self {
            BlockType::Q4_0 => Some(4),
            BlockType::Q8_0 => Some(8),
            _ => None,
        }
    }

    /// What a tensor that a pack does not quantise is stored as.
    pub(super) fn plain(self) -> Dtype {
        match self {
            BlockType::F16 => Dtype::F16,
            BlockType::Bf16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    /// Bytes of a tensor; `None` where that does not fit.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<u64> {
        let n = shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
        (n / self.block_len() as u64).checked_mul(self.block_bytes() as u64)
    }

    /// Writes the weights of one block.
    ///
    /// # Panics
    /// When `block` or `out` has another length than a block.
    pub(super) fn dequantize(self, block: &[u8], out: &mut [f32]) {
        assert_eq!(block.len(), self.block_bytes(), "bytes of a block");
        assert_eq!(out.len(), self.block_len(), "weights of a block");
        match self {
            BlockType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            BlockType::F16 => out[0] = half_at(block, 0),
            BlockType::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            BlockType::Q4_0 | BlockType::Q8_0 => {
                let (d, mut integers) = (half_at(block, 0), [0; GROUP]);
                self.integers(block, &mut integers);
                for (out, q) in out.iter_mut().zip(integers) {
                    *out = f32::from(q) * d;
                }
            }
            BlockType::Q4K => five_bits(block, &[0; 32], &block[16..], out),
            BlockType::Q5K => five_bits(block, &block[16..48], &block[48..], out),
            BlockType::Q6K => six_bits(block, out),
        }
    }

    /// The integers of a block of a type that has [`BlockType::bits`].
    pub(super) fn integers(self, block: &[u8], out: &mut [i8; GROUP]) {
        if self == BlockType::Q8_0 {
            for (out, &byte) in out.iter_mut().zip(&block[2..]) {
                *out = byte.cast_signed();
            }
            return;
        }
        for (j, &byte) in block[2..].iter().enumerate() {
            out[j] = (byte & 15).cast_signed() - 8;
            out[j + 16] = (byte >> 4).cast_signed() - 8;
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Q4_K and Q5_K: eight runs of 32 weights `d s q − m t`, `s` and `t` in 6 bit; Q4_K has no fifth bits.
fn five_bits(block: &[u8], fifth: &[u8], nibbles: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        // The first four scales and minima have six bits of a byte; of the others four bits share one, the rest is above
        // the first four's.
        let (s, t) = if run < 4 {
            (packed[run] & 63, packed[run + 4] & 63)
        } else {
            (
                packed[run + 4] & 15 | (packed[run - 4] >> 6) << 4,
                packed[run + 4] >> 4 | (packed[run] >> 6) << 4,
            )
        };
        let (scale, minimum) = (d * f32::from(s), m * f32::from(t));
        for (l, out) in out.iter_mut().enumerate() {
            let byte = nibbles[run / 2 * 32 + l];
            let nibble = if run % 2 == 0 { byte & 15 } else { byte >> 4 };
            let q = nibble | (fifth[l] >> run & 1) << 4;
            *out = scale * f32::from(q) - minimum;
        }
    }
}

/// Q6_K: sixteen runs of 16 weights `d s (q − 32)`, `s` in 8 bit.
fn six_bits(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half_at(block, 208);
    for (e, out) in out.iter_mut().enumerate() {
        let (half, quarter, l) = (e / 128, e % 128 / 32, e % 32);
        let byte = low[half * 64 + quarter % 2 * 32 + l];
        let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let two = high[half * 32 + l] >> (2 * quarter) & 3;
        let q = i16::from(nibble | two << 4) - 32;
        *out = d * f32::from(scales[e / 16] as i8) * f32::from(q);
    }
}
