//! Activations in 8 bit: what the integer kernels multiply weights with.

use super::block_format::GROUP;
use crate::Isa;

/// Tokens that a matmul kernel takes at a time.
pub(crate) const PANEL: usize = 4;

/// 32 activations of each of `T` tokens: `x[t][k] ≈ q[t][k] scale[t]`.
///
/// Everything that a kernel needs of a group lies together, so that it walks one stream.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct ActivationGroup<const T: usize> {
    /// The integers, −127 … 127, as `[token][k]`, or in the order of [`Q8Activations::interleaved`].
    pub(crate) q: [[i8; GROUP]; T],
    /// The scale, `max |x| / 127`.
    pub(crate) scale: [f32; T],
    /// `−8 Σ q` over the group: what the dot with nibbles, stored as `q + 8`, is to begin with.
    pub(crate) offset: [i32; T],
}

impl<const T: usize> ActivationGroup<T> {
    /// A group of zeros.
    pub(crate) const ZERO: Self = ActivationGroup {
        q: [[0; GROUP]; T],
        scale: [0.0; T],
        offset: [0; T],
    };
}

/// Activations `[tokens, cols]`, quantised for one instruction set; its buffers are reused.
///
/// One token is a list of groups. Several tokens are panels of four, `[panel][group]`, padded with zero tokens.
#[derive(Clone, Debug)]
pub struct Q8Activations {
    pub(crate) isa: Isa,
    pub(crate) tokens: usize,
    pub(crate) cols: usize,
    pub(crate) single: Vec<ActivationGroup<1>>,
    pub(crate) panels: Vec<ActivationGroup<PANEL>>,
}

impl Default for Q8Activations {
    fn default() -> Self {
        Self::new()
    }
}

impl Q8Activations {
    /// Empty buffers; they grow at the first use.
    pub fn new() -> Self {
        Q8Activations {
            isa: Isa::scalar(),
            tokens: 0,
            cols: 0,
            single: Vec::new(),
            panels: Vec::new(),
        }
    }

    /// Whether the 128 integers of a panel's group lie as `[k / 8][token][k % 8]`, and its scales twice, `[s0 s1 s0 s1]` and
    /// (instead of offsets) `[s2 s3 s2 s3]`, for `smmla`.
    pub(crate) fn interleaved(&self) -> bool {
        #[cfg(target_arch = "aarch64")]
        return matches!(self.isa.level(), crate::isa::Level::I8mm);
        #[cfg(not(target_arch = "aarch64"))]
        false
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.single[..]) + size_of_val(&self.panels[..])
    }

    /// Sets the shape and makes room for it; what is multiplied on `isa` is in the form of [`Isa::for_tokens`].
    pub(crate) fn resize(&mut self, isa: Isa, tokens: usize, cols: usize) {
        (self.isa, self.tokens, self.cols) = (isa.for_tokens(tokens), tokens, cols);
        let groups = cols.div_ceil(GROUP);
        let (single, panels) = if tokens == 1 {
            (groups, 0)
        } else {
            (0, tokens.div_ceil(PANEL) * groups)
        };
        self.single.resize(single, ActivationGroup::ZERO);
        self.panels.resize(panels, ActivationGroup::ZERO);
    }
}
