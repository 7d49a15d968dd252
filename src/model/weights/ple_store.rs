//! The per-layer-embedding table, read by row.

use kernels::Isa;

use super::{Checkpoint, Group, Mapped, Tensor, WeightsError};
use crate::model::config::TextConfig;

/// Rows of `embed_tokens_per_layer`, one per text token id, fetched from flash as they are needed.
#[derive(Debug)]
pub struct PleStore {
    weights: Mapped,
    table: Tensor,
    scale: f32,
}

impl PleStore {
    /// Maps the table without reading it.
    ///
    /// # Errors
    /// The table is missing or has another shape than config.json says.
    pub fn open(checkpoint: &Checkpoint, config: &TextConfig) -> Result<PleStore, WeightsError> {
        let weights = checkpoint.load(Group::Ple)?;
        let width = config.num_hidden_layers * config.hidden_size_per_layer_input;
        let table = weights.matrix(
            "model.language_model.embed_tokens_per_layer.weight",
            config.vocab_size_per_layer_input,
            width,
        )?;
        weights.advise_random();
        Ok(PleStore {
            weights,
            table,
            scale: (config.hidden_size_per_layer_input as f32).sqrt(),
        })
    }

    /// Width of a row: L·P values, layer major.
    pub fn width(&self) -> usize {
        self.table.cols
    }

    /// Reads the row of a token id, times sqrt(P); ids outside the text vocabulary (media) read row 0, the pad row.
    ///
    /// Source: reference section 2.2.
    pub fn read(&self, isa: Isa, id: u32, out: &mut [f32]) {
        let row = if (id as usize) < self.table.rows {
            id as usize
        } else {
            0
        };
        kernels::widen::row(isa, self.weights.view(self.table), row, out);
        for x in out {
            *x *= self.scale;
        }
    }

    /// The mapping behind the table, for its memory figures.
    pub fn mapped(&self) -> &Mapped {
        &self.weights
    }
}
