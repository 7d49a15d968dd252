//! Times each kernel on each instruction set of this CPU, after checking its result against the scalar reference.
//!
//! `cargo bench -p gemmad-kernels -- [threads] [word ...]`: on that many threads (default: all big cores), only kernels whose
//! name contains one of the words; with `GEMMAD_ISA`, only on that instruction set. Figures are medians of elapsed time, or on one thread means of processor time, which can be
//! trusted on a shared machine too.

#![allow(
    clippy::print_stdout,
    reason = "a table on the terminal is what it is for"
)]

mod oversubscribed;
mod quantized;

use std::time::Instant;

use half::{bf16, f16};
use kernels::attention::{
    KvSegment, Queries, attend, attend_all, attend_part, attend_tile, combine, int8, part_len,
};
use kernels::matmul::{matmul, matmul_in_any_order};
use kernels::recommended_threads;
use kernels::{Isa, Matrix, Pool, elementwise, gelu, rms_norm, rope, softmax};

/// How long one figure is measured.
const SECONDS: f64 = 0.3;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let threads = words.iter().find_map(|word| word.parse().ok());
    let wanted: Vec<String> = words
        .into_iter()
        .filter(|word| word.parse::<usize>().is_err())
        .collect();
    let isas = match std::env::var(kernels::FORCE_VARIABLE) {
        Ok(name) => vec![Isa::by_name(&name).unwrap_or_else(|error| panic!("{error}"))],
        Err(_) => Isa::available(),
    };
    let isas = isas.into_iter();
    let bench = Bench {
        pools: isas
            .map(|isa| Pool::new(isa, threads.unwrap_or(recommended_threads())))
            .collect(),
        scalar: Pool::new(Isa::scalar(), 1),
        wanted,
    };
    println!(
        "{:34} {:11} {:>7} {:>11} {:>8} {:>9}",
        "kernel", "isa", "threads", "us", "GB/s", "GFLOP/s"
    );
    bench.pool();
    bench.memory();
    bench.products();
    bench.quantized();
    bench.attention();
    bench.attention_of_tokens();
    bench.attention_of_all();
    bench.elements();
    bench.oversubscribed();
}

struct Bench {
    pools: Vec<Pool>,
    scalar: Pool,
    wanted: Vec<String>,
}

/// What one call reads, and computes.
struct Work {
    bytes: usize,
    flops: usize,
}

