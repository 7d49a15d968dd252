//! What people switched, kept across restarts: mutes, cameras, the slice. Written when it changes, whole or not at all.
//!
//! What is read is judged key by key: what no longer fits is left out, and said. Whatever may have been lost with a damaged
//! file or key is taken as closed: a mute must not end because of a torn page.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::capture::options::SpeakerOptions;
use crate::config::Config;
use crate::guard::harmless::short;
use crate::guard::private;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "state.json";

/// What it is called while it is written: one name, so that what a power cut left is written over, and none pile up.
const PARTIAL: &str = "state.json.partial";

/// What a damaged one is called afterwards. Without a file, it tells that there was one.
const DAMAGED: &str = "state.json.damaged";

/// Larger is no file of switches, bytes.
const MAX_BYTES: u64 = 256 << 10;

/// Names that a warning lists.
const MAX_NAMES: usize = 8;

/// Switches that survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Switches {
    /// Microphone to whether it is muted.
    pub(super) muted: BTreeMap<String, bool>,
    /// Microphone to whether it listens for wake words.
    pub(super) wakes: BTreeMap<String, bool>,
    /// Camera to whether it is enabled.
    pub(super) enabled: BTreeMap<String, bool>,
    /// Camera to whether it describes pictures unasked.
    pub(super) captions: BTreeMap<String, bool>,
    /// The slice that answers unless a request names one.
    pub(super) matformer: Option<String>,
    /// Tokens of an answer at most.
    pub(super) max_tokens: Option<usize>,
    /// How loud the speaker is, percent.
    pub(super) volume: Option<u8>,
    closed: Closed,
}

/// What was once lost with a damaged file: of these, what nobody has switched since stays closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Closed {
    microphones: bool,
    cameras: bool,
    captions: bool,
}

impl Closed {
    const ALL: Closed = Closed {
        microphones: true,
        cameras: true,
        captions: true,
    };
}

impl Switches {
    /// Whether a microphone is muted.
    pub(super) fn is_muted(&self, id: &str) -> bool {
        let lost = self.closed.microphones;
        self.muted.get(id).copied().unwrap_or(lost)
    }

    /// Whether a microphone listens for wake words.
    pub(super) fn wakes(&self, id: &str) -> bool {
        self.wakes.get(id).copied().unwrap_or(true)
    }

    /// Whether a camera is enabled.
    pub(super) fn is_enabled(&self, id: &str) -> bool {
        let lost = self.closed.cameras;
        self.enabled.get(id).copied().unwrap_or(!lost)
    }

    /// Whether a camera describes pictures unasked.
    pub(super) fn has_captions(&self, id: &str) -> bool {
        let lost = self.closed.captions;
        self.captions.get(id).copied().unwrap_or(!lost)
    }

    /// How loud the speaker is, percent.
    pub(super) fn volume(&self, speaker: &SpeakerOptions) -> u8 {
        self.volume.unwrap_or(speaker.volume)
    }

    /// Forgets a slice that is none of the model's; whether it did.
    pub(super) fn fit_model(&mut self, slices: &[String]) -> bool {
        let gone = self.matformer.take_if(|name| !slices.contains(name));
        if let Some(name) = &gone {
            log::warn!(
                "the slice {:?} was chosen for an earlier model; this one has {}: the choice is forgotten",
                short(name),
                slices.join(", ")
            );
        }
        gone.is_some()
    }
}

