//! The kernels that tokens are made of, each on each instruction set of this CPU, after a comparison with the scalar reference.

use std::io::Write;
use std::time::{Duration, Instant};

use half::f16;
use kernels::attention::{KvSegment, attend_part, combine, int8, part_keys, part_len};
use kernels::quant::{Format, Q8Activations, Quantized, Roundings, quantize, store_rows};
use kernels::quantized::{matmul, matvec, quantize_activations};
use kernels::{Isa, Matrix, Pool, matmul as matrices};
use serde::Serialize;

use super::{Bench, median, noise};
use crate::cli::failure::{Failure, exit};
use crate::cli::output::publish;
use crate::pipeline::EngineError;

/// How long one figure is measured.
const MEASURED: Duration = Duration::from_millis(300);
/// As wide as the text model of E2B, and more rows than the caches of a board hold.
const COLS: usize = 2048;
const ROWS: usize = 8192;
/// Rows that are quantised; the others repeat them.
const QUANTIZED_ROWS: usize = 512;
/// A product of matrices, as prefill has them.
const PREFILL_ROWS: usize = 512;
const PREFILL_TOKENS: usize = 32;
/// Query heads that share a key/value head, and their width, in the layers that see a long context: Gemma 3n's and Gemma 4's E2B.
const ATTENTION: [(usize, usize); 2] = [(4, 256), (8, 512)];
const KEYS: usize = 16_384;

#[derive(Serialize)]
struct Report {
    /// The instruction set that a model would run with here.
    chosen: &'static str,
    threads: usize,
    kernels: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    kernel: String,
    isa: &'static str,
    median_us: f64,
    /// Weights, or keys and values, read, 10^9 bytes a second.
    gb_s: f64,
    /// Multiplications with addition, 10^9 a second.
    gmac_s: f64,
}

impl Bench {
    pub(super) fn kernels(&self) -> Result<(), Failure> {
        let chosen = Isa::from_environment().map_err(EngineError::from)?;
        let pools: Vec<Pool> = Isa::available()
            .into_iter()
            .map(|isa| Pool::new(isa, self.threads()))
            .collect();
        let mut report = Report {
            chosen: chosen.name(),
            threads: self.threads(),
            kernels: Vec::new(),
        };
        let mut random = noise();
        let weights: Vec<f32> = random.by_ref().take(QUANTIZED_ROWS * COLS).collect();
        let x: Vec<f32> = random.take(PREFILL_TOKENS * COLS).collect();
        for (name, format) in [("q4", Format::Q4Tiled), ("q8", Format::Q8Tiled)] {
            let bytes = stored(&pools, format, &weights)?;
            let matrix = Quantized::new(format, &bytes, ROWS, COLS).ok_or_else(broken)?;
            let few = matrix.slice_rows(0, PREFILL_ROWS);
            report.kernels.extend(measured(
                &pools,
                &format!("{name} matvec {ROWS}x{COLS} (decode)"),
                (bytes.len(), ROWS * COLS),
                ROWS,
                &mut |pool, y| {
                    let mut q = Q8Activations::new();
                    quantize_activations(pool, &x[..COLS], 1, COLS, &mut q);
                    matvec::matvec(pool, matrix, &q, y);
                },
            )?);
            report.kernels.extend(measured(
                &pools,
                &format!("{name} matmul {PREFILL_ROWS}x{COLS}, {PREFILL_TOKENS} tokens (prefill)"),
                (
                    bytes.len() / ROWS * PREFILL_ROWS,
                    PREFILL_ROWS * COLS * PREFILL_TOKENS,
                ),
                PREFILL_ROWS * PREFILL_TOKENS,
                &mut |pool, y| {
                    let mut q = Q8Activations::new();
                    quantize_activations(pool, &x, PREFILL_TOKENS, COLS, &mut q);
                    matmul::matmul(pool, few, &q, y);
                },
            )?);
        }
        for (name, format) in [
            ("q2", Format::Q2RowScaled),
            ("q4", Format::Q4RowScaled),
            ("q8", Format::Q8RowScaled),
        ] {
            report
                .kernels
                .extend(row_scaled(&pools, name, format, &weights, &x)?);
        }
        for shape in ATTENTION {
            report
                .kernels
                .extend(attention(&pools, shape, &weights, &x)?);
        }
        publish(&report, self.json, print)
    }
}

/// Products with trained integers, which round their inputs and outputs.
fn row_scaled(
    pools: &[Pool],
    name: &str,
    format: Format,
    weights: &[f32],
    x: &[f32],
) -> Result<Vec<Figure>, Failure> {
    let (least, most) = format.range();
    let integers = weights[..QUANTIZED_ROWS * COLS].iter();
    let integers: Vec<i8> = integers
        .map(|w| (w * f32::from(most)).clamp(f32::from(least), f32::from(most)) as i8)
        .collect();
    let len = format.matrix_bytes(QUANTIZED_ROWS, COLS);
    let mut bytes = vec![0; len.ok_or_else(broken)?];
    let scales = vec![0.02; QUANTIZED_ROWS];
    store_rows(format, &integers, &scales, QUANTIZED_ROWS, COLS, &mut bytes);
    let bytes = bytes.repeat(ROWS / QUANTIZED_ROWS);
    let (input, output) = (0.03, 0.1);
    let matrix = Quantized::new(format, &bytes, ROWS, COLS)
        .ok_or_else(broken)?
        .with_roundings(Roundings { input, output });
    let mut figures = Vec::new();
    for (kind, rows, tokens) in [
        ("matvec", ROWS, 1),
        ("matmul", PREFILL_ROWS, PREFILL_TOKENS),
    ] {
        let w = Matrix::quantized(matrix.slice_rows(0, rows));
        let name = match tokens {
            1 => format!("{name} row-scaled {kind} {rows}x{COLS} (decode)"),
            _ => format!("{name} row-scaled {kind} {rows}x{COLS}, {tokens} tokens"),
        };
        figures.extend(measured(
            pools,
            &name,
            (w.bytes(), rows * COLS * tokens),
            rows * tokens,
            &mut |pool, y| matrices::matmul(pool, w, &x[..tokens * COLS], tokens, y),
        )?);
    }
    Ok(figures)
}

