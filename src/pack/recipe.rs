//! Recipes: how many bits each kind of matrix gets.

use kernels::quant::Format;

use crate::model::tensor_table::Role;

/// What quantisation a pack is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recipe {
    /// Every number as the source has it, in 16 or 32 bits: what others are compared with.
    Float,
    /// 8 bit everywhere: hardly distinguishable from the source.
    Q8,
    /// FFN in 4 bit, the head in two planes of 4, everything else in 8.
    #[default]
    Balanced,
    /// FFN and attention in 4 bit, the head in two planes of 4, side matrices and the PLE table in 8; what the source has in blocks
    /// of ggml's Q4_0 stays as it is, bit for bit: the weights were trained for that.
    Q4_0,
    /// FFN, attention, head and PLE table in 4 bit; LAuReL, AltUp, the per-layer-input projections and the towers in 8.
    Small,
    /// As a checkpoint has them that was trained in 2, 4 and 8 bits.
    Mobile,
}

/// In what order a matrix's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// 16 rows interleaved: every row is read.
    Tiled,
    /// Row by row: rows are picked.
    Rows,
}

impl Recipe {
    /// The name on the command line and in pack.json.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Float => "float",
            Recipe::Q8 => "q8",
            Recipe::Balanced => "balanced",
            Recipe::Q4_0 => "q4_0",
            Recipe::Small => "small",
            Recipe::Mobile => "mobile",
        }
    }

    /// Whether a head has a second plane: what 4 bits leave of it, in 4 bits. `block_bits` are
    /// those of the source's integers, where it consists of blocks: 4 bits leave nothing of 4 bits.
    pub(super) fn splits_head(self, block_bits: Option<usize>) -> bool {
        matches!(self, Recipe::Balanced | Recipe::Q4_0) && block_bits != Some(4)
    }

    /// The block format of a matrix, of the head its first plane; `None` where it is not quantised.
    pub(super) fn format(
        self,
        role: Role,
        arrangement: Arrangement,
        block_bits: Option<usize>,
    ) -> Option<Format> {
        let q4 = match self {
            Recipe::Float => return None,
            Recipe::Q8 => false,
            Recipe::Balanced => matches!(role, Role::FeedForward | Role::Head),
            Recipe::Q4_0 => match role {
                Role::FeedForward | Role::Attention | Role::Head => true,
                Role::Side | Role::PleTable => block_bits == Some(4),
                Role::Encoder => false,
            },
            Recipe::Small => !matches!(role, Role::Side | Role::Encoder),
            Recipe::Mobile => unreachable!("trained weights are laid out as they are"),
        };
        Some(match (q4, arrangement) {
            (true, Arrangement::Tiled) => Format::Q4Tiled,
            (true, Arrangement::Rows) => Format::Q4Rows,
            (false, Arrangement::Tiled) => Format::Q8Tiled,
            (false, Arrangement::Rows) => Format::Q8Rows,
        })
    }
}