impl Bench {
    /// Whether a kernel was asked for.
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|word| name.contains(word))
    }

    /// Checks and times `f(pool, out)` on every instruction set; `out` starts as `start` in every call.
    fn kernel(
        &self,
        name: &str,
        work: Work,
        tolerance: f32,
        start: &[f32],
        f: impl Fn(&Pool, &mut [f32]),
    ) {
        if !self.wants(name) {
            return;
        }
        let mut expected = start.to_vec();
        f(&self.scalar, &mut expected);
        for pool in &self.pools {
            let mut out = start.to_vec();
            f(pool, &mut out);
            for (i, (&got, &expected)) in out.iter().zip(&expected).enumerate() {
                assert!(
                    (got - expected).abs() <= tolerance * (1.0 + expected.abs()),
                    "{name} {}: element {i} is {got}, the reference says {expected}",
                    pool.isa()
                );
            }
            let micros = micros(pool.threads(), || {
                out.copy_from_slice(start);
                let before = Instant::now();
                f(pool, &mut out);
                before.elapsed().as_secs_f64()
            });
            let rate = |amount: usize| amount as f64 / micros / 1e3;
            println!(
                "{name:34} {:11} {:>7} {micros:>11.2} {:>8.1} {:>9.1}",
                pool.isa().name(),
                pool.threads(),
                rate(work.bytes),
                rate(work.flops)
            );
        }
    }

    /// An empty run: what handing tasks to the team costs.
    fn pool(&self) {
        let tasks = 16;
        let Some(pool) = self.pools.last() else {
            return;
        };
        let micros = micros(pool.threads(), || {
            let before = Instant::now();
            for _ in 0..100 {
                pool.run(tasks, &|task| {
                    std::hint::black_box(task);
                });
            }
            before.elapsed().as_secs_f64() / 100.0
        });
        println!(
            "{:34} {:11} {:>7} {micros:>11.2}",
            format!("empty run, {tasks} tasks"),
            "",
            pool.threads()
        );
    }

    /// Reads more than the caches hold: the bandwidth that decoding is up against.
    fn memory(&self) {
        let data = vec![1.0f32; 64 << 20];
        let Some(pool) = self.pools.last() else {
            return;
        };
        let mut sums = vec![0.0; 256];
        let micros = micros(pool.threads(), || {
            let before = Instant::now();
            pool.for_each_chunk_mut(&mut sums, 1, &|chunk, sum| {
                let len = data.len() / 256;
                sum[0] = elementwise::sum(pool.isa(), &data[chunk * len..][..len]);
            });
            before.elapsed().as_secs_f64()
        });
        assert!(sums.iter().all(|&sum| sum == (data.len() / 256) as f32));
        let rate = size_of_val(&data[..]) as f64 / micros / 1e3;
        println!(
            "{:34} {:11} {:>7} {micros:>11.2} {rate:>8.1}",
            "read memory, 256 MiB",
            pool.isa().name(),
            pool.threads()
        );
    }

    fn products(&self) {
        // Larger than the caches, as the weights of a token are.
        let (rows, cols) = (32768, 2048);
        let f32s = random(rows * cols);
        let bf16s: Vec<bf16> = f32s.iter().map(|&x| bf16::from_f32(x)).collect();
        let f16s: Vec<f16> = f32s.iter().map(|&x| f16::from_f32(x)).collect();
        let x = random(256 * cols);
        let matrices = [
            ("f32", Matrix::f32(&f32s, rows, cols), 4),
            ("bf16", Matrix::bf16(&bf16s, rows, cols), 2),
            ("f16", Matrix::f16(&f16s, rows, cols), 2),
        ];
        for (format, w, bytes) in matrices {
            let work = Work {
                bytes: rows * cols * bytes,
                flops: 2 * rows * cols,
            };
            let name = format!("matvec {format} {rows}x{cols}");
            self.kernel(&name, work, 1e-3, &vec![0.0; rows], |pool, y| {
                matmul(pool, w, &x[..cols], 1, y)
            });
        }
        let rows = 2048;
        for (format, w, bytes) in matrices {
            let w = w.rows(0..rows);
            for tokens in [1, 2, 4, 8, 12, 16, 64, 256] {
                let work = || Work {
                    bytes: rows * cols * bytes,
                    flops: 2 * rows * cols * tokens,
                };
                let name = format!("matmul {format} {rows}x{cols} t={tokens}");
                let x = &x[..tokens * cols];
                self.kernel(&name, work(), 1e-3, &vec![0.0; tokens * rows], |pool, y| {
                    matmul(pool, w, x, tokens, y)
                });
                if tokens >= 32 {
                    let name = format!("{name}, any order");
                    let start = vec![0.0; tokens * rows];
                    self.kernel(&name, work(), 1e-3, &start, |pool, y| {
                        matmul_in_any_order(pool, w, x, tokens, y)
                    });
                }
            }
        }
    }

    /// A few tokens of a prompt together.
    fn attention_of_tokens(&self) {
        for (tokens, heads, head_dim) in [(8, 4, 256), (4, 8, 256), (4, 8, 512), (8, 8, 512)] {
            let keys = 512;
            let k = random(keys * head_dim);
            let k16: Vec<f16> = k.iter().map(|&x| f16::from_f32(x)).collect();
            let q: Vec<f32> = random(tokens * heads * head_dim)
                .iter()
                .map(|x| x * 0.1)
                .collect();
            let queries = Queries {
                q: &q,
                stride: heads * head_dim,
                heads,
                head_dim,
                scale: 1.0,
            };
            let matrix = Matrix::f16(&k16, keys, head_dim);
            let segment = [KvSegment::new(matrix, matrix)];
            let work = Work {
                bytes: 4 * keys * head_dim,
                flops: 4 * tokens * heads * keys * head_dim,
            };
            let len = part_len(heads, head_dim);
            let seen = vec![0..keys; tokens];
            let name = format!("attend {tokens} tokens f16 {heads}x{head_dim}, {keys} keys");
            self.kernel(
                &name,
                work,
                1e-3,
                &vec![0.0; tokens * len],
                |pool, parts| {
                    pool.for_each_tile_mut(parts, len, tokens, len, &|_, _, parts| {
                        attend_tile(pool.isa(), queries, &segment, &seen, parts);
                    });
                },
            );
        }
    }

    /// Two heads of the vision tower of Gemma 4, over a picture of 280 soft tokens.
    fn attention_of_all(&self) {
        let (heads, head_dim, patches) = (2, 64, 2520);
        let width = heads * head_dim;
        let [q, k] = [random(patches * width), random(patches * width)];
        let k16: Vec<f16> = k.iter().map(|&x| f16::from_f32(x)).collect();
        for (format, k) in [
            ("f32", Matrix::f32(&k, patches, width)),
            ("f16", Matrix::f16(&k16, patches, width)),
        ] {
            let work = Work {
                bytes: 0,
                flops: 4 * width * patches * patches,
            };
            let name = format!("attend_all {format} 2x64, {patches}");
            self.kernel(&name, work, 1e-4, &vec![0.0; q.len()], |pool, out| {
                attend_all(pool, &q, k, k, heads, 1.0, out);
            });
        }
    }

    fn attention(&self) {
        for (heads, head_dim, keys) in [(4, 256, 512), (4, 256, 4096), (8, 512, 4096)] {
            let k = random(keys * head_dim);
            let k16: Vec<f16> = k.iter().map(|&x| f16::from_f32(x)).collect();
            let q: Vec<f32> = random(heads * head_dim).iter().map(|x| x * 0.1).collect();
            let mut k8 = vec![0; keys * int8::row_len(head_dim)];
            for (from, to) in k
                .chunks(head_dim)
                .zip(k8.chunks_mut(int8::row_len(head_dim)))
            {
                int8::quantize(from, to);
            }
            let floats = |matrix| KvSegment::new(matrix, matrix);
            for (format, segment, bytes) in [
                ("f32", floats(Matrix::f32(&k, keys, head_dim)), 4),
                ("f16", floats(Matrix::f16(&k16, keys, head_dim)), 2),
                ("int8", KvSegment::int8(&k8, &k8, head_dim), 1),
            ] {
                let segment = [segment];
                let work = || Work {
                    bytes: 2 * bytes * keys * head_dim,
                    flops: 4 * heads * keys * head_dim,
                };
                let start = vec![0.0; heads * head_dim];
                let name = format!("attend {format} {heads}x{head_dim}, {keys} keys");
                self.kernel(&name, work(), 1e-3, &start, |pool, out| {
                    attend(pool.isa(), &q, head_dim, 1.0, &segment, out);
                });
                let name = format!("attend in 8 parts {format} {heads}x{head_dim}, {keys}");
                let part_len = part_len(heads, head_dim);
                self.kernel(&name, work(), 1e-3, &start, |pool, out| {
                    let mut parts = vec![0.0; 8 * part_len];
                    pool.for_each_chunk_mut(&mut parts, part_len, &|i, part| {
                        let range = i * keys / 8..(i + 1) * keys / 8;
                        attend_part(pool.isa(), &q, head_dim, 1.0, &segment, range, part);
                    });
                    combine(pool.isa(), &parts, head_dim, out);
                });
            }
        }
    }

    /// On one thread, from the first-level cache.
    fn elements(&self) {
        let x = random(2048);
        let y = random(2048);
        let work = |reads: usize| Work {
            bytes: 4 * 2048 * reads,
            flops: 0,
        };
        self.kernel("add 2048", work(2), 0.0, &x, |pool, x| {
            elementwise::add(pool.isa(), x, &y)
        });
        self.kernel("dot 2048", work(2), 1e-4, &[0.0], |pool, out| {
            out[0] = elementwise::dot(pool.isa(), &x, &y)
        });
        self.kernel("rms_norm 2048", work(2), 1e-5, &x, |pool, x| {
            rms_norm::rms_norm_in_place(pool.isa(), x, Some(&y), 1e-6);
        });
        self.kernel("softmax 2048", work(1), 1e-5, &x, |pool, x| {
            softmax::softmax(pool.isa(), x)
        });
        self.kernel("gelu_tanh_mul 2048", work(2), 1e-5, &x, |pool, x| {
            gelu::gelu_tanh_mul(pool.isa(), x, &y)
        });
        self.kernel("silu 2048", work(1), 1e-5, &x, |pool, x| {
            elementwise::silu(pool.isa(), x)
        });
        self.kernel("tanh 2048", work(1), 1e-5, &x, |pool, x| {
            elementwise::tanh(pool.isa(), x)
        });
        self.kernel("rope 8x256", work(1), 1e-5, &x, |pool, x| {
            rope::rope(pool.isa(), x, &y[..128], &y[128..256]);
        });
    }
}

/// What a call of `f` takes, in microseconds, over a number of calls that takes about [`SECONDS`]: the median of the seconds
/// that `f` returns, or for one thread the mean of its processor time, which other programs do not stretch.
fn micros(threads: usize, mut f: impl FnMut() -> f64) -> f64 {
    let first = f().max(1e-9);
    let repeats = ((SECONDS / first) as usize).clamp(5, 20_000);
    let before = processor_seconds();
    let mut seconds: Vec<f64> = (0..repeats).map(|_| f()).collect();
    if let (1, Some(before), Some(after)) = (threads, before, processor_seconds()) {
        return (after - before) / repeats as f64 * 1e6;
    }
    seconds.sort_by(f64::total_cmp);
    seconds[repeats / 2] * 1e6
}

/// Processor time of this thread so far, where Linux says.
fn processor_seconds() -> Option<f64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos: f64 = schedstat.split(' ').next()?.parse().ok()?;
    Some(nanos / 1e9)
}

/// Repeatable numbers between -1 and 1.
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
