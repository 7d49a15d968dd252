//! The key that clients send.

use std::io::Read;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::HttpError;
use super::options::{HttpServerOptions, LEAST_KEY_BYTES};
use crate::guard::regular;

/// The cookie of the page.
pub(super) const COOKIE_NAME: &str = "gemmad";

/// Longest key, bytes.
const MAX_KEY_BYTES: u64 = 4096;

/// The key, and what a browser shows in its place. Only hashes are kept.
pub(super) struct Key {
    key: [u8; 32],
    session: String,
}

impl Key {
    fn new(key: &str) -> Key {
        let hash: [u8; 32] = Sha256::digest(key).into();
        // Another key is another session; who has the cookie cannot tell the key.
        let session = hex::encode(
            Sha256::new()
                .chain_update(b"gemmad session\n")
                .chain_update(hash)
                .finalize(),
        );
        Key { key: hash, session }
    }

    /// Whether a client has the key. What it sends takes the same time wherever it differs.
    pub(super) fn is(&self, sent: &[u8]) -> bool {
        Sha256::digest(sent).ct_eq(&self.key).into()
    }

    /// What a browser keeps.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// Whether a browser shows what it was given.
    pub(super) fn is_session(&self, shown: &[u8]) -> bool {
        shown.ct_eq(self.session.as_bytes()).into()
    }
}

/// Reads the key, where one is configured.
pub(super) fn load(options: &HttpServerOptions) -> Result<Option<Key>, HttpError> {
    let (key, path) = match (&options.api_key_file, &options.api_key_credential) {
        (Some(path), _) => ("api_key_file", path.clone()),
        (None, Some(name)) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| HttpError::NoCredentials { name: name.clone() })?;
            ("api_key_credential", PathBuf::from(directory).join(name))
        }
        (None, None) => return Ok(None),
    };
    let bad = |reason: String| HttpError::Key {
        key,
        path: path.clone(),
        reason,
    };
    let mut text = String::new();
    regular::open(&path)
        .and_then(|file| file.take(MAX_KEY_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| bad(error.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    let odd = |c: char| !c.is_ascii_graphic();
    if text.len() as u64 > MAX_KEY_BYTES || text.len() < LEAST_KEY_BYTES || text.contains(odd) {
        return Err(bad(format!(
            "a key is {LEAST_KEY_BYTES} to {MAX_KEY_BYTES} characters of ASCII without spaces; make one with: openssl rand -hex 24"
        )));
    }
    Ok(Some(Key::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_and_nothing_else() {
        let key = Key::new("0123456789abcdef");
        assert!(key.is(b"0123456789abcdef"));
        for other in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdeF",
            b"0123456789abcdef0",
        ] {
            assert!(!key.is(other));
        }
        assert!(key.is_session(key.session().as_bytes()) && !key.is_session(b""));
        assert!(!key.is(key.session().as_bytes()));
        assert_ne!(Key::new("0123456789abcdeg").session(), key.session());
    }

    #[test]
    fn files_that_hold_no_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let options = HttpServerOptions {
            api_key_file: Some(path.clone()),
            ..HttpServerOptions::default()
        };
        assert!(load(&options).is_err());
        for (text, good) in [
            ("0123456789abcdef\n", true),
            ("short\n", false),
            ("0123456789 abcdef", false),
            ("0123456789äbcdef", false),
            ("", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(load(&options).is_ok(), good, "{text:?}");
        }
        assert!(load(&HttpServerOptions::default()).unwrap().is_none());
    }
}
