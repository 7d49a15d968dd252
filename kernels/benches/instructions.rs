//! Runs each kernel on fixed numbers and one thread, for whoever counts the instructions that it takes.
//!
//! `benches/instruction-counts.py` runs it on emulated CPUs and compares the counts with `kernels/benches/record/`. Before
//! and after each kernel stands a system call that is needed for nothing else, `getppid`: the mark that the counter waits for
//! (`benches/instruction-counter.c`). A line on standard output tells what was between the two. That results are right is
//! what `kernels/tests/agreement/` is for.

#![allow(clippy::print_stdout, reason = "its lines are what the counter reads")]

use std::hint::black_box;
use std::os::unix::process::parent_id;

use half::{bf16, f16};
use kernels::attention::{
    Int8Memory, KvSegment, Queries, attend, attend_all, attend_all_int8, attend_tile, int8,
    part_len,
};
use kernels::conv::{Window, depthwise_row, patch};
use kernels::matmul::{gelu_gated, matmul as matmul_floats};
use kernels::quant::{Format, Q8Activations, Quantized, Roundings, quantize, store_rows};
use kernels::quantized::{accumulate_rows, matmul, matvec, matvec_rows, quantize_activations};
use kernels::{
    Inputs, Isa, Matrix, Pool, elementwise, gelu, rms_norm, rope, softmax, sparse, widen,
};

/// As wide as the text model of E2B.
const COLS: usize = 2048;
/// Groups of 32 weights in a row.
const BLOCKS: usize = COLS / 32;
/// Few enough for an emulator, enough for the way to the kernel not to count.
const ROWS: usize = 128;
/// Tokens of a prefill.
const TOKENS: usize = 128;
/// Tokens of an answer that are looked at together, and of a prefill.
const SEVERAL: [usize; 5] = [2, 3, 4, 8, TOKENS];
/// Tokens that are few enough for the tokens' own float kernels.
const FEW_TOKENS: usize = 16;
/// The heads that share one key/value head of E2B, and what they look at.
const HEADS: usize = 4;
const HEAD_DIM: usize = 256;
const KEYS: usize = 384;
/// Calls between two marks.
const CALLS: usize = 4;

fn main() {
    let isa = Isa::from_environment().unwrap_or_else(|error| panic!("{error}"));
    let pool = Pool::new(isa, 1);
    println!("isa\t{isa}");
    products(&pool);
    row_scaled_products(&pool);
    feed_forward(&pool);
    picked_rows(&pool);
    float_products(&pool);
    attention(&pool);
    convolutions(isa);
    elements(isa);
    reductions(isa);
}

/// Calls `kernel` between two marks, after a first time for what only that one does, and tells its name, what it is counted
/// in and how many of those there were.
fn counted(name: &str, unit: &str, units: usize, mut kernel: impl FnMut()) {
    kernel();
    black_box(parent_id());
    for _ in 0..CALLS {
        kernel();
    }
    black_box(parent_id());
    println!("{name}\t{unit}\t{}", units * CALLS);
}

fn products(pool: &Pool) {
    let source = random(ROWS * COLS);
    let x = random(TOKENS * COLS);
    let (mut one, mut many) = (Q8Activations::new(), Q8Activations::new());
    counted("quantize_activations 1 token", "32 numbers", BLOCKS, || {
        quantize_activations(pool, black_box(&x[..COLS]), 1, COLS, &mut one);
    });
    let blocks = BLOCKS * TOKENS;
    counted(
        "quantize_activations 128 tokens",
        "32 numbers",
        blocks,
        || {
            quantize_activations(pool, black_box(&x), TOKENS, COLS, &mut many);
        },
    );
    for (name, format) in [("q4", Format::Q4Tiled), ("q8", Format::Q8Tiled)] {
        let bytes = stored(pool, format, &source);
        let w = view(format, &bytes);
        let mut y = vec![0.0; ROWS];
        let kernel = format!("matvec {name}");
        counted(&kernel, "32 weights", ROWS * BLOCKS, || {
            matvec::matvec(pool, w, black_box(&one), &mut y);
        });
        black_box(&y);
        let mut y = vec![0.0; TOKENS * ROWS];
        for tokens in SEVERAL {
            let (x, y) = (&x[..tokens * COLS], &mut y[..tokens * ROWS]);
            quantize_activations(pool, x, tokens, COLS, &mut many);
            let kernel = format!("matmul {name} {tokens} tokens");
            let units = ROWS * BLOCKS * tokens;
            counted(&kernel, "32 weights x token", units, || {
                matmul::matmul(pool, w, black_box(&many), y);
            });
        }
        black_box(&y);
    }
}

