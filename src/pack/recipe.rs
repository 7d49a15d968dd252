//! Recipes: how many bits each kind of matrix gets.

use kernels::quant::Format;

use crate::model::tensor_table::Role;

/// What quantisation a pack is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recipe {
    /// 8 bit everywhere: hardly distinguishable from the source.
    Q8,
    /// FFN in 4 bit, the head in two planes of 4, everything else in 8.
    #[default]
    Balanced,
    /// FFN, attention, head and PLE table in 4 bit; LAuReL, AltUp, the per-layer-input projections and the towers in 8.
    Small,
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
            Recipe::Q8 => "q8",
            Recipe::Balanced => "balanced",
            Recipe::Small => "small",
        }
    }

    /// Whether the head has a second plane: what 4 bits leave of it, in 4 bits.
    pub(super) fn splits_head(self) -> bool {
        self == Recipe::Balanced
    }

    /// The block format of a matrix, of the head its first plane.
    pub(super) fn format(self, role: Role, arrangement: Arrangement) -> Format {
        let q4 = match self {
            Recipe::Q8 => false,
            Recipe::Balanced => matches!(role, Role::FeedForward | Role::Head),
            Recipe::Small => !matches!(role, Role::Side | Role::Encoder),
        };
        match (q4, arrangement) {
            (true, Arrangement::Tiled) => Format::Q4Tiled,
            (true, Arrangement::Rows) => Format::Q4Rows,
            (false, Arrangement::Tiled) => Format::Q8Tiled,
            (false, Arrangement::Rows) => Format::Q8Rows,
        }
    }
}
