//! Names that requests give and mean.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::error::{ErrorBody, ErrorCode};

/// Longest name that a request may give or mean, bytes: of a camera, a slice, a conversation, a job, of the request itself.
pub const MAX_NAME_BYTES: usize = 256;

/// What may be the name of something. What longer ones do is at best to fill the answer that refuses them.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// # Errors
    /// It is too long; `key` is what the asker calls it.
    pub fn new(key: &str, name: String) -> Result<Name, ErrorBody> {
        check_name(key, &name)?;
        Ok(Name(name))
    }

    pub(super) fn optional(key: &str, name: Option<String>) -> Result<Option<Name>, ErrorBody> {
        name.map(|name| Name::new(key, name)).transpose()
    }
}

impl Deref for Name {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Name, String> {
        Name::new("name", name).map_err(|error| error.message)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) fn check_name(key: &str, name: &str) -> Result<(), ErrorBody> {
    let bytes = name.len();
    if bytes > MAX_NAME_BYTES {
        let message = format!("`{key}` has {bytes} bytes; no name has more than {MAX_NAME_BYTES}");
        return Err(ErrorBody::new(ErrorCode::TooLarge, message));
    }
    Ok(())
}