/// Trained integers with one scale a row. A product rounds its inputs, which a matrix without rows does alone; those with them
/// have as many rows as a real one, so that this does not count.
fn row_scaled_products(pool: &Pool) {
    const ROWS: usize = 1024;
    let x = random(TOKENS * COLS);
    let mut y = vec![0.0; TOKENS * ROWS];
    for (name, format, steps, rows) in [
        ("round_activations", Format::Q2RowScaled, 2.0, 0),
        ("q2_row_scaled", Format::Q2RowScaled, 2.0, ROWS),
        ("q4_row_scaled", Format::Q4RowScaled, 8.0, ROWS),
        ("q8_row_scaled", Format::Q8RowScaled, 128.0, ROWS),
    ] {
        let integers = random(rows * COLS).into_iter();
        let integers: Vec<i8> = integers.map(|w| (w * steps).floor() as i8).collect();
        let mut bytes = vec![0; format.matrix_bytes(rows, COLS).unwrap_or_default()];
        let scales = vec![0.01; rows];
        store_rows(format, &integers, &scales, rows, COLS, &mut bytes);
        let (input, output) = (1.0 / 127.0, 0.01);
        let w = Quantized::new(format, &bytes, rows, COLS)
            .map(|w| Matrix::quantized(w.with_roundings(Roundings { input, output })));
        let Some(w) = w else {
            panic!("as many bytes as the format asks for");
        };
        let (unit, of) = match rows {
            0 => ("32 numbers", BLOCKS),
            _ => ("32 weights x token", rows * BLOCKS),
        };
        for tokens in [1].into_iter().chain(SEVERAL) {
            let kernel = format!("{name} {tokens} tokens");
            counted(&kernel, unit, of * tokens, || {
                let (x, y) = (&x[..tokens * COLS], &mut y[..tokens * rows]);
                matmul_floats(pool, w, black_box(x), tokens, y);
            });
        }
    }
    black_box(&y);
}

/// What a layer does with its stream before and in a dense feed-forward network: norm and quantise, gate, up and activation.
fn feed_forward(pool: &Pool) {
    let x = random(TOKENS * COLS);
    let weight = random(COLS);
    let mut inputs = Inputs::new(TOKENS, COLS);
    let blocks = BLOCKS * TOKENS;
    let row = |token: usize| &x[token * COLS..][..COLS];
    counted("norm_and_quantize", "32 numbers", blocks, || {
        inputs.norm(pool, TOKENS, &row, black_box(&weight), 1e-6, true);
    });
    let bytes = stored(pool, Format::Q4Tiled, &random(ROWS * COLS));
    let w = Matrix::quantized(view(Format::Q4Tiled, &bytes));
    let (mut y, mut room) = (vec![0.0; TOKENS * ROWS], vec![0.0; TOKENS * ROWS]);
    let kernel = "gelu_gated q4 128 tokens";
    counted(kernel, "32 weights x token", 2 * ROWS * blocks, || {
        gelu_gated(pool, w, w, black_box(&inputs), &mut y, &mut room);
    });
    black_box(&y);
}

/// The sparse feed-forward's: one neuron in four here, so that a count rests on enough of them.
fn picked_rows(pool: &Pool) {
    let source = random(ROWS * COLS);
    let x = random(COLS);
    let mut q = Q8Activations::new();
    quantize_activations(pool, &x, 1, COLS, &mut q);
    let active: Vec<u32> = (0..ROWS as u32).step_by(4).collect();
    let blocks = active.len() * BLOCKS;
    for (name, format) in [("q4", Format::Q4Rows), ("q8", Format::Q8Rows)] {
        let bytes = stored(pool, format, &source);
        let w = view(format, &bytes);
        let mut y = vec![0.0; active.len()];
        counted(&format!("matvec_rows {name}"), "32 weights", blocks, || {
            matvec_rows::matvec_rows(pool, w, black_box(&active), &q, &mut y);
        });
        black_box(&y);
        let mut y = vec![0.0; COLS];
        let kernel = format!("accumulate_rows {name}");
        counted(&kernel, "32 weights", blocks, || {
            accumulate_rows(pool, w, black_box(&active), &x[..active.len()], &mut y);
        });
        black_box(&y);
    }
}

