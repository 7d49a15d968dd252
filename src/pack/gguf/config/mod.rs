//! `config.json` from the keys of a GGUF file.

mod gemma3n;
mod gemma4;

use std::path::Path;

use serde_json::Value as Json;

use super::super::error::PackError;
use super::header::{Header, Value};
use super::others::GEMMA_4;

/// A decoder deeper than this is none that is read; it bounds every list that is made here.
const MAX_LAYERS: f64 = 1024.0;

/// Ids with a meaning.
pub(super) struct Ids {
    pub(super) bos: u32,
    pub(super) pad: u32,
    /// What ends an answer.
    pub(super) eos: Vec<u32>,
}

/// The file's text. `rotated_pairs` are those of a full-attention head that turn, where the file says how many.
pub(super) fn config_json(
    header: &Header,
    path: &Path,
    ids: &Ids,
    rotated_pairs: Option<usize>,
) -> Result<String, PackError> {
    let bad = || PackError::Gguf {
        path: path.to_owned(),
        reason: "it does not name its architecture".to_owned(),
    };
    // Others were refused with the header.
    let keys = Keys {
        header,
        path,
        architecture: header.architecture().ok_or_else(bad)?,
    };
    let mut config = match keys.architecture {
        GEMMA_4 => gemma4::config(&keys, rotated_pairs)?,
        _ => gemma3n::config(&keys)?,
    };
    config["bos_token_id"] = ids.bos.into();
    config["pad_token_id"] = ids.pad.into();
    config["eos_token_id"] = ids.eos.clone().into();
    Ok(format!("{config:#}\n"))
}

/// The keys of an architecture, without its name.
struct Keys<'a> {
    header: &'a Header,
    path: &'a Path,
    architecture: &'a str,
}

impl Keys<'_> {
    fn bad(&self, reason: String) -> PackError {
        PackError::Gguf {
            path: self.path.to_owned(),
            reason,
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.values.get(&self.full(key))
    }

    fn optional(&self, key: &str) -> Result<Option<f64>, PackError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(Some(*n)),
            // Where every layer has the same number, some writers list it for each.
            Some(Value::Numbers(list)) if list.windows(2).all(|w| w[0] == w[1]) => {
                Ok(list.first().copied())
            }
            Some(_) => Err(self.bad(format!("{} is no number", self.full(key)))),
        }
    }

    fn missing(&self, key: &str) -> PackError {
        self.bad(format!("key {} is missing", self.full(key)))
    }

    fn required(&self, key: &str) -> Result<f64, PackError> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number; what is read of the configuration afterwards refuses those that are too large.
    fn size(&self, key: &str) -> Result<u64, PackError> {
        self.whole(key, self.required(key)?)
    }

    fn whole(&self, key: &str, n: f64) -> Result<u64, PackError> {
        if n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0 {
            Ok(n as u64)
        } else {
            Err(self.bad(format!(
                "{} is {n}, expected a whole number",
                self.full(key)
            )))
        }
    }

    /// A whole number for each layer, listed or the same for all.
    fn sizes(&self, key: &str, layers: usize) -> Result<Vec<u64>, PackError> {
        match self.numbers(key, layers)? {
            Some(list) => list.iter().map(|&n| self.whole(key, n)).collect(),
            None => Ok(vec![self.size(key)?; layers]),
        }
    }

    fn layers(&self) -> Result<usize, PackError> {
        let layers = self.required("block_count")?;
        if (1.0..=MAX_LAYERS).contains(&layers) {
            Ok(layers as usize)
        } else {
            Err(self.bad(format!("{} is {layers}", self.full("block_count"))))
        }
    }

    fn numbers(&self, key: &str, len: usize) -> Result<Option<Vec<f64>>, PackError> {
        match self.get(key) {
            None | Some(Value::Number(_)) => Ok(None),
            Some(Value::Numbers(list)) if list.len() == len => Ok(Some(list.clone())),
            Some(Value::Numbers(list)) => Err(self.bad(format!(
                "{} has {} items for {len} layers",
                self.full(key),
                list.len()
            ))),
            Some(_) => Err(self.bad(format!("{} is no list of numbers", self.full(key)))),
        }
    }

    fn shape(&self, tensor: &str) -> Result<&[usize], PackError> {
        let found = self.header.tensors.get(tensor);
        found.map(|info| &info.shape[..]).ok_or_else(|| {
            self.bad(format!(
                "tensor {tensor} is missing: the file is no whole {}",
                match self.architecture {
                    GEMMA_4 => "Gemma 4",
                    _ => "Gemma 3n",
                }
            ))
        })
    }
}

/// What `config.json` calls a layer's attention; any number but 0 is a sliding one.
fn layer_types(sliding: &[f64]) -> Json {
    let name = |&sliding: &f64| match sliding {
        0.0 => "full_attention",
        _ => "sliding_attention",
    };
    sliding.iter().map(name).collect()
}
