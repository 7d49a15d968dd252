//! Where AltUp's streams come from, and how they become one again.
//!
//! Source: reference sections 2.3 and 2.7.

use kernels::Isa;

use crate::model::decoder::{Compute, Loader};
use crate::model::weights::{Tensor, WeightsError};

/// A projection into each stream but the first, and one out of each.
#[derive(Debug)]
pub(super) struct StreamProjections {
    into: Vec<Tensor>,
    out_of: Vec<Tensor>,
    /// Width of a stream.
    pub(super) d: usize,
}

impl StreamProjections {
    pub(super) fn load(
        loader: &Loader<'_>,
        streams: usize,
        d: usize,
    ) -> Result<StreamProjections, WeightsError> {
        let matrices = |leaf: &str| {
            (1..streams)
                .map(|i| loader.matrix(&format!("{leaf}.{}.weight", i - 1), d, d))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(StreamProjections {
            into: matrices("altup_projections")?,
            out_of: matrices("altup_unembed_projections")?,
            d,
        })
    }

    /// Width of a token's streams.
    fn width(&self) -> usize {
        (self.into.len() + 1) * self.d
    }

    /// Stream 0 is the embedding; the others are projections of it, scaled to its magnitude.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `e` | \[T, D\] |
    /// | `scratch` | at least \[T, D\] |
    /// | `h` | \[T, A, D\] |
    pub(super) fn split(
        &self,
        compute: Compute<'_>,
        e: &[f32],
        scratch: &mut [f32],
        h: &mut [f32],
    ) {
        let (d, width) = (self.d, self.width());
        for (h, e) in h.chunks_exact_mut(width).zip(e.chunks_exact(d)) {
            h[..d].copy_from_slice(e);
        }
        let u = &mut scratch[..e.len()];
        for (i, &projection) in self.into.iter().enumerate() {
            compute.matmul(projection, e, e.len() / d, u);
            let rows = u.chunks_exact_mut(d).zip(e.chunks_exact(d));
            for ((u, e), h) in rows.zip(h.chunks_exact_mut(width)) {
                match_magnitude(compute.isa(), e, u);
                h[(i + 1) * d..(i + 2) * d].copy_from_slice(u);
            }
        }
    }

    /// The mean of the streams, each but the first projected and scaled to the first's magnitude.
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `h` | \[T, A, D\] |
    /// | `scratch` | at least 2 \[T, D\] |
    /// | `mean` | \[T, D\] |
    pub(super) fn merge(
        &self,
        compute: Compute<'_>,
        h: &[f32],
        scratch: &mut [f32],
        mean: &mut [f32],
    ) {
        let (d, width) = (self.d, self.width());
        for (mean, h) in mean.chunks_exact_mut(d).zip(h.chunks_exact(width)) {
            mean.copy_from_slice(&h[..d]);
        }
        let (stream, u) = scratch[..2 * mean.len()].split_at_mut(mean.len());
        for (i, &projection) in self.out_of.iter().enumerate() {
            for (stream, h) in stream.chunks_exact_mut(d).zip(h.chunks_exact(width)) {
                stream.copy_from_slice(&h[(i + 1) * d..(i + 2) * d]);
            }
            compute.matmul(projection, stream, stream.len() / d, u);
            let rows = u.chunks_exact_mut(d).zip(h.chunks_exact(width));
            for ((u, h), mean) in rows.zip(mean.chunks_exact_mut(d)) {
                match_magnitude(compute.isa(), &h[..d], u);
                kernels::elementwise::add(compute.isa(), mean, u);
            }
        }
        let streams = (width / d) as f32;
        for x in mean {
            *x /= streams;
        }
    }
}

/// Floor of the mean square of a projected stream, as in the reference.
const MAGNITUDE_FLOOR: f32 = 1e-5;

/// Scales `u` to the root mean square of `target`: `u · m / n`, `m = sqrt(mean(target²))`,
/// `n = sqrt(max(mean(u²), 1e-5))`.
fn match_magnitude(isa: Isa, target: &[f32], u: &mut [f32]) {
    let d = u.len() as f32;
    let wanted = (kernels::elementwise::dot(isa, target, target) / d).sqrt();
    let found = (kernels::elementwise::dot(isa, u, u) / d)
        .max(MAGNITUDE_FLOOR)
        .sqrt();
    let scale = wanted / found;
    for u in u {
        *u *= scale;
    }
}
