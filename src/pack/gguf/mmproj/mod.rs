//! The towers of a model in llama.cpp's files: an mmproj file beside a text model.
//!
//! Every reordering that its converter made is undone, so that what is packed is what the checkpoint of safetensors has.

mod bounds;
mod config;
mod keys;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kernels::Pool;
use safetensors::Dtype;
use serde_json::Value;

use super::header::TensorInfo;
use super::others::Wanted;
use super::{Gguf, Place};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tensor_table::NamedShape;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Group;
use crate::pack::Companion;
use crate::pack::error::PackError;
use crate::pack::plan::{Described, matrix_shape};
use crate::pack::source::{Fetch, Groups, Located, Location, Source};
use keys::{Family, Keys};
use names::Change;

/// Why the audio part of a Gemma 3n is not taken.
const UNTRIED: &str = "no program runs such tensors of Gemma 3n, so nobody knows whether they are right; to hear, pack the checkpoint of safetensors that Google publishes";

fn is_gemma3n_audio(name: &str) -> bool {
    name.starts_with("a.") || name.starts_with("mm.a.")
}

/// An mmproj file.
#[derive(Debug)]
pub struct Mmproj {
    gguf: Gguf,
    family: Family,
    /// The towers that are taken.
    groups: Vec<Group>,
    /// Where their tensors are, by canonical name, once they were looked for.
    tensors: HashMap<String, Placed>,
    /// The upper bound that belongs to each lower one.
    upper: BTreeMap<String, String>,
}

/// A tensor that was found.
#[derive(Debug)]
struct Placed {
    info: TensorInfo,
    /// Its dimensions in a checkpoint.
    shape: Vec<usize>,
    change: Change,
}

impl Mmproj {
    /// Reads the header of an mmproj file.
    ///
    /// # Errors
    /// The file is malformed, something else than an mmproj, or one of a model that gemmad does not run.
    pub fn open(path: &Path) -> Result<Mmproj, PackError> {
        let gguf = Gguf::open_as(path, Wanted::Towers)?;
        let keys = Keys {
            header: &gguf.header,
            path,
        };
        if gguf.header.architecture().is_none() {
            return Err(keys.bad("it does not name its architecture".to_owned()));
        }
        let (family, mut groups) = keys.towers()?;
        if family == Family::Gemma3n {
            groups.retain(|group| *group == Group::Vision);
            if groups.is_empty() {
                return Err(keys.bad(format!("it has an audio part only; {UNTRIED}")));
            }
        }
        Ok(Mmproj {
            family,
            groups,
            tensors: HashMap::new(),
            upper: BTreeMap::new(),
            gguf,
        })
    }

