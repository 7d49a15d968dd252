//! What linear layers read: normed rows, quantised once for every matrix that they are multiplied with.
//!
//! 177 to 183 instructions for 32 numbers on ARM, norm and quantising together.

use crate::clip::Bounds;
use crate::pool::Pool;
use crate::quant::{GROUP, PANEL, Q8Activations};
use crate::quantized::{quantize_activations, quantize_panel};
use crate::rms_norm::rms_norm;

/// Normed rows, as floats and, for quantised matrices, in 8 bits. Its buffers are made once.
#[derive(Debug)]
pub struct Inputs {
    tokens: usize,
    cols: usize,
    floats: Vec<f32>,
    quantized: Q8Activations,
    is_quantized: bool,
}

impl Inputs {
    /// Room for `tokens` rows of `cols` elements; none are in it yet.
    pub fn new(tokens: usize, cols: usize) -> Inputs {
        Inputs {
            tokens: 0,
            cols,
            floats: vec![0.0; tokens * cols],
            quantized: Q8Activations::new(),
            is_quantized: false,
        }
    }

    /// Norms `tokens` rows, number t being `row(t)`, as [`rms_norm`] does, and with `quantize` quantises each as
    /// [`quantize_activations`] does, while it is in the cache.
    ///
    /// # Panics
    /// When there is no room for so many rows, or a row or `weight` has another length.
    pub fn norm<'r>(
        &mut self,
        pool: &Pool,
        tokens: usize,
        row: &(dyn Fn(usize) -> &'r [f32] + Sync),
        weight: &[f32],
        eps: f32,
        quantize: bool,
    ) {
        let cols = self.cols;
        (self.tokens, self.is_quantized) = (tokens, quantize);
        let floats = &mut self.floats[..tokens * cols];
        let norm = |token: usize, out: &mut [f32]| {
            rms_norm(pool.isa(), row(token), Some(weight), eps, out);
        };
        if !quantize {
            return pool.for_each_row_mut(floats, cols, &norm);
        }
        if tokens == 1 {
            norm(0, floats);
            return quantize_activations(pool, floats, 1, cols, &mut self.quantized);
        }
        self.quantized.resize(pool.isa(), tokens, cols);
        if floats.is_empty() {
            return;
        }
        let interleaved = self.quantized.interleaved();
        let panels = (&mut self.quantized.panels[..], cols.div_ceil(GROUP));
        pool.for_each_chunk_pair_mut((floats, PANEL * cols), panels, &|panel, rows, out| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                norm(panel * PANEL + i, row);
            }
            quantize_panel(pool.isa(), rows, cols, Bounds::NONE, interleaved, out);
        });
    }

    /// Rows that there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The rows, \[tokens, cols\].
    pub fn rows(&self) -> &[f32] {
        &self.floats[..self.tokens * self.cols]
    }

    /// The rows in 8 bits, if they were quantised.
    pub(crate) fn quantized(&self) -> Option<&Q8Activations> {
        self.is_quantized.then_some(&self.quantized)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.floats[..]) + self.quantized.bytes()
    }
}
