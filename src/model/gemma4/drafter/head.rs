//! The drafter's head: the likeliest clusters first, then the ids in those.
//!
//! Rows stand in the order of the clusters, so that a cluster is one run of rows; a table tells which id a row is.
//!
//! Source: drafter section 4.

use super::tensors::CENTROIDS;
use crate::model::best::{Best, Candidate, finite};
use crate::model::decoder::head::rows_of;
use crate::model::decoder::{Compute, Loader, Probe};
use crate::model::gemma4::config::DrafterConfig;
use crate::model::weights::{
    DRAFTER, DRAFTER_HEAD, DRAFTER_ORDERING, Mapped, Tensor, WeightsError,
};

#[derive(Debug)]
pub(super) struct Head {
    rows: Tensor,
    clusters: Option<Clusters>,
    /// Ids that are compared, and their logits.
    ids: Vec<u32>,
    logits: Vec<f32>,
}

#[derive(Debug)]
struct Clusters {
    centroids: Tensor,
    /// The id of each row.
    ordering: Vec<u32>,
    /// How many are looked into.
    looked_into: usize,
    scores: Vec<f32>,
    best: Best,
    chosen: Vec<u32>,
    rows: Vec<u32>,
}

impl Head {
    /// The tensors tell whether the ids are clustered.
    pub(super) fn load(loader: &Loader<'_>, config: &DrafterConfig) -> Result<Head, WeightsError> {
        let (weights, v, d) = (loader.weights, config.vocab_size, config.hidden_size);
        let clusters = config.clusters;
        let clusters = clusters.filter(|_| weights.contains(&format!("{DRAFTER}{CENTROIDS}")));
        let clusters = match clusters {
            None => None,
            Some(of) => Some(Clusters {
                centroids: loader.matrix(CENTROIDS, of.count, d)?,
                ordering: ordering(weights, v)?,
                looked_into: of.looked_into,
                scores: vec![0.0; of.count],
                best: Best::default(),
                chosen: Vec::new(),
                rows: Vec::new(),
            }),
        };
        Ok(Head {
            rows: weights.matrix(DRAFTER_HEAD, v, d)?,
            clusters,
            ids: (0..v as u32).collect(),
            logits: Vec::new(),
        })
    }

    /// The likeliest id behind the state \[d\].
    pub(super) fn choose(&mut self, compute: Compute<'_>, state: &[f32], probe: Probe<'_>) -> u32 {
        let (pool, matrix) = (compute.pool, compute.weights.view(self.rows));
        match &mut self.clusters {
            None => {
                self.logits.resize(matrix.rows, 0.0);
                kernels::matvec::matvec(pool, matrix, state, &mut self.logits);
            }
            Some(clusters) => {
                clusters.look(compute, state, probe);
                self.logits = rows_of(pool, matrix, &clusters.rows, state);
                let id = |&row: &u32| clusters.ordering[row as usize];
                self.ids.clear();
                self.ids.extend(clusters.rows.iter().map(id));
            }
        }
        let of = self.ids.iter().zip(&self.logits);
        let likeliest = of.map(|(&id, &logit)| Candidate { logit, id }).min();
        likeliest.map_or(0, |of| of.id)
    }

    pub(super) fn candidates(&self) -> (&[u32], &[f32]) {
        (&self.ids, &self.logits)
    }
}

impl Clusters {
    /// Puts the rows of the likeliest clusters into `rows`, ascending.
    fn look(&mut self, compute: Compute<'_>, state: &[f32], probe: Probe<'_>) {
        let centroids = compute.weights.view(self.centroids);
        kernels::matvec::matvec(compute.pool, centroids, state, &mut self.scores);
        probe("centroid_logits", 0, &self.scores);
        let best = self.best.of(finite(&self.scores), self.looked_into);
        self.chosen.clear();
        self.chosen.extend(best.map(|of| of.id));
        self.chosen.sort_unstable();
        let size = (self.ordering.len() / self.scores.len()) as u32;
        let rows = self.chosen.iter();
        let rows = rows.flat_map(|cluster| cluster * size..(cluster + 1) * size);
        self.rows.clear();
        self.rows.extend(rows);
    }
}

/// The id of each row: every one once.
fn ordering(weights: &Mapped, ids: usize) -> Result<Vec<u32>, WeightsError> {
    let bytes = weights.bytes(DRAFTER_ORDERING).unwrap_or_default();
    let (rows, rest) = bytes.as_chunks();
    let ordering: Vec<u32> = rows.iter().map(|&id| u32::from_le_bytes(id)).collect();
    let mut seen = vec![false; ids];
    let mut is_new = |&id: &u32| match seen.get_mut(id as usize) {
        Some(seen) => !std::mem::replace(seen, true),
        None => false,
    };
    match ordering.len() == ids && rest.is_empty() && ordering.iter().all(&mut is_new) {
        true => Ok(ordering),
        false => {
            let reason = format!("does not name each of {ids} ids once");
            Err(weights.unusable(DRAFTER_ORDERING, reason))
        }
    }
}