    /// What is not taken from the file, in one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut names = self.gguf.header.tensors.keys();
        let untried = self.family == Family::Gemma3n && names.any(|name| is_gemma3n_audio(name));
        let path = self.gguf.path.display();
        let line = untried.then(|| format!("{path}: the audio part is left out: {UNTRIED}"));
        line.into_iter().collect()
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            header: &self.gguf.header,
            path: &self.gguf.path,
        }
    }

    /// The file.
    pub(in crate::pack) fn path(&self) -> &Path {
        &self.gguf.path
    }

    /// The towers that are taken from the file.
    pub(in crate::pack) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Puts the towers into the small files of the text model from `path`, and finds every tensor of them.
    pub(in crate::pack) fn complete(
        &mut self,
        companions: &mut Vec<Companion>,
        tokenizer: &Tokenizer,
        path: &Path,
    ) -> Result<Arc<dyn Architecture>, PackError> {
        let own = companions
            .iter_mut()
            .find(|(name, _)| name == "config.json");
        let Some((_, config_json)) = own else {
            return Err(PackError::Gguf {
                path: path.to_owned(),
                reason: "it has no config.json".to_owned(),
            });
        };
        let text = family::parse(config_json, path)?;
        let config: Value = crate::model::config::parse(config_json, path)?;
        let keys = self.keys();
        let (text, width) = (text.spec(), text.spec().hidden_size);
        if text.family != self.family.name() {
            return Err(keys.bad(format!(
                "it holds towers of {}, but {} is a {}: take the mmproj of the same model",
                self.family.name(),
                path.display(),
                text.family
            )));
        }
        for &group in &self.groups {
            let made_for = keys.size(group, "projection_dim")?;
            if made_for != width {
                return Err(keys.bad(format!(
                    "it was made for a text model of width {made_for} (projection_dim), but that of {} is {width}: take the mmproj of the same model",
                    path.display()
                )));
            }
        }
        let merged =
            config::with_towers(keys, self.family, &self.groups, &config, text, tokenizer)?;
        *config_json = format!("{merged:#}\n").into_bytes();
        // The text model's own was sound: what is wrong now is of this file.
        let architecture = family::parse(config_json, &self.gguf.path)?;
        let spec = architecture.spec();
        tokenizer.check_config(&spec.ids, spec.vocab_size, path)?;
        let has = |wanted: &str| companions.iter().any(|(name, _)| name == wanted);
        if !has("processor_config.json") && !has("preprocessor_config.json") {
            let processor = config::processor(keys, self.family, spec)?;
            let json = format!("{processor:#}\n").into_bytes();
            companions.push(("processor_config.json".to_owned(), json));
        }
        let mut tensors = Vec::new();
        for &group in &self.groups {
            tensors.extend(architecture.encoder_tensors(group)?);
        }
        self.tensors = self.found(&tensors)?;
        self.find_bounds(&tensors)?;
        Ok(architecture)
    }

    /// Finds tensors in the file: all but the bounds of linear layers must be there, and nothing else may be.
    fn found(&self, tensors: &[NamedShape]) -> Result<HashMap<String, Placed>, PackError> {
        let (keys, mut placed) = (self.keys(), HashMap::new());
        let mut left: BTreeSet<&str> = keys.header.tensors.keys().map(String::as_str).collect();
        for (canonical, shape) in tensors {
            let Some((name, change)) = self.family.find(canonical) else {
                return Err(keys.missing(canonical));
            };
            let Some(info) = keys.header.tensors.get(&name) else {
                match shape.is_empty() {
                    true => continue,
                    false => return Err(keys.missing(&name)),
                }
            };
            // Dimensions of 1 come and go.
            let stored = match change {
                Change::Patches => patches_of(shape),
                Change::None | Change::Softplus => shape.clone(),
            };
            let significant = |shape: &[usize]| -> Vec<usize> {
                shape.iter().copied().filter(|&n| n != 1).collect()
            };
            if significant(&stored) != significant(&info.shape) {
                return Err(keys.bad(format!(
                    "tensor {name} has shape {:?}, but its keys ask for {stored:?}",
                    info.shape
                )));
            }
            left.remove(name.as_str());
            placed.insert(
                canonical.clone(),
                Placed {
                    info: info.clone(),
                    shape: shape.clone(),
                    change,
                },
            );
        }
        left.retain(|name| self.family != Family::Gemma3n || !is_gemma3n_audio(name));
        match left.first() {
            None => Ok(placed),
            Some(name) if name.starts_with("v.std_") => Err(keys.bad(format!(
                "it has {name}: it is that of one of the larger Gemma 4 models; gemmad runs E2B and E4B"
            ))),
            Some(name) => Err(keys.bad(format!(
                "it has tensor {name}, which no {} has: it is of another model, or newer than this gemmad",
                self.family.name()
            ))),
        }
    }

    /// What a tensor is called in the file.
    fn theirs(&self, canonical: &str) -> String {
        let found = self.family.find(canonical);
        found.map_or_else(|| canonical.to_owned(), |(name, _)| name)
    }

    /// Every tensor of a tower that is there, in the order in which it is used.
    pub(in crate::pack) fn tensors(
        &self,
        architecture: &dyn Architecture,
        group: Group,
    ) -> Result<Vec<(String, Described)>, PackError> {
        let all = architecture.encoder_tensors(group)?.into_iter();
        let found = all.filter_map(|(name, _)| Some((self.describe(&name)?, name)));
        Ok(found.map(|(tensor, name)| (name, tensor)).collect())
    }

    fn placed(&self, name: &str) -> Result<&Placed, PackError> {
        self.tensors.get(name).ok_or_else(|| PackError::Missing {
            path: self.gguf.path.clone(),
            tensor: name.to_owned(),
        })
    }

    fn place<'a>(&'a self, placed: &'a Placed) -> Place<'a> {
        let cols = matrix_shape(&placed.shape).1;
        self.gguf.place_of(&placed.info, cols, 0)
    }

    fn rectangle(
        &self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        let placed = self.placed(name)?;
        let place = self.place(placed);
        let row_len = matrix_shape(&placed.shape).1;
        let read =
            |cols: Range<usize>, out: &mut [f32]| place.numbers(pool, rows.clone(), cols, out);
        match placed.change {
            Change::None => read(cols, out),
            Change::Softplus => {
                read(cols, out)?;
                for value in out {
                    let x = f64::from(*value);
                    // ln(e^x - 1), which holds for large x, too; of what is not above 0 there is none.
                    let before = x + (-(-x).exp_m1()).ln();
                    if !before.is_finite() {
                        return Err(self.keys().bad(format!(
                            "tensor {} holds {value}, which no softplus gives; download it again",
                            self.theirs(name)
                        )));
                    }
                    *value = before as f32;
                }
                Ok(())
            }
            Change::Patches => {
                let mut whole = vec![0.0; rows.len() * row_len];
                read(0..row_len, &mut whole)?;
                let side = patch_side(row_len);
                let width = cols.len();
                for (row, out) in whole.chunks_exact(row_len).zip(out.chunks_exact_mut(width)) {
                    for (col, out) in cols.clone().zip(out) {
                        *out = row[col % 3 * side * side + col / 3];
                    }
                }
                Ok(())
            }
        }
    }
}

