//! Guesses of the model's drafter. It is a parameter group of its own: the first time that it is asked, its weights begin to be read in the
//! background, and it guesses from when they are there.

use std::sync::Arc;

use super::{Guesser, STRENGTHS, Source, Stand};
use crate::model::architecture::Architecture;
use crate::model::drafter::{Drafter, DrafterError};
use crate::model::weights::{Checkpoint, Group, GroupState, Mapped, Residency};

/// A drafter, and what it is fed with.
struct Drafting {
    drafter: Box<dyn Drafter>,
    residency: Arc<Residency>,
    /// The embedding of the newest token, \[D\].
    embedding: Vec<f32>,
}

impl Guesser {
    /// Asks the drafter of a checkpoint, too, where there is one; gives its weights.
    ///
    /// # Errors
    /// It is damaged, or of another model.
    pub(in crate::pipeline) fn add_drafter(
        &mut self,
        architecture: &dyn Architecture,
        checkpoint: &Checkpoint,
        residency: &Arc<Residency>,
    ) -> Result<Option<Arc<Mapped>>, DrafterError> {
        let Some(drafter) = architecture.drafter(checkpoint)? else {
            return Ok(None);
        };
        let weights = Arc::clone(drafter.weights());
        self.add(Box::new(Drafting {
            drafter,
            residency: Arc::clone(residency),
            embedding: vec![0.0; architecture.spec().hidden_size],
        }));
        Ok(Some(weights))
    }
}

impl Source for Drafting {
    fn name(&self) -> &'static str {
        "drafter"
    }

    fn is_free(&self) -> bool {
        false
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        let (Some(model), Some(&newest)) = (&mut stand.model, stand.written.last()) else {
            return 0;
        };
        if self.residency.state(Group::Drafter) != GroupState::Resident {
            self.residency.prefetch(Group::Drafter);
            return 0;
        }
        let (cache, pool) = (model.cache, model.pool);
        self.drafter.begin(cache, model.decoder.hidden(model.row));
        let mut newest = newest;
        for _ in 0..most {
            let embedding = &mut self.embedding;
            // What cannot be read any more is told by the pass, which needs it, too.
            if model.decoder.embedding(pool, newest, embedding).is_err() {
                break;
            }
            newest = self.drafter.next(pool, cache, embedding);
            ids.push(newest);
        }
        STRENGTHS - 1
    }
}