/// Attention of one token over a long context, with keys and values of each type that boards use.
fn attention(
    pools: &[Pool],
    (heads, head_dim): (usize, usize),
    numbers: &[f32],
    q: &[f32],
) -> Result<Vec<Figure>, Failure> {
    let q: Vec<f32> = q[..heads * head_dim].iter().map(|q| q / 16.0).collect();
    let numbers: Vec<f32> = numbers
        .iter()
        .copied()
        .cycle()
        .take(KEYS * head_dim)
        .collect();
    let halves: Vec<f16> = numbers.iter().copied().map(f16::from_f32).collect();
    let row = int8::row_len(head_dim);
    let mut bytes = vec![0; KEYS * row];
    for (from, to) in numbers.chunks(head_dim).zip(bytes.chunks_mut(row)) {
        int8::quantize(from, to);
    }
    // Keys and values lie apart, as they do in a cache.
    let (other_halves, other_bytes) = (halves.clone(), bytes.clone());
    let matrix = |data| Matrix::f16(data, KEYS, head_dim);
    let types = [
        (
            "f16",
            KvSegment::new(matrix(&halves), matrix(&other_halves)),
            2 * head_dim,
        ),
        ("int8", KvSegment::int8(&bytes, &other_bytes, head_dim), row),
    ];
    let (part, in_part) = (part_len(heads, head_dim), part_keys(KEYS));
    let mut figures = Vec::new();
    for (name, segment, row_bytes) in types {
        figures.extend(measured(
            pools,
            &format!("attention {heads}x{head_dim}, {name}, {KEYS} keys (decode)"),
            (2 * KEYS * row_bytes, 2 * heads * KEYS * head_dim),
            heads * head_dim,
            &mut |pool, out| {
                let mut parts = vec![0.0; KEYS.div_ceil(in_part) * part];
                pool.for_each_chunk_mut(&mut parts, part, &|i, part| {
                    let keys = i * in_part..KEYS.min((i + 1) * in_part);
                    attend_part(pool.isa(), &q, head_dim, 1.0, &[segment], keys, part);
                });
                combine(pool.isa(), &parts, head_dim, out);
            },
        )?);
    }
    Ok(figures)
}

fn broken() -> Failure {
    Failure::new(exit::SOFTWARE, "a block format and its size disagree")
}

/// A matrix of `ROWS` rows in `format`, in memory of its own.
fn stored(pools: &[Pool], format: Format, weights: &[f32]) -> Result<Vec<u8>, Failure> {
    let pool = pools.last().ok_or_else(broken)?;
    let len = format
        .matrix_bytes(QUANTIZED_ROWS, COLS)
        .ok_or_else(broken)?;
    let mut bytes = vec![0; len];
    quantize(pool, format, weights, QUANTIZED_ROWS, COLS, &mut bytes)
        .map_err(|error| Failure::new(exit::SOFTWARE, error))?;
    Ok(bytes.repeat(ROWS / QUANTIZED_ROWS))
}

/// Compares and times `kernel(pool, out)`, `out` having `len` elements; `work` is weight bytes and multiplications.
fn measured(
    pools: &[Pool],
    name: &str,
    work: (usize, usize),
    len: usize,
    kernel: &mut dyn FnMut(&Pool, &mut [f32]),
) -> Result<Vec<Figure>, Failure> {
    let mut expected = vec![0.0; len];
    kernel(&Pool::new(Isa::scalar(), 1), &mut expected);
    let mut figures = Vec::new();
    for pool in pools {
        let mut out = vec![0.0; len];
        let mut times = Vec::new();
        let start = Instant::now();
        while times.is_empty() || start.elapsed() < MEASURED {
            out.fill(0.0);
            let before = Instant::now();
            kernel(pool, &mut out);
            times.push(before.elapsed().as_secs_f64());
        }
        if out != expected {
            return Err(Failure::new(
                exit::SOFTWARE,
                format_args!(
                    "{name} on {}: the result is not the scalar reference's; please report this",
                    pool.isa()
                ),
            ));
        }
        let median_s = median(times.into_iter());
        figures.push(Figure {
            kernel: name.to_owned(),
            isa: pool.isa().name(),
            median_us: median_s * 1e6,
            gb_s: work.0 as f64 / median_s / 1e9,
            gmac_s: work.1 as f64 / median_s / 1e9,
        });
    }
    Ok(figures)
}

fn print(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "chosen here: {}; {} threads; every result equal to the scalar reference",
        report.chosen, report.threads
    )?;
    writeln!(
        out,
        "{:<46}{:<12}{:>12}{:>9}{:>9}",
        "kernel", "isa", "us", "GB/s", "GMAC/s"
    )?;
    for figure in &report.kernels {
        writeln!(
            out,
            "{:<46}{:<12}{:>12.1}{:>9.2}{:>9.2}",
            figure.kernel, figure.isa, figure.median_us, figure.gb_s, figure.gmac_s
        )?;
    }
    Ok(())
}
