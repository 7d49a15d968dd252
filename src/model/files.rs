//! The small files of a checkpoint, read with a bound; and what people have in the place of a checkpoint or of one of its files.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most that config.json and its like may have; the real ones have 8 kB. A parsed value takes up to a hundred times its text.
pub(crate) const MAX_JSON_BYTES: u64 = 256 << 10;

/// The longest value that [`SmallValue`] and [`keys`] take, for the same reason.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Reads a small text file, without the mark of byte order that some editors put in front.
///
/// # Errors
/// The system's, or [`io::ErrorKind::InvalidData`]: the file has more than `limit_bytes`, or is something else altogether.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(length.min(limit_bytes) as usize + 1);
    if length <= limit_bytes {
        // What is no regular file tells no length.
        file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    }
    if length.max(bytes.len() as u64) > limit_bytes {
        return Err(invalid(format!(
            "it has more than {limit_bytes} bytes, the most that such a file may have"
        )));
    }
    if let Some(what) = instead_of_file(&bytes) {
        return Err(invalid(what.to_owned()));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// What a file is that begins like this, and what to do; `None` where nothing is known against it.
pub(crate) fn instead_of_file(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    let begins = |word: &str| {
        text.get(..word.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(word.as_bytes()))
    };
    if text.starts_with(b"version https://git-lfs.github.com/spec/") {
        Some(
            "it is a Git LFS pointer, which stands for the real file: run `git lfs pull` in its directory, or download the file again",
        )
    } else if begins("<!doctype html") || begins("<html") {
        Some(
            "it is a web page, perhaps one that asks to log in: download the file again, logged in",
        )
    } else {
        None
    }
}

/// What stands at `path` where the directory of a checkpoint should, and what to do; `None` where nothing is known about it.
pub(crate) fn instead_of_checkpoint(path: &Path) -> Option<String> {
    if path.is_file() {
        return Some(instead_of_directory(path));
    }
    let names = names(path)?;
    let ending = |endings: &[&str]| {
        let found = names
            .iter()
            .find(|name| endings.iter().any(|ending| name.ends_with(ending)));
        found.map(String::as_str)
    };
    let has = |name: &str| names.iter().any(|found| found == name);
    if has("adapter_config.json") || has("adapter_model.safetensors") {
        return Some(format!(
            "it holds a LoRA adapter alone, which is a change{} and no model: merge it first (`merge_and_unload()` of peft), save the whole model, and give that",
            base_of_adapter(path)
        ));
    }
    if has("snapshots") && has("refs") {
        return Some(
            "it is a folder of a download cache: give the directory below its snapshots".to_owned(),
        );
    }
    if let Some(name) = ending(&[".gguf"]) {
        return Some(format!(
            "it holds {name}, a file of llama.cpp: {}",
            pack_it(&path.join(name))
        ));
    }
    if let Some(name) = ending(&[".task", ".litertlm", ".tflite"]) {
        return Some(litert(name));
    }
    if has("config.json") {
        if let Some(name) = ending(&[".bin", ".pth", ".pt"]) {
            return Some(format!(
                "its weights are in {name}, in a format that can hold programs: save the model again as safetensors"
            ));
        }
        let name = ending(&[".safetensors"])?;
        return Some(
            match names.iter().filter(|n| n.ends_with(".safetensors")).count() {
                1 => format!(
                    "its weights are in {name}: if they are whole, call them model.safetensors"
                ),
                _ => format!(
                    "it holds {name} and others, but no model.safetensors.index.json, which says what is where: download that, too"
                ),
            },
        );
    }
    let inner = names
        .iter()
        .find(|name| path.join(name).join("config.json").is_file())?;
    Some(format!(
        "its config.json lies in {inner}: give {}",
        path.join(inner).display()
    ))
}

/// What lies in a directory, in alphabetical order; of a crowded one the first thousand that come.
fn names(path: &Path) -> Option<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(1000)
        .collect();
    names.sort();
    Some(names)
}

/// A file was given where a directory is expected.
fn instead_of_directory(path: &Path) -> String {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    let ends = |ending: &str| path.extension().is_some_and(|found| found == ending);
    if read.is_ok() && start.starts_with(b"GGUF") {
        return format!("it is a file of llama.cpp: {}", pack_it(path));
    }
    if let Some(what) = instead_of_file(&start) {
        return what.to_owned();
    }
    if ends("task") || ends("litertlm") || ends("tflite") {
        return litert(&path.file_name().unwrap_or_default().to_string_lossy());
    }
    "it is a file: give the directory that holds config.json, tokenizer.json and the weights"
        .to_owned()
}

/// The command that makes a pack of a file of llama.cpp, ready to paste, and what to do then.
fn pack_it(gguf: &Path) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    let quoted = |path: String| match path.chars().all(plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    };
    let from = quoted(gguf.display().to_string());
    let stem = gguf.file_stem().unwrap_or_default().to_string_lossy();
    let pack = quoted(format!("{stem}.pack"));
    format!(
        "make a pack of it with `gemmad pack --from {from} --to {pack}`, and give that, as --model {pack}"
    )
}

fn litert(name: &str) -> String {
    format!(
        "{name} is a model for LiteRT (MediaPipe): take the checkpoint of safetensors that Google publishes beside it"
    )
}

/// ` to MODEL`, where the adapter names it.
fn base_of_adapter(dir: &Path) -> String {
    let base = read(&dir.join("adapter_config.json"), MAX_JSON_BYTES)
        .ok()
        .and_then(|json| keys(&json, &["base_model_name_or_path"]).ok());
    match base.as_ref().map(|keys| &keys["base_model_name_or_path"]) {
        Some(Value::String(name)) if name.len() < 200 => format!(" to {name}"),
        _ => String::new(),
    }
}

/// A value that is parsed only where it is short: a text of a few bytes may stand for a large tree.
#[derive(Default)]
pub(crate) struct SmallValue(pub(crate) Value);

impl<'de> Deserialize<'de> for SmallValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw.len() > MAX_VALUE_BYTES {
            return Err(D::Error::custom(format!(
                "a value of {} bytes, of which {MAX_VALUE_BYTES} are allowed",
                raw.len()
            )));
        }
        serde_json::from_str(raw)
            .map(SmallValue)
            .map_err(D::Error::custom)
    }
}

/// The values of some keys of a JSON object; the others are passed over and cost nothing.
pub(crate) fn keys(json: &[u8], wanted: &[&str]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Keys(wanted).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Value::Object(found))
}

struct Keys<'w>(&'w [&'w str]);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut found = Map::new();
        while let Some(Key(key)) = map.next_key()? {
            if self.0.contains(&&*key) {
                found.insert(key.into_owned(), map.next_value::<SmallValue>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