/// The file of the switches.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of `directory`, and what it holds of the devices and limits that are configured.
    ///
    /// One that cannot be read, or is none, closes every microphone and camera, and is kept beside: a mute may be lost with it.
    pub(super) fn open(directory: &Path, config: &Config) -> (StateFile, Switches) {
        let file = StateFile {
            path: directory.join(FILE),
        };
        let shown = file.path.display();
        // Of a write that the power cut off: never read, and of no use.
        std::fs::remove_file(file.beside(PARTIAL)).ok();
        let found = file.bytes().and_then(|bytes| match bytes {
            Some(bytes) => Kept::read(&bytes, config).map(Some),
            None if file.beside(DAMAGED).symlink_metadata().is_ok() => Err(format!(
                "it is missing, and {DAMAGED} beside it tells that it was damaged (remove that, too, to begin anew)"
            )),
            None => Ok(None),
        });
        let (switches, changed) = match found {
            Ok(Some(kept)) => {
                for left_out in &kept.left_out {
                    log::warn!("{shown}: {left_out}");
                }
                (kept.switches, !kept.left_out.is_empty())
            }
            Ok(None) => (Switches::default(), false),
            Err(reason) => {
                log::error!(
                    "{shown}: {reason}; every microphone is muted and every camera disabled until it is switched on again; \
                     what was there is kept as {DAMAGED}"
                );
                file.put_aside();
                let closed = Closed::ALL;
                let switches = Switches {
                    closed,
                    ..Switches::default()
                };
                (switches, true)
            }
        };
        if changed {
            file.save(&switches);
        }
        (file, switches)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// What the file holds; nothing where there is none. Whatever stands in its place, this neither waits nor follows.
    fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(_) if self.path.is_symlink() => {
                return Err("it is a symbolic link, which is not followed".to_owned());
            }
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err("it is no file".to_owned());
        }
        private::tighten(&self.path);
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!(
                "it has {} bytes: too large for a file of switches",
                metadata.len()
            ));
        }
        Ok(Some(bytes))
    }

    /// Keeps what is there under another name. A file stays in its place, too, until another takes it: there is no moment
    /// without one.
    fn put_aside(&self) {
        if self.path.symlink_metadata().is_err() {
            return; // what stands aside was damaged before, and is all that tells of it until the file is written
        }
        let aside = self.beside(DAMAGED);
        std::fs::remove_file(&aside).ok();
        let kept =
            std::fs::hard_link(&self.path, &aside).or_else(|_| std::fs::rename(&self.path, &aside));
        match kept {
            Ok(()) => private::tighten(&aside),
            Err(error) => log::warn!("cannot keep {} as {DAMAGED}: {error}", self.path.display()),
        }
    }

    /// Writes the switches: beside the file, synchronised, then in its place.
    pub(super) fn save(&self, switches: &Switches) {
        match self.try_save(switches) {
            Ok(()) => log::debug!("{} is written", self.path.display()),
            Err(error) => log::error!(
                "cannot write {}: {error}; what was switched will be forgotten at the next restart",
                self.path.display()
            ),
        }
    }

    fn try_save(&self, switches: &Switches) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(switches)?;
        let partial = self.beside(PARTIAL);
        let mut file = private::create_anew(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&partial, &self.path)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

/// What a file holds of use, and what it holds besides.
struct Kept {
    switches: Switches,
    /// Each in words.
    left_out: Vec<String>,
}