/// Of a checkpoint as it was published, and of the towers.
fn float_products(pool: &Pool) {
    let weights: Vec<bf16> = random(ROWS * COLS)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let w = Matrix::bf16(&weights, ROWS, COLS);
    let x = random(FEW_TOKENS * COLS);
    let mut y = vec![0.0; FEW_TOKENS * ROWS];
    counted("matvec bf16", "32 weights", ROWS * BLOCKS, || {
        matmul_floats(pool, w, black_box(&x[..COLS]), 1, &mut y[..ROWS]);
    });
    let picked: Vec<u32> = (0..COLS as u32).step_by(4).collect();
    let blocks = ROWS * BLOCKS / 4;
    counted("matvec_columns bf16", "32 weights", blocks, || {
        let values = black_box(&x[..picked.len()]);
        sparse::matvec_columns(pool, w, &picked, values, &mut y[..ROWS]);
    });
    let blocks = ROWS * BLOCKS * FEW_TOKENS;
    counted(
        "matmul bf16 16 tokens",
        "32 weights x token",
        blocks,
        || {
            matmul_floats(pool, w, black_box(&x), FEW_TOKENS, &mut y);
        },
    );
    black_box(&y);
}

/// Heads that share a key/value head, of one token as it is decoded and of a few as they are prefilled.
struct Shape {
    tokens: usize,
    heads: usize,
    head_dim: usize,
}

fn attention(pool: &Pool) {
    let shape = |tokens, heads, head_dim| Shape {
        tokens,
        heads,
        head_dim,
    };
    // E2B and E4B of Gemma 3n, then the full and the sliding layers of E2B of Gemma 4.
    attend_shape(pool.isa(), shape(1, HEADS, HEAD_DIM));
    attend_shape(pool.isa(), shape(8, HEADS, HEAD_DIM));
    attend_shape(pool.isa(), shape(1, 8, 512));
    attend_shape(pool.isa(), shape(4, 8, 512));
    let (heads, head_dim) = (2, 64);
    let rows = random(KEYS * heads * head_dim);
    let matrix = Matrix::f32(&rows, KEYS, heads * head_dim);
    let mut out = vec![0.0; rows.len()];
    counted(
        "attend_all 2x64",
        "key x query x head",
        KEYS * KEYS * heads,
        || {
            attend_all(pool, black_box(&rows), matrix, matrix, heads, 1.0, &mut out);
        },
    );
    let made = || Int8Memory::new(pool, [black_box(&rows); 2], KEYS, heads, [head_dim; 2]);
    let memory = made();
    counted(
        "attend_all int8 2x64",
        "key x query x head",
        KEYS * KEYS * heads,
        || {
            attend_all_int8(pool, black_box(&rows), &memory, 1.0, &mut out);
        },
    );
    counted(
        "Int8Memory::new 2x64",
        "32 numbers",
        2 * rows.len() / 32,
        || {
            black_box(made());
        },
    );
    black_box(&out);
}

fn attend_shape(isa: Isa, shape: Shape) {
    let Shape {
        tokens,
        heads,
        head_dim,
    } = shape;
    let keys = random(KEYS * head_dim);
    let mut keys_8 = vec![0; KEYS * int8::row_len(head_dim)];
    for (from, to) in keys
        .chunks_exact(head_dim)
        .zip(keys_8.chunks_exact_mut(int8::row_len(head_dim)))
    {
        int8::quantize(from, to);
    }
    let keys: Vec<f16> = keys.into_iter().map(f16::from_f32).collect();
    let keys = Matrix::f16(&keys, KEYS, head_dim);
    let q = random(tokens * heads * head_dim);
    let queries = Queries {
        q: &q,
        stride: heads * head_dim,
        heads,
        head_dim,
        scale: 0.1,
    };
    let one = Pool::new(isa, 1);
    let len = part_len(heads, head_dim);
    let mut parts = vec![0.0; tokens * len];
    let mut out = vec![0.0; q.len()];
    for (format, segment) in [
        ("f16", KvSegment::new(keys, keys)),
        ("int8", KvSegment::int8(&keys_8, &keys_8, head_dim)),
    ] {
        let of = if tokens == 1 {
            String::new()
        } else {
            format!("{tokens} tokens ")
        };
        let name = format!("attend {format} {of}{heads}x{head_dim}, {KEYS} keys");
        counted(&name, "key x head", KEYS * heads * tokens, || {
            if tokens == 1 {
                attend(isa, black_box(&q), head_dim, 0.1, &[segment], &mut out);
            } else {
                one.for_each_tile_mut(&mut parts, len, tokens, len, &|_, _, parts| {
                    let seen = vec![0..KEYS; tokens];
                    attend_tile(isa, black_box(queries), &[segment], &seen, parts);
                });
            }
        });
    }
    black_box((&out, &parts));
}

