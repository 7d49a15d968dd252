//! Quantised products, at the shapes of Gemma 3n E2B.

use kernels::quant::{Format, Q8Activations, Quantized, quantize};
use kernels::quantized::{accumulate_rows, matmul, matvec, matvec_rows, quantize_activations};

use crate::{Bench, Work, random};

/// What [`quantize`] made, in memory that kernels may take for mapped.
struct Stored {
    format: Format,
    bytes: Vec<u8>,
    rows: usize,
    cols: usize,
}

impl Stored {
    fn new(bench: &Bench, format: Format, source: &[f32], rows: usize, cols: usize) -> Stored {
        let len = format.matrix_bytes(rows, cols).unwrap_or_default();
        let mut bytes = vec![0; len];
        let pool = bench.pools.last().unwrap_or(&bench.scalar);
        if let Err(error) = quantize(pool, format, source, rows, cols, &mut bytes) {
            panic!("{error}");
        }
        Stored {
            format,
            bytes,
            rows,
            cols,
        }
    }

    fn view(&self) -> Quantized<'_> {
        match Quantized::new(self.format, &self.bytes, self.rows, self.cols) {
            Some(view) => view,
            None => panic!("as many bytes as the format asks for"),
        }
    }
}

impl Bench {
    pub(crate) fn quantized(&self) {
        let (rows, cols) = (65536, 2048);
        let source = random(rows * cols);
        let x = random(128 * cols);
        for (name, format) in [("q4", Format::Q4Tiled), ("q8", Format::Q8Tiled)] {
            let stored = Stored::new(self, format, &source, rows, cols);
            let w = stored.view();
            let work = |rows: usize, tokens: usize| Work {
                bytes: stored.bytes.len() / stored.rows * rows,
                flops: 2 * rows * cols * tokens,
            };
            // Larger than the caches, as the weights of a token are. The results are to be equal.
            let matvec_name = format!("matvec {name} {rows}x{cols}");
            self.kernel(
                &matvec_name,
                work(rows, 1),
                0.0,
                &vec![0.0; rows],
                |pool, y| {
                    let mut q = Q8Activations::new();
                    quantize_activations(pool, &x[..cols], 1, cols, &mut q);
                    matvec::matvec(pool, w, &q, y);
                },
            );
            let few = w.slice_rows(0, 2048);
            for tokens in [2, 4, 8, 16, 32, 128] {
                let name = format!("matmul {name} 2048x{cols} t={tokens}");
                let x = &x[..tokens * cols];
                let start = vec![0.0; tokens * 2048];
                self.kernel(&name, work(2048, tokens), 0.0, &start, |pool, y| {
                    let mut q = Q8Activations::new();
                    quantize_activations(pool, x, tokens, cols, &mut q);
                    matmul::matmul(pool, few, &q, y);
                });
            }
        }
        let neurons = 8192;
        // One neuron in twenty, as a sparse layer has them.
        let active: Vec<u32> = (0..neurons as u32).step_by(20).collect();
        let work = |stored: &Stored| Work {
            bytes: stored.bytes.len() / neurons * active.len(),
            flops: 2 * active.len() * cols,
        };
        for (name, format) in [("q4", Format::Q4Rows), ("q8", Format::Q8Rows)] {
            let stored = Stored::new(self, format, &source[..neurons * cols], neurons, cols);
            let w = stored.view();
            let up = format!("matvec_rows {name}, 410 of 8192x{cols}");
            let start = vec![0.0; active.len()];
            self.kernel(&up, work(&stored), 0.0, &start, |pool, y| {
                let mut q = Q8Activations::new();
                quantize_activations(pool, &x[..cols], 1, cols, &mut q);
                matvec_rows::matvec_rows(pool, w, &active, &q, y);
            });
            let down = format!("accumulate_rows {name}, 410 of 8192x{cols}");
            let start = vec![0.0; cols];
            self.kernel(&down, work(&stored), 0.0, &start, |pool, y| {
                accumulate_rows(pool, w, &active, &x[..active.len()], y);
            });
        }
    }
}
