//! The feed-forward network of Gemma 3n: dense, or with most activations forced to zero.
//!
//! Source: reference section 2.6; sparsity by a Gaussian top-k as in Spark Transformer (arXiv 2506.06644).

use kernels::{Inputs, Isa};

use crate::model::decoder::feed_forward::{FeedForward, first_rows};
use crate::model::decoder::{Compute, Loader};
use crate::model::weights::WeightsError;

/// One layer's network.
#[derive(Debug)]
pub(super) struct SparseFeedForward {
    pub(super) dense: FeedForward,
    /// `Phi⁻¹(sparsity)`: how many standard deviations above its mean a gate must be to count; `None` in a dense layer.
    cutoff: Option<f32>,
}

/// Neurons of one token whose activation is not zero, and their activations.
#[derive(Debug)]
pub(super) struct ActiveNeurons {
    neurons: Vec<u32>,
    activations: Vec<f32>,
}

impl ActiveNeurons {
    /// Room for all neurons of a layer.
    pub(super) fn new(ffn_width: usize) -> ActiveNeurons {
        ActiveNeurons {
            neurons: Vec::with_capacity(ffn_width),
            activations: Vec::with_capacity(ffn_width),
        }
    }

    fn find(&mut self, gate: &[f32]) {
        self.neurons.clear();
        self.activations.clear();
        for (neuron, &gate) in gate.iter().enumerate() {
            if gate > 0.0 {
                self.neurons.push(neuron as u32);
                self.activations.push(gate);
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.neurons.capacity() + self.activations.capacity())
    }
}

impl SparseFeedForward {
    pub(super) fn load(
        loader: &Loader<'_>,
        ffn_width: usize,
        sparsity: f64,
        d: usize,
    ) -> Result<SparseFeedForward, WeightsError> {
        Ok(SparseFeedForward {
            dense: FeedForward::load(loader, ffn_width, d)?,
            cutoff: (sparsity > 0.0).then(|| inverse_normal_cdf(sparsity) as f32),
        })
    }

    /// `out = down(act(gate x) · up x)` with the first `width` neurons.
    ///
    /// With `skip_zeros`, a token through a sparse layer reads only the rows of `up` and the columns of `down` whose activation
    /// is not zero: the same sum without its zero terms. Several tokens together take that way only where `down` is stored
    /// by column; else a dense product is faster.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `x`, `out` | \[T, D\] |
    /// | `scratch` | as of [`FeedForward::forward`] |
    pub(super) fn forward(
        &self,
        compute: Compute<'_>,
        x: &Inputs,
        width: usize,
        skip_zeros: bool,
        active: &mut ActiveNeurons,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let Some(cutoff) = self.cutoff else {
            return self.dense.forward(compute, x, width, scratch, out);
        };
        let (pool, t) = (compute.pool, x.tokens());
        let [w_gate, w_up] =
            [self.dense.gate, self.dense.up].map(|w| first_rows(compute, w, width));
        let (gate, scratch) = scratch.split_at_mut(t * width);
        kernels::matmul::matmul_of(pool, w_gate, x, gate);
        pool.for_each_row_mut(gate, width, &|_, gate| {
            subtract_cutoff(pool.isa(), gate, cutoff)
        });
        if skip_zeros && self.can_skip(t) {
            let d = out.len() / t;
            let rows = x.rows().chunks_exact(d).zip(gate.chunks_exact(width));
            for ((x, gate), out) in rows.zip(out.chunks_exact_mut(d)) {
                active.find(gate);
                self.forward_active(compute, x, active, scratch, out);
            }
            return;
        }
        let up = &mut scratch[..t * width];
        kernels::matmul::matmul_of(pool, w_up, x, up);
        pool.for_each_row_mut(gate, width, &|t, gate| {
            kernels::gelu::gelu_tanh_mul(pool.isa(), gate, &up[t * width..(t + 1) * width]);
        });
        self.dense
            .project_down(compute, t, width, gate, scratch, out);
    }

    fn can_skip(&self, tokens: usize) -> bool {
        match &self.dense.down[..] {
            [down] => tokens == 1 || down.stored_by_column(),
            _ => false,
        }
    }

    /// One token, by its active neurons.
    fn forward_active(
        &self,
        compute: Compute<'_>,
        x: &[f32],
        active: &mut ActiveNeurons,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let Compute { pool, weights } = compute;
        let ActiveNeurons {
            neurons,
            activations,
        } = active;
        let FeedForward { up, down, .. } = &self.dense;
        let up_x = &mut scratch[..neurons.len()];
        kernels::sparse::matvec_rows(pool, weights.view(*up), neurons, x, up_x);
        kernels::gelu::gelu_tanh_mul(pool.isa(), activations, up_x);
        kernels::sparse::matvec_columns(pool, weights.view(down[0]), neurons, activations, out);
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
