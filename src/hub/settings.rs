//! Where the hub is, as whom it is asked, and where downloads of other programs lie: by the variables that the Python client reads.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::error::HubError;
use crate::guard::address::Address;
use crate::guard::regular;

const ENDPOINT: &str = "https://huggingface.co";
/// The name of a systemd credential, beside the variables of the Python client.
const CREDENTIAL: &str = "hf_token";
const MAX_TOKEN_BYTES: u64 = 4096;

/// A token. There is no way to print it.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: String,
    /// Where it comes from, in words.
    pub(super) origin: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token of {}", self.origin)
    }
}

/// How the hub is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub itself.
    pub(super) endpoint: Address,
    /// The same without a slash at its end, for addresses below it.
    pub(super) base: String,
    pub(super) token: Option<Token>,
    /// What the Python client has downloaded.
    pub cache: Cache,
    /// Nothing may be asked.
    pub offline: bool,
    /// How often a request that failed is repeated.
    pub retries: u32,
}

impl Settings {
    /// Reads this process's environment, and the token file.
    ///
    /// # Errors
    /// A variable or the file holds what it cannot.
    pub fn from_environment(retries: u32) -> Result<Settings, HubError> {
        Settings::of(&|name| std::env::var_os(name), retries)
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, retries: u32) -> Result<Settings, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let is_on = |name: &str| {
            let value = set(name).unwrap_or_default().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].iter().any(|on| value == *on)
        };
        let caches = path("XDG_CACHE_HOME")
            .or_else(|| Some(path("HOME")?.join(".cache")))
            .unwrap_or_else(|| PathBuf::from("/var/cache"));
        let home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.join("hub"));
        let base = text(set("HF_ENDPOINT"), "HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.to_owned());
        let base = base.trim_end_matches('/').to_owned();
        let bad = |reason: &str| HubError::Setting {
            name: "HF_ENDPOINT".to_owned(),
            reason: format!("{reason}; it is written https://HOST[:PORT][/PATH]"),
        };
        let endpoint = Address::parse(&base).map_err(bad)?;
        if endpoint.login.is_some() {
            return Err(bad("names a user, which is no way to log in to the hub"));
        }
        if base.contains(['?', '#']) {
            return Err(bad("has a query"));
        }
        Ok(Settings {
            endpoint,
            base,
            token: match is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                true => None,
                false => token(&set, &home)?,
            },
            cache: Cache::new(cache),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            retries,
        })
    }
}

fn text(value: Option<OsString>, name: &str) -> Result<Option<String>, HubError> {
    let Some(value) = value else { return Ok(None) };
    let value = value.into_string().map_err(|_| HubError::Setting {
        name: name.to_owned(),
        reason: "is not UTF-8".to_owned(),
    })?;
    Ok(Some(value))
}

/// The token: of a variable, of a systemd credential, or of the file that `hf auth login` writes.
fn token(set: &dyn Fn(&str) -> Option<OsString>, home: &Path) -> Result<Option<Token>, HubError> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(secret) = text(set(name), name)? {
            return checked(&secret, name.to_owned());
        }
    }
    let credential = set("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(CREDENTIAL));
    let file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
    for path in credential.into_iter().chain([file]) {
        let origin = path.display().to_string();
        let unreadable = |error: std::io::Error| HubError::Setting {
            name: origin.clone(),
            reason: format!("cannot be read: {error}; mend it, or set HF_TOKEN"),
        };
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let mut secret = String::new();
        file.take(MAX_TOKEN_BYTES + 1)
            .read_to_string(&mut secret)
            .map_err(unreadable)?;
        return checked(&secret, origin);
    }
    Ok(None)
}

fn checked(secret: &str, origin: String) -> Result<Option<Token>, HubError> {
    let secret = secret.trim();
    if secret.is_empty() {
        return Ok(None);
    }
    if secret.len() as u64 > MAX_TOKEN_BYTES || !secret.chars().all(|c| c.is_ascii_graphic()) {
        return Err(HubError::Setting {
            name: origin,
            reason: "holds no token: that is one line such as hf_...".to_owned(),
        });
    }
    Ok(Some(Token {
        secret: secret.to_owned(),
        origin,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::of(&find, 0)
    }

    /// As `huggingface_hub.constants` has it.
    #[test]
    fn places_are_those_of_the_python_client() {
        let cache = |variables: &[(&str, &str)]| {
            let found = of(variables).unwrap();
            found.cache.root().display().to_string()
        };
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), "/h/.cache/huggingface/hub");
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            "/x/huggingface/hub"
        );
        assert_eq!(cache(&[home, ("HF_HOME", "/y")]), "/y/hub");
        assert_eq!(cache(&[home, ("HUGGINGFACE_HUB_CACHE", "/z")]), "/z");
        let both = [("HF_HUB_CACHE", "/n"), ("HUGGINGFACE_HUB_CACHE", "/z")];
        assert_eq!(cache(&both), "/n");
        for (value, offline) in [("1", true), ("yes", true), ("0", false), ("", false)] {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, offline);
        }
    }

    #[test]
    fn the_token_is_found_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        let secret = |variables: &[(&str, &str)]| {
            let settings = of(variables).unwrap();
            let shown = format!("{settings:?}");
            let secrets = ["hf_file", "hf_credential", "hf_variable"];
            assert!(
                !secrets.iter().any(|secret| shown.contains(secret)),
                "{shown}"
            );
            settings.token.map(|token| token.secret)
        };
        let home = ("HF_HOME", at);
        assert_eq!(secret(&[home]), None);
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(secret(&[home]).as_deref(), Some("hf_file"));
        std::fs::write(dir.path().join("hf_token"), " hf_credential ").unwrap();
        let credentials = ("CREDENTIALS_DIRECTORY", at);
        assert_eq!(
            secret(&[home, credentials]).as_deref(),
            Some("hf_credential")
        );
        let variable = ("HF_TOKEN", "hf_variable");
        assert_eq!(
            secret(&[home, credentials, variable]).as_deref(),
            Some("hf_variable")
        );
        let none = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(secret(&[home, none, variable]), None);
        let told = of(&[("HF_TOKEN", "hf_a b")]).unwrap_err().to_string();
        assert!(
            told.contains("HF_TOKEN") && !told.contains("hf_a"),
            "{told}"
        );
    }

    #[test]
    fn an_endpoint_is_an_address_without_a_login() {
        let base = |value| of(&[("HF_ENDPOINT", value)]).map(|settings| settings.base);
        assert_eq!(base("http://a:8080/hf/").unwrap(), "http://a:8080/hf");
        assert_eq!(base("").unwrap(), ENDPOINT);
        for value in ["a", "ftp://a", "http://u:s3cret@a", "http://a/?k=s3cret"] {
            let told = base(value).unwrap_err().to_string();
            assert!(
                told.contains("HF_ENDPOINT") && !told.contains("s3cret"),
                "{told}"
            );
        }
    }
}
