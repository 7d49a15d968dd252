//! The gated feed-forward network, dense or with most activations forced to zero.
//!
//! Source: reference section 2.6; sparsity by a Gaussian top-k as in Spark Transformer (arXiv 2506.06644).

use kernels::{Inputs, Isa, Pool};

use super::load::LayerLoader;
use crate::model::config::TextConfig;
use crate::model::weights::{Mapped, Stretch, Tensor, WeightsError};

/// One layer's gate, up and down projections.
#[derive(Debug)]
pub(in crate::model) struct FeedForward {
    gate: Tensor,
    up: Tensor,
    /// Column segments that end at the widths of slices; a checkpoint in the published layout has one.
    down: Vec<Tensor>,
    /// `Phi⁻¹(sparsity)`: how many standard deviations above its mean a gate must be to count; `None` in a dense layer.
    cutoff: Option<f32>,
}

/// Buffers for T tokens at the full width F.
#[derive(Debug)]
pub(in crate::model) struct Scratch {
    up: Vec<f32>,
    /// Neurons whose activation is not zero, and their activations: at most F.
    active: Vec<u32>,
    values: Vec<f32>,
    /// One segment's share of the output, \[T, D\].
    part: Vec<f32>,
}

impl Scratch {
    pub(in crate::model) fn new(tokens: usize, width: usize, hidden_size: usize) -> Scratch {
        Scratch {
            up: vec![0.0; tokens * width],
            active: Vec::with_capacity(width),
            values: Vec::with_capacity(width),
            part: vec![0.0; tokens * hidden_size],
        }
    }

    /// Bytes held.
    pub(in crate::model) fn bytes(&self) -> usize {
        4 * (self.up.len() + self.part.len() + self.active.capacity() + self.values.capacity())
    }
}

impl FeedForward {
    pub(in crate::model) fn load(
        loader: &LayerLoader<'_>,
        config: &TextConfig,
        layer: usize,
    ) -> Result<FeedForward, WeightsError> {
        let (d, f) = (config.hidden_size, config.intermediate_size[layer]);
        let sparsity = config.activation_sparsity_pattern[layer];
        Ok(FeedForward {
            gate: loader.matrix("mlp.gate_proj.weight", f, d)?,
            up: loader.matrix("mlp.up_proj.weight", f, d)?,
            down: loader.column_segments("mlp.down_proj.weight", d, f)?,
            cutoff: (sparsity > 0.0).then(|| inverse_normal_cdf(sparsity) as f32),
        })
    }