impl Located for Mmproj {
    fn locate(&self, name: &str, rows: Range<usize>) -> Vec<Location> {
        let located = self.tensors.get(name).map(|Placed { info, shape, .. }| {
            self.gguf.locate_in(info, matrix_shape(shape).0, 0, rows)
        });
        located.into_iter().collect()
    }

    fn look_at(&mut self, pool: &Pool, name: &str, fetch: &mut Fetch<'_>) -> Result<(), PackError> {
        let Some(most) = self.upper.get(name) else {
            return Ok(());
        };
        self.locate(most, 0..1).iter().try_for_each(fetch)?;
        self.look_at_bound(pool, name, most)
    }
}

impl Source for Mmproj {
    fn path_of(&self, _name: &str) -> &Path {
        &self.gguf.path
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.tensors.get(name).map(|placed| Described {
            shape: placed.shape.clone(),
            dtype: match placed.change {
                // What comes of a logarithm is no short number.
                Change::Softplus => Dtype::F32,
                Change::None | Change::Patches => placed.info.block_type.plain(),
            },
            block_bits: match placed.change {
                Change::None => placed.info.block_type.bits(),
                Change::Patches | Change::Softplus => None,
            },
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
        self.rectangle(pool, name, rows, cols, out)
    }

    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        self.place(self.placed(name)?)
            .groups(pool, rows, cols, groups)
    }
}

/// Side of a patch, of which each pixel has three values.
fn patch_side(values: usize) -> usize {
    (values / 3).isqrt()
}

/// `[rows, 3 side²]` as it is stored: `[rows, 3, side, side]`.
fn patches_of(shape: &[usize]) -> Vec<usize> {
    let (rows, values) = matrix_shape(shape);
    let side = patch_side(values);
    vec![rows, 3, side, side]
}

#[cfg(test)]
mod tests;