/// A row of pixels in the middle of a picture of a camera, as it meets the towers' second stage.
fn convolutions(isa: Isa) {
    let window = Window {
        kernel: 5,
        stride: 1,
        before: 0,
        input_width: 64,
        output_width: 60,
        channels: 256,
    };
    let taps = window.kernel * window.kernel;
    let input = random(window.kernel * window.input_width * window.channels);
    let weight = random(taps * window.channels);
    let mut out = vec![0.0; window.output_width * window.channels];
    let products = out.len() * taps / 32;
    counted("depthwise_row 5x5", "32 products", products, || {
        depthwise_row(isa, &window, black_box(&weight), &input, 0, &mut out);
    });
    let mut out = vec![0.0; taps * window.channels];
    counted("patch 5x5", "32 numbers", out.len() / 32, || {
        patch(&window, black_box(&input), 0, 7, &mut out);
    });
    black_box(&out);
}

/// Each starts from the same numbers in every call: `exp` of what grows from call to call would take other ways.
fn elements(isa: Isa) {
    let start = random(COLS);
    let other = random(COLS);
    let mut x = start.clone();
    let mut each = |name: &str, kernel: &dyn Fn(&mut [f32])| {
        counted(name, "32 numbers", BLOCKS, || {
            x.copy_from_slice(black_box(&start));
            kernel(&mut x);
        });
        black_box(&x);
    };
    each("rms_norm", &|x| {
        rms_norm::rms_norm_in_place(isa, x, Some(&other), 1e-6);
    });
    each("gelu_tanh_mul", &|x| gelu::gelu_tanh_mul(isa, x, &other));
    each("softmax", &|x| softmax::softmax(isa, x));
    each("rope 8x256", &|x| {
        rope::rope(
            isa,
            x,
            &other[..HEAD_DIM / 2],
            &other[HEAD_DIM / 2..HEAD_DIM],
        );
    });
    each("add", &|x| elementwise::add(isa, x, &other));
    each("scale", &|x| elementwise::scale(isa, x, 0.5));
    each("sigmoid", &|x| elementwise::sigmoid(isa, x));
    each("silu", &|x| elementwise::silu(isa, x));
    each("soft_cap", &|x| elementwise::soft_cap(isa, x, 30.0));
}

/// Few numbers out of many, and numbers in another format.
fn reductions(isa: Isa) {
    let (x, other) = (random(COLS), random(COLS));
    counted("dot", "32 numbers", BLOCKS, || {
        black_box(elementwise::dot(isa, black_box(&x), &other));
    });
    counted("mean_and_deviation", "32 numbers", BLOCKS, || {
        black_box(elementwise::mean_and_deviation(isa, black_box(&x)));
    });
    let mut row = vec![0; int8::row_len(COLS)];
    counted("int8::quantize", "32 numbers", BLOCKS, || {
        int8::quantize(black_box(&x), &mut row);
    });
    let mut half = vec![f16::ZERO; COLS];
    counted("to_f16", "32 numbers", BLOCKS, || {
        widen::to_f16(isa, black_box(&x), &mut half);
    });
    let mut wide = vec![0.0; COLS];
    counted("widen::row f16", "32 numbers", BLOCKS, || {
        widen::row(isa, Matrix::f16(black_box(&half), 1, COLS), 0, &mut wide);
    });
    black_box((&row, &wide));
}

/// A matrix of [`ROWS`] rows in `format`.
fn stored(pool: &Pool, format: Format, source: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; format.matrix_bytes(ROWS, COLS).unwrap_or_default()];
    if let Err(error) = quantize(pool, format, source, ROWS, COLS, &mut bytes) {
        panic!("{error}");
    }
    bytes
}

fn view(format: Format, bytes: &[u8]) -> Quantized<'_> {
    match Quantized::new(format, bytes, ROWS, COLS) {
        Some(view) => view,
        None => panic!("as many bytes as the format asks for"),
    }
}

/// The same numbers between -1 and 1 in every run.
fn random(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