impl Kept {
    /// # Errors
    /// It is no JSON object: nothing of it can be told.
    fn read(bytes: &[u8], config: &Config) -> Result<Kept, String> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not the JSON that was written: {error}"))?;
        let Value::Object(mut fields) = value else {
            return Err("it is not the JSON object that was written".to_owned());
        };
        let microphones: Vec<&str> = config.microphone.iter().map(|m| m.id.as_str()).collect();
        let cameras: Vec<&str> = config.camera.iter().map(|c| c.id.as_str()).collect();
        let mut kept = Kept {
            switches: Switches::default(),
            left_out: Vec::new(),
        };
        let mut closed = kept.closed(&mut fields);
        let muted = kept.switches_of(&mut fields, "muted", "microphone", &microphones, true);
        let wakes = kept.switches_of(&mut fields, "wakes", "microphone", &microphones, false);
        let enabled = kept.switches_of(&mut fields, "enabled", "camera", &cameras, false);
        let captions = kept.switches_of(&mut fields, "captions", "camera", &cameras, false);
        closed.microphones |= muted.is_none();
        closed.cameras |= enabled.is_none();
        closed.captions |= captions.is_none();
        kept.switches = Switches {
            muted: muted.unwrap_or_default(),
            wakes: wakes.unwrap_or_default(),
            enabled: enabled.unwrap_or_default(),
            captions: captions.unwrap_or_default(),
            matformer: kept.matformer(&mut fields),
            max_tokens: kept.number(
                &mut fields,
                "max_tokens",
                1..=config.queue.max_tokens,
                " ([queue] max_tokens)",
            ),
            volume: kept.number(&mut fields, "volume", 0..=100, ""),
            closed,
        };
        if !fields.is_empty() {
            let names = names(fields.keys().map(String::as_str));
            kept.left_out
                .push(format!("unknown keys are left out: {names}"));
        }
        Ok(kept)
    }

    /// Devices to whether they are muted, enabled or the like; `None` where that is lost. `closed` is the value that shuts one.
    /// Of devices that are not configured that value is kept: they may come back.
    fn switches_of(
        &mut self,
        fields: &mut Map<String, Value>,
        key: &str,
        device: &str,
        configured: &[&str],
        closed: bool,
    ) -> Option<BTreeMap<String, bool>> {
        let entries = match fields.remove(key) {
            None => return Some(BTreeMap::new()),
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                self.left_out.push(format!(
                    "`{key}` is no table: what it said is lost, and every {device} that it may have shut stays so until it is switched"
                ));
                return None;
            }
        };
        let (mut found, mut wrong, mut gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (id, value) in entries {
            let is_configured = configured.contains(&id.as_str());
            let value = value.as_bool().unwrap_or_else(|| {
                wrong.push(id.clone());
                closed
            });
            if is_configured || value == closed {
                found.insert(id, value);
            } else {
                gone.push(id);
            }
        }
        if !wrong.is_empty() {
            let names = names(wrong.iter().map(String::as_str));
            self.left_out.push(format!(
                "`{key}` is neither true nor false for {names}: taken as {closed}"
            ));
        }
        if !gone.is_empty() {
            let names = names(gone.iter().map(String::as_str));
            self.left_out
                .push(format!("`{key}`: no {device} is called {names}: left out"));
        }
        Some(found)
    }

    fn matformer(&mut self, fields: &mut Map<String, Value>) -> Option<String> {
        match fields.remove("matformer")? {
            Value::Null => None,
            Value::String(name) if !name.is_empty() => Some(name),
            _ => {
                let left_out = "`matformer` is no name of a slice: it is left out".to_owned();
                self.left_out.push(left_out);
                None
            }
        }
    }

    /// A number within its bounds; `from` says where they come from.
    fn number<T: TryFrom<u64> + PartialOrd + Display>(
        &mut self,
        fields: &mut Map<String, Value>,
        key: &str,
        bounds: RangeInclusive<T>,
        from: &str,
    ) -> Option<T> {
        let value = fields.remove(key)?;
        if value.is_null() {
            return None;
        }
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        let fits = number.filter(|number| bounds.contains(number));
        if fits.is_none() {
            self.left_out.push(format!(
                "`{key}` is {}, but must be {} to {}{from}: it is left out",
                short(&value.to_string()),
                bounds.start(),
                bounds.end()
            ));
        }
        fits
    }

    fn closed(&mut self, fields: &mut Map<String, Value>) -> Closed {
        match fields.remove("closed") {
            None | Some(Value::Bool(false)) => Closed::default(),
            // As it was written once.
            Some(Value::Bool(true)) => Closed::ALL,
            Some(value) => {
                let of = |key: &str| value.get(key).and_then(Value::as_bool);
                match (of("microphones"), of("cameras"), of("captions")) {
                    (Some(microphones), Some(cameras), Some(captions)) => Closed {
                        microphones,
                        cameras,
                        captions,
                    },
                    _ => {
                        let lost = "`closed` cannot be read: whatever nobody switches stays closed";
                        self.left_out.push(lost.to_owned());
                        Closed::ALL
                    }
                }
            }
        }
    }
}

/// Some names from outside, for a message.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let first = all.iter().take(MAX_NAMES);
    let mut listed: Vec<String> = first.map(|name| format!("{:?}", short(name))).collect();
    if all.len() > MAX_NAMES {
        listed.push(format!("and {} more", all.len() - MAX_NAMES));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests;
