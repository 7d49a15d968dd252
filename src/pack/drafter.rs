//! The drafter of a model, from a checkpoint of its own.
//!
//! The rows of its output matrix are packed cluster by cluster: a guess reads whole clusters.

use std::ops::Range;
use std::path::Path;

use kernels::Pool;
use safetensors::Dtype;

use super::error::PackError;
use super::huggingface::HuggingFace;
use super::plan::{self, Described};
use super::source::{Groups, Source};
use super::{Planned, Recipe};
use crate::model::weights::{DRAFTER_CONFIG, DRAFTER_HEAD, DRAFTER_ORDERING};
use crate::model::{config, family};

/// A drafter whose tensors are read a rectangle at a time.
pub(super) struct Drafter {
    source: HuggingFace,
    /// The id of each row of its output matrix, as it is packed; none where ids are in no clusters.
    ordering: Vec<u32>,
}

impl Drafter {
    /// Adds the drafter in `dir` to what is planned of the model that it is for.
    pub(super) fn add(
        dir: &Path,
        recipe: Recipe,
        planned: &mut Planned,
    ) -> Result<Drafter, PackError> {
        if dir.is_file() {
            return Err(PackError::Gguf {
                path: dir.to_owned(),
                reason: "a drafter is packed from a directory that holds config.json and model.safetensors: give that".to_owned(),
            });
        }
        let small = planned.small.iter().find(|(name, _)| name == "config.json");
        let of_model = small.map(|(_, json)| &json[..]).unwrap_or_default();
        let architecture = family::parse(of_model, Path::new("config.json"))?;
        let (value, path) = config::read(dir)?;
        // What the configuration tells is told before a missing tensor.
        architecture.drafter_tensors(&value, &path, &|_| true)?;
        let mut source = HuggingFace::open_drafter(dir)?;
        let has = |name: &str| source.describe(name).is_some();
        let tensors = architecture.drafter_tensors(&value, &path, &has)?;
        let ids = tensors
            .iter()
            .find(|tensor| tensor.name == DRAFTER_ORDERING);
        let ids = ids.and_then(|tensor| tensor.shape.first().copied());
        let ordering = match (ids, source.integers(DRAFTER_ORDERING)?) {
            (Some(ids), Some(ordering)) => permutation(&ordering, ids, dir)?,
            _ => Vec::new(),
        };
        let drafter = Drafter { source, ordering };
        let slices = architecture.slices(None)?;
        let describe = |name: &str, _: &[usize]| drafter.describe(name);
        let file = plan::drafter(&tensors, recipe, &slices, dir, &describe)?;
        planned.files.push(file);
        let json = format!("{value:#}\n").into_bytes();
        planned.small.push((DRAFTER_CONFIG.to_owned(), json));
        Ok(drafter)
    }
}

/// The ids as they are packed.
///
/// # Errors
/// They are not each of `ids` ids once.
fn permutation(ordering: &[i64], ids: usize, dir: &Path) -> Result<Vec<u32>, PackError> {
    let mut seen = vec![false; ids];
    let mut checked = Vec::with_capacity(ordering.len());
    for &id in ordering {
        let place = usize::try_from(id).ok().and_then(|id| seen.get_mut(id));
        match place {
            Some(seen) if !*seen => *seen = true,
            _ => {
                return Err(PackError::Unexpected {
                    path: dir.to_owned(),
                    tensor: DRAFTER_ORDERING.to_owned(),
                    reason: format!("names {id}, which is no id below {ids} or was named before"),
                });
            }
        }
        checked.push(id as u32);
    }
    Ok(checked)
}

impl Source for Drafter {
    fn path_of(&self, name: &str) -> &Path {
        self.source.path_of(name)
    }

    fn describe(&self, name: &str) -> Option<Described> {
        let found = self.source.describe(name)?;
        Some(match name {
            // No id needs more.
            DRAFTER_ORDERING => Described {
                dtype: Dtype::I32,
                ..found
            },
            _ => found,
        })
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        if name == DRAFTER_ORDERING {
            // Ids are below 2²⁴, and so exact.
            let ids = self.ordering[cols].iter();
            out.iter_mut()
                .zip(ids)
                .for_each(|(out, &id)| *out = id as f32);
            return Ok(());
        }
        if name != DRAFTER_HEAD || self.ordering.is_empty() {
            return self.source.read(pool, name, rows, cols, out);
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let id = self.ordering[row] as usize;
            self.source
                .read(pool, name, id..id + 1, cols.clone(), out)?;
        }
        Ok(())
    }

    fn read_groups(
        &mut self,
        _: &Pool,
        _: &str,
        _: Range<usize>,
        _: Range<usize>,
        _: &mut Groups,
    ) -> Result<bool, PackError> {
        // No tensor of it is described as integers.
        Ok(false)
    }
}