    /// `out = down(act(gate x) · up x)` with the first `width` neurons.
    ///
    /// With `sparse`, a token through a sparse layer reads only the rows of `up` and the columns of `down` whose activation
    /// is not zero: the same sum without its zero terms. Several tokens together take that way only where `down` is stored
    /// by column; else a dense product is faster.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `gate` (scratch) | at least \[T, `width`\] |
    pub(in crate::model) fn forward(
        &self,
        pool: &Pool,
        weights: &Mapped,
        x: &Inputs,
        width: usize,
        sparse: bool,
        gate: &mut [f32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let t = x.tokens();
        let (gate, up) = (&mut gate[..t * width], &mut scratch.up[..t * width]);
        let [gate_weights, up_weights] =
            [self.gate, self.up].map(|tensor| weights.view(tensor).rows(0..width));
        if let Some(cutoff) = self.cutoff {
            kernels::matmul::matmul_of(pool, gate_weights, x, gate);
            pool.for_each_row_mut(gate, width, &|_, gate| {
                subtract_cutoff(pool.isa(), gate, cutoff)
            });
            if sparse && self.down.len() == 1 && (t == 1 || self.down[0].stored_by_column()) {
                let d = out.len() / t;
                for ((out, x), gate) in out
                    .chunks_exact_mut(d)
                    .zip(x.rows().chunks_exact(d))
                    .zip(gate.chunks_exact(width))
                {
                    self.forward_active(pool, weights, x, gate, scratch, out);
                }
                return;
            }
            kernels::matmul::matmul_of(pool, up_weights, x, up);
            pool.for_each_row_mut(gate, width, &|t, gate| {
                kernels::gelu::gelu_tanh_mul(pool.isa(), gate, &up[t * width..(t + 1) * width]);
            });
        } else {
            kernels::matmul::gelu_gated(pool, gate_weights, up_weights, x, gate, up);
        }
        self.project_down(pool, weights, t, width, gate, scratch, out);
    }

    /// `out = down · gate`, summed over the segments that the slice reaches.
    fn project_down(
        &self,
        pool: &Pool,
        weights: &Mapped,
        t: usize,
        width: usize,
        gate: &[f32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let Scratch { up, part, .. } = scratch;
        let mut start = 0;
        for &segment in &self.down {
            let cols = segment.cols.min(width - start);
            if cols == 0 {
                break;
            }
            let mut input = gate;
            if cols < width {
                // The segment's part of every token, side by side; `up` is not needed any more.
                let own = &mut up[..t * cols];
                for (own, gate) in own.chunks_exact_mut(cols).zip(gate.chunks_exact(width)) {
                    own.copy_from_slice(&gate[start..start + cols]);
                }
                input = own;
            }
            let matrix = weights.view(segment).columns(0..cols);
            if start == 0 {
                kernels::matmul::matmul(pool, matrix, input, t, out);
            } else {
                let part = &mut part[..out.len()];
                kernels::matmul::matmul(pool, matrix, input, t, part);
                kernels::elementwise::add(pool.isa(), out, part);
            }
            start += cols;
        }
    }

    /// Whether the first `width` neurons can be run alone: the weights are not quantised, or stored so that they can be cut
    /// there.
    pub(in crate::model) fn serves(&self, width: usize) -> bool {
        let mut start = 0;
        let cuts_down = self.down.iter().any(|segment| {
            let inside = start < width && width < start + segment.cols;
            start += segment.cols;
            inside && !segment.has_any_columns()
        });
        !cuts_down && self.gate.has_rows(width) && self.up.has_rows(width)
    }

    /// Weights of the neurons behind the first `width`, which a slice of that width does not read.
    pub(in crate::model) fn unused(&self, weights: &Mapped, width: usize, out: &mut Vec<Stretch>) {
        out.extend(weights.behind(self.gate, width));
        out.extend(weights.behind(self.up, width));
        let mut start = 0;
        for &segment in &self.down {
            if segment.stored_by_column() {
                out.extend(weights.behind(segment, width.saturating_sub(start)));
            } else if start >= width {
                out.extend(weights.behind(segment, 0));
            }
            start += segment.cols;
        }
    }

    /// One token, by its active neurons.
    fn forward_active(
        &self,
        pool: &Pool,
        weights: &Mapped,
        x: &[f32],
        gate: &[f32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let Scratch {
            up, active, values, ..
        } = scratch;
        active.clear();
        values.clear();
        for (neuron, &gate) in gate.iter().enumerate() {
            if gate > 0.0 {
                active.push(neuron as u32);
                values.push(gate);
            }
        }
        let up = &mut up[..active.len()];
        kernels::sparse::matvec_rows(pool, weights.view(self.up), active, x, up);
        kernels::gelu::gelu_tanh_mul(pool.isa(), values, up);
        kernels::sparse::matvec_columns(pool, weights.view(self.down[0]), active, values, out);
    }
}

/// `g = max(g − (mean(g) + cutoff · std(g)), 0)`, with the population standard deviation (divisor N) over the slice.
fn subtract_cutoff(isa: Isa, gate: &mut [f32], cutoff: f32) {
    let (mean, deviation) = kernels::elementwise::mean_and_deviation(isa, gate);
    kernels::elementwise::excess(isa, gate, mean + cutoff * deviation);
}

/// The quantile of the standard normal distribution, for 0 < p < 1: bisection of [`normal_cdf`], done once a layer at
/// load, to the last bit of f64 that f32 can see; with `libm`, which is the same everywhere.
fn inverse_normal_cdf(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0f64, 10.0f64);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// `Phi(x)` by the series `1/2 + φ(x) · Σ x^(2k+1) / (1·3·5…(2k+1))` (Marsaglia 2004, J. Stat. Software 11(4), eq. 3), which
/// converges for every x; 10 standard deviations need about 150 terms.
fn normal_cdf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    let mut k = 1.0;
    while term.abs() > sum.abs() * 1e-17 && k < 400.0 {
        term *= x * x / (2.0 * k + 1.0);
        sum += term;
        k += 1.0;
    }
    0.5 + sum * libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::inverse_normal_cdf;

    /// Quantiles as printed in statistical tables (and by scipy.stats.norm.ppf).
    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.9, 1.2815515655446004),
            (0.95, 1.6448536269514722),
            (0.99, 2.3263478740408408),
            (0.001, -3.090232306167813),
        ] {
            assert!((inverse_normal_cdf(p) - expected).abs() < 1e-12, "{p}");
        }
    }
}
