//! `[frigate]`: cameras that Frigate watches.

use std::path::PathBuf;

use serde::Deserialize;

use crate::guard::address::Address;
use crate::values::between;

/// `[frigate]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Frigate")]
pub struct FrigateOptions {
    /// Describe what Frigate's cameras see.
    pub enabled: bool,
    /// Frigate's `mqtt.topic_prefix`, at the broker of `[mqtt]`.
    pub topic: String,
    /// Where its API is, with USER:PASSWORD@ before the host where it asks for a login.
    pub url: String,
    /// A file with a token to send as `Authorization: Bearer`, read again for every request.
    pub bearer_token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust, or Frigate's own one, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for an answer of the API, milliseconds.
    pub timeout_ms: u32,
    /// Frigate's names of the cameras that are described. Each becomes a camera here, of that name in lower case.
    pub cameras: Vec<String>,
    /// What is described; empty: whatever Frigate tracks.
    pub labels: Vec<String>,
    /// Only what was in one of these zones; empty: anywhere.
    pub zones: Vec<String>,
    /// When.
    pub on: Moment,
    /// What is asked about a picture; `{label}`, `{sub_label}`, `{camera}` and `{zones}` are filled in.
    pub prompt: String,
    /// Have the answer tell how many people there are, whether a package is there, and what is done, beside the caption.
    pub structured: bool,
    /// Between two descriptions of a camera at least, seconds.
    pub cooldown_s: u32,
    /// Write what was seen into Frigate's event, as its description.
    pub write_back: bool,
}

/// Cameras at most.
const MAX_CAMERAS: usize = 64;

/// When something that Frigate tracks is described.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// When it is over: Frigate has its best picture then.
    End,
    /// As soon as there is a picture, for a doorbell.
    FirstSnapshot,
}

impl Default for FrigateOptions {
    fn default() -> FrigateOptions {
        FrigateOptions {
            enabled: false,
            topic: "frigate".to_owned(),
            url: "http://127.0.0.1:5000".to_owned(),
            bearer_token_file: None,
            ca_file: None,
            timeout_ms: 10_000,
            cameras: Vec::new(),
            labels: vec!["person".to_owned()],
            zones: Vec::new(),
            on: Moment::End,
            prompt: "A camera saw this {label}. Describe in one sentence what happens.".to_owned(),
            structured: false,
            cooldown_s: 30,
            write_back: true,
        }
    }
}

impl FrigateOptions {
    /// Where the API is.
    ///
    /// # Errors
    /// What is wrong with it, without showing it: it may hold a password.
    pub(super) fn address(&self) -> Result<Address, String> {
        let mut address = Address::parse(self.url.trim_end_matches('/'))
            .map_err(|reason| format!("frigate.url {reason}; it is written http://HOST:5000, or https://USER:PASSWORD@HOST:8971"))?;
        if address.target.contains('?') {
            return Err(
                "frigate.url has a query: it is the address that /api stands behind".to_owned(),
            );
        }
        if address.target == "/" {
            address.target.clear();
        }
        Ok(address)
    }

    /// What a camera of Frigate is called here.
    pub fn id_of(camera: &str) -> String {
        camera.to_ascii_lowercase()
    }

    /// Looks whether the values fit.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        let address = self.address()?;
        if self.ca_file.is_some() && !address.tls {
            return Err(
                "frigate.ca_file is given, but frigate.url does not start with https://".to_owned(),
            );
        }
        if address.login.is_some() && self.bearer_token_file.is_some() {
            return Err(
                "frigate.url names a user, and frigate.bearer_token_file is given: keep one"
                    .to_owned(),
            );
        }
        if self.topic.is_empty() || self.topic.contains(['+', '#']) || self.topic.ends_with('/') {
            return Err(format!(
                "frigate.topic is {:?}; it is Frigate's mqtt.topic_prefix, such as \"frigate\"",
                self.topic
            ));
        }
        between("frigate.timeout_ms", self.timeout_ms, 100, 120_000)?;
        if !(1..=MAX_CAMERAS).contains(&self.cameras.len()) {
            return Err(format!(
                "frigate.cameras names {} cameras; name 1 to {MAX_CAMERAS} of Frigate's configuration that are to be described",
                self.cameras.len()
            ));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let bad = |name: &&String| name.is_empty() || !name.chars().all(fits);
        match self.cameras.iter().find(bad) {
            Some(name) => Err(format!(
                "frigate.cameras has {name:?}; Frigate's names of cameras have letters, digits, `_` and `-`"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let options: FrigateOptions = toml::from_str(text).unwrap();
        options.check()
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check("cameras = [\"Front_Door\", \"yard\"]\nurl = \"http://nvr:5000/\"").unwrap();
        for (text, words) in [
            ("", "frigate.cameras names 0 cameras"),
            ("cameras = [\"a b\"]", "frigate.cameras has \"a b\""),
            (
                "cameras = [\"a\"]\nurl = \"nvr\"",
                "frigate.url has no scheme",
            ),
            (
                "cameras = [\"a\"]\nurl = \"http://nvr/?a=1\"",
                "has a query",
            ),
            (
                "cameras = [\"a\"]\ntopic = \"frigate/#\"",
                "frigate.topic is",
            ),
            ("cameras = [\"a\"]\ntimeout_ms = 1", "frigate.timeout_ms"),
            (
                "cameras = [\"a\"]\nca_file = \"a.pem\"",
                "does not start with https://",
            ),
            (
                "cameras = [\"a\"]\nurl = \"http://u:p@nvr\"\nbearer_token_file = \"t\"",
                "keep one",
            ),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
