//! What the keys of an mmproj file say.

use std::path::Path;

use super::super::header::{Header, Value};
use super::names::{self, Found};
use crate::model::weights::Group;
use crate::pack::error::PackError;

/// Whose towers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Gemma4,
    Gemma3n,
}

impl Family {
    const ALL: [Family; 2] = [Family::Gemma4, Family::Gemma3n];

    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Gemma4 => "Gemma 4",
            Family::Gemma3n => "Gemma 3n",
        }
    }

    /// `model_type` of its config.json.
    pub(super) fn model_type(self) -> &'static str {
        match self {
            Family::Gemma4 => "gemma4",
            Family::Gemma3n => "gemma3n",
        }
    }

    /// What llama.cpp calls its towers.
    fn projector(self, group: Group) -> &'static str {
        match (self, group) {
            (Family::Gemma4, Group::Audio) => "gemma4a",
            (Family::Gemma4, _) => "gemma4v",
            (Family::Gemma3n, Group::Audio) => "gemma3na",
            (Family::Gemma3n, _) => "gemma3nv",
        }
    }

    /// Where a tensor is.
    pub(super) fn find(self, canonical: &str) -> Option<Found> {
        match self {
            Family::Gemma4 => names::gemma4(canonical),
            Family::Gemma3n => names::gemma3n(canonical),
        }
    }
}

/// The keys of a file.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) header: &'a Header,
    pub(super) path: &'a Path,
}

/// The part of a key that names a tower.
fn tower(group: Group) -> &'static str {
    match group {
        Group::Audio => "audio",
        _ => "vision",
    }
}

impl Keys<'_> {
    pub(super) fn bad(self, reason: String) -> PackError {
        PackError::Gguf {
            path: self.path.to_owned(),
            reason,
        }
    }

    /// Which towers the file says that it has, and whose they are.
    pub(super) fn towers(self) -> Result<(Family, Vec<Group>), PackError> {
        let (mut family, mut groups) = (None, Vec::new());
        for group in [Group::Audio, Group::Vision] {
            let tower = tower(group);
            let flag = self.header.values.get(&format!("clip.has_{tower}_encoder"));
            let own = format!("clip.{tower}.projector_type");
            let projector = match self.header.values.get(&own) {
                Some(Value::Text(kind)) => Some(kind.as_str()),
                _ => None,
            };
            let projector = match (flag, projector) {
                (Some(Value::Number(0.0)), _) | (None, None) => continue,
                (_, Some(projector)) => projector,
                (Some(_), None) => match self.header.values.get("clip.projector_type") {
                    Some(Value::Text(kind)) => kind,
                    _ => return Err(self.bad(format!("key {own} is missing"))),
                },
            };
            let named = Family::ALL
                .into_iter()
                .find(|family| family.projector(group) == projector);
            let Some(named) = named else {
                return Err(self.bad(format!(
                    "its {tower} projector is {projector:?}, of another model: gemmad takes gemma4v and gemma4a (Gemma 4 E2B and E4B) and gemma3nv (Gemma 3n)"
                )));
            };
            if family.is_some_and(|family| family != named) {
                return Err(self.bad("its towers are of two families".to_owned()));
            }
            family = Some(named);
            groups.push(group);
        }
        match family {
            Some(family) => Ok((family, groups)),
            None => Err(self.bad("it says of no tower that it has it (clip.has_vision_encoder, clip.has_audio_encoder)".to_owned())),
        }
    }

    /// A whole number; what is read of the configuration afterwards refuses those that are too large.
    pub(super) fn size(self, group: Group, key: &str) -> Result<usize, PackError> {
        let key = format!("clip.{}.{key}", tower(group));
        match self.header.values.get(&key) {
            Some(Value::Number(n))
                if *n >= 1.0 && *n <= f64::from(u32::MAX) && n.fract() == 0.0 =>
            {
                Ok(*n as usize)
            }
            Some(Value::Number(n)) => {
                Err(self.bad(format!("{key} is {n}, expected a whole number")))
            }
            Some(_) => Err(self.bad(format!("{key} is no number"))),
            None => Err(self.bad(format!("key {key} is missing"))),
        }
    }

    /// Likewise one that may be missing.
    pub(super) fn size_or(
        self,
        group: Group,
        key: &str,
        default: usize,
    ) -> Result<usize, PackError> {
        let full = format!("clip.{}.{key}", tower(group));
        match self.header.values.contains_key(&full) {
            true => self.size(group, key),
            false => Ok(default),
        }
    }

    /// The shape of a tensor, which has so many dimensions.
    pub(super) fn shape<const N: usize>(self, tensor: &str) -> Result<[usize; N], PackError> {
        let info = self
            .header
            .tensors
            .get(tensor)
            .ok_or_else(|| self.missing(tensor))?;
        <[usize; N]>::try_from(&info.shape[..]).map_err(|_| {
            self.bad(format!(
                "tensor {tensor} has shape {:?}, expected {N} dimensions",
                info.shape
            ))
        })
    }

    pub(super) fn missing(self, tensor: &str) -> PackError {
        self.bad(format!(
            "tensor {tensor} is missing: the file is no whole mmproj; download it again"
        ))
    }
}
