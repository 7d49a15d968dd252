//! The `a{sv}` behind a call: every option is known and of its type, or the caller is told which is meant.

use std::collections::HashMap;

use std::os::fd::OwnedFd;

use zbus::{Fd, OwnedVariant, Variant};

use super::error::Error;
use crate::values::nearest;

/// How alike two names are before one is offered for the other, 0 to 1 (Jaro-Winkler).
const ALIKE: f64 = 0.75;

/// Options that were given and not taken yet.
pub(super) struct Options {
    given: HashMap<String, OwnedVariant>,
    max_text_bytes: usize,
}

impl Options {
    /// # Errors
    /// One of them is none of `known`.
    pub(super) fn new(
        given: HashMap<String, OwnedVariant>,
        known: &[&str],
        max_text_bytes: usize,
    ) -> Result<Options, Error> {
        let mut unknown: Vec<&String> = given
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(Options {
                given,
                max_text_bytes,
            }),
            Some(name) => Err(Error::Invalid(unknown_option(name, known))),
        }
    }

    /// `s`
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.given.remove(name) else {
            return Ok(None);
        };
        let text = String::try_from(value).map_err(|_| wrong(name, "text (s)"))?;
        limited(name, &text, self.max_text_bytes)?;
        Ok(Some(text))
    }

    /// `as`
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(value) = self.given.remove(name) else {
            return Ok(None);
        };
        let texts =
            Vec::<String>::try_from(value).map_err(|_| wrong(name, "a list of texts (as)"))?;
        let bytes: usize = texts.iter().map(String::len).sum();
        if bytes > self.max_text_bytes {
            return Err(too_long(name, bytes, self.max_text_bytes));
        }
        Ok(Some(texts))
    }

    /// `s` that holds JSON
    pub(super) fn json(&mut self, name: &str) -> Result<Option<serde_json::Value>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let value = serde_json::from_str(&text);
        value
            .map(Some)
            .map_err(|error| Error::Invalid(format!("the option `{name}` is not JSON: {error}")))
    }

    /// `b`
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.given.remove(name) else {
            return Ok(None);
        };
        bool::try_from(value)
            .map(Some)
            .map_err(|_| wrong(name, "true or false (b)"))
    }

    /// Any of the whole numbers `y n q i u x t` that is not negative
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.given.remove(name) else {
            return Ok(None);
        };
        let whole = match Variant::from(value) {
            Variant::U8(value) => Some(value.into()),
            Variant::U16(value) => Some(value.into()),
            Variant::U32(value) => Some(value.into()),
            Variant::U64(value) => Some(value),
            Variant::I16(value) => u64::try_from(value).ok(),
            Variant::I32(value) => u64::try_from(value).ok(),
            Variant::I64(value) => u64::try_from(value).ok(),
            _ => None,
        };
        whole
            .map(Some)
            .ok_or_else(|| wrong(name, "a whole number from 0 (u or t)"))
    }

    /// The same, as a number of things in memory
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, Error> {
        let count = self.whole(name)?.map(usize::try_from).transpose();
        count.map_err(|_| wrong(name, "a smaller number"))
    }

    /// `d`, or a whole number
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f32>, Error> {
        if let Some(Variant::F64(value)) = self.given.get(name).map(|value| &**value) {
            let value = *value as f32;
            self.given.remove(name);
            return if value.is_finite() {
                Ok(Some(value))
            } else {
                Err(wrong(name, "a finite number (d)"))
            };
        }
        let whole = self.whole(name).map_err(|_| wrong(name, "a number (d)"))?;
        Ok(whole.map(|value| value as f32))
    }

    /// `h`
    pub(super) fn fd(&mut self, name: &str) -> Result<Option<OwnedFd>, Error> {
        let Some(value) = self.given.remove(name) else {
            return Ok(None);
        };
        let fd = Fd::try_from(value).map_err(|_| wrong(name, "a file descriptor (h)"))?;
        Ok(Some(zbus::OwnedFd::from(fd).into()))
    }
}

/// Refuses text that is too long.
pub(super) fn limited(name: &str, text: &str, max_bytes: usize) -> Result<(), Error> {
    if text.len() > max_bytes {
        return Err(too_long(name, text.len(), max_bytes));
    }
    Ok(())
}

fn too_long(name: &str, bytes: usize, max: usize) -> Error {
    Error::TooLarge(format!(
        "`{name}` has {bytes} bytes; at most {max} are accepted (dbus.max_text_bytes)"
    ))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::Invalid(format!("the option `{name}` must be {expected}"))
}

fn unknown_option(name: &str, known: &[&str]) -> String {
    // The name is the caller's, and may be long.
    let shown: String = name.chars().take(40).collect();
    if known.is_empty() {
        return format!("unknown option `{shown}`; this call has none");
    }
    match nearest(&shown, known, ALIKE) {
        Some(nearest) => format!("unknown option `{shown}`; did you mean `{nearest}`?"),
        None => format!("unknown option `{shown}`; there are {}", known.join(", ")),
    }
}
