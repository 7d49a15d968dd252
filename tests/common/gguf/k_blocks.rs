//! Blocks of 256 numbers (K types), by the description of the format.
//!
//! Numbers become blocks in the simplest way, by the extremes of each run. What the blocks say then is exact.

use half::f16;

use super::{Q4_K, Q5_K, Q6_K};

/// Numbers of a block.
pub const BLOCK: usize = 256;

/// Bytes of a block.
pub fn block_bytes(kind: u32) -> usize {
    match kind {
        Q4_K => 144,
        Q5_K => 176,
        Q6_K => 210,
        other => panic!("type {other}"),
    }
}

/// Numbers in blocks.
pub fn stored(kind: u32, values: &[f32]) -> Vec<u8> {
    let blocks = values.as_chunks::<BLOCK>().0.iter();
    match kind {
        Q6_K => blocks.flat_map(six_bits).collect(),
        _ => blocks.flat_map(|x| runs_with_minima(x, kind)).collect(),
    }
}

/// What blocks say.
pub fn values(kind: u32, bytes: &[u8]) -> Vec<f32> {
    let mut all = Vec::new();
    for block in bytes.chunks_exact(block_bytes(kind)) {
        all.extend((0..BLOCK).map(|i| match kind {
            Q6_K => value_of_six_bits(block, i),
            _ => value_with_minimum(block, kind, i),
        }));
    }
    all
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `q` of the largest in a run of Q4_K and Q5_K.
fn most(kind: u32) -> f32 {
    if kind == Q4_K { 15.0 } else { 31.0 }
}

/// Eight runs of 32: `d s q - m t`, where `s` and `t` have 6 bits: low ones first, the upper two of the last four in the bytes of the first.
fn runs_with_minima(x: &[f32; BLOCK], kind: u32) -> Vec<u8> {
    let runs = x.as_chunks::<32>().0;
    let below = |run: &[f32; 32]| run.iter().fold(0.0, |low, x| f32::max(low, -x));
    let above = |run: &[f32; 32]| run.iter().fold(0.0, |high, x| f32::max(high, *x));
    let scales = runs
        .iter()
        .map(|run| (above(run) + below(run)) / most(kind));
    let (scales, minima): (Vec<f32>, Vec<f32>) =
        (scales.collect(), runs.iter().map(below).collect());
    let step = |of: &[f32]| f16::from_f32(of.iter().copied().fold(1e-4, f32::max) / 63.0);
    let (d, m) = (step(&scales), step(&minima));
    let six = |x: f32, step: f16| (x / step.to_f32()).round().min(63.0) as u8;
    let mut packed = [0; 12];
    let mut quants = [0; BLOCK];
    for run in 0..8 {
        let (s, t) = (six(scales[run], d), six(minima[run], m));
        if run < 4 {
            packed[run] |= s;
            packed[run + 4] |= t;
        } else {
            packed[run + 4] |= s & 15 | (t & 15) << 4;
            packed[run - 4] |= s >> 4 << 6;
            packed[run] |= t >> 4 << 6;
        }
        let scale = (d.to_f32() * f32::from(s)).max(1e-12);
        for (q, x) in quants[run * 32..].iter_mut().zip(&runs[run]) {
            let steps = (x + m.to_f32() * f32::from(t)) / scale;
            *q = steps.round().clamp(0.0, most(kind)) as u8;
        }
    }
    let mut bytes = [d.to_le_bytes(), m.to_le_bytes()].concat();
    bytes.extend(packed);
    if kind == Q5_K {
        let fifth = |l: usize| {
            (0..8)
                .map(|run| quants[run * 32 + l] >> 4 << run)
                .sum::<u8>()
        };
        bytes.extend((0..32).map(fifth));
    }
    for pair in quants.as_chunks::<64>().0 {
        bytes.extend((0..32).map(|l| pair[l] & 15 | (pair[l + 32] & 15) << 4));
    }
    bytes
}

fn value_with_minimum(block: &[u8], kind: u32, i: usize) -> f32 {
    let (run, l, packed) = (i / 32, i % 32, &block[4..16]);
    let upper = |byte: u8| byte >> 6 << 4;
    let (s, t) = match run.checked_sub(4) {
        None => (packed[run] & 63, packed[run + 4] & 63),
        Some(low) => (
            packed[run + 4] & 15 | upper(packed[low]),
            packed[run + 4] >> 4 | upper(packed[run]),
        ),
    };
    let nibbles = &block[block.len() - 128..];
    let nibble = nibbles[run / 2 * 32 + l] >> (run % 2 * 4) & 15;
    let fifth = if kind == Q5_K {
        block[16 + l] >> run & 1
    } else {
        0
    };
    let q = nibble + 16 * fifth;
    half(block, 0) * f32::from(s) * f32::from(q) - half(block, 2) * f32::from(t)
}

/// Sixteen runs of 16: `d s (q - 32)`, where `s` has a sign and 8 bits. Of each half of a block the low nibbles of four quarters stand
/// in 64 bytes, the upper bits in 32.
fn six_bits(x: &[f32; BLOCK]) -> Vec<u8> {
    let runs = x.as_chunks::<16>().0.iter();
    let scales = runs.map(|run| run.iter().fold(0.0, |most, x| f32::max(most, x.abs())) / 31.0);
    let scales: Vec<f32> = scales.collect();
    let d = f16::from_f32(scales.iter().copied().fold(1e-4, f32::max) / 127.0);
    let steps = scales
        .iter()
        .map(|scale| (scale / d.to_f32()).round().min(127.0) as i8);
    let steps: Vec<i8> = steps.collect();
    let q = |i: usize| {
        let scale = (d.to_f32() * f32::from(steps[i / 16])).max(1e-12);
        ((x[i] / scale).round().clamp(-32.0, 31.0) + 32.0) as u8
    };
    let mut bytes = Vec::new();
    for half in [0, 128] {
        bytes.extend((0..64).map(|l| q(half + l) & 15 | (q(half + 64 + l) & 15) << 4));
    }
    for half in [0, 128] {
        bytes.extend((0..32).map(|l| {
            let upper = |quarter: usize| q(half + quarter * 32 + l) >> 4 << (2 * quarter);
            (0..4).map(upper).sum::<u8>()
        }));
    }
    bytes.extend(steps.iter().map(|step| step.cast_unsigned()));
    bytes.extend(d.to_le_bytes());
    bytes
}

fn value_of_six_bits(block: &[u8], i: usize) -> f32 {
    let (half_of, quarter, l) = (i / 128, i % 128 / 32, i % 32);
    let low = block[half_of * 64 + i % 64] >> (quarter / 2 * 4) & 15;
    let upper = block[128 + half_of * 32 + l] >> (2 * quarter) & 3;
    let scale = f32::from(block[192 + i / 16].cast_signed());
    half(block, 208) * scale * (f32::from(low + 16 * upper) - 32.0)
}
