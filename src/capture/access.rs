//! As whom a camera is asked: what it wants is learned from its refusal, and remembered, so that a password goes out in the clear only
//! where nothing better is offered.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::digest::{Challenge, Digest};
use crate::guard::address::Login;
use crate::guard::regular;

/// Longest token, bytes.
const MAX_TOKEN_BYTES: u64 = 8192;

/// What a camera is told of who asks.
pub(super) enum Access {
    /// Nothing.
    Nobody,
    /// User and password, as the camera wants them.
    Login(Login, Wanted),
    /// A bearer token (RFC 6750), read again for every picture.
    Token(PathBuf),
}

/// What a camera was found to want.
pub(super) enum Wanted {
    Unknown,
    Basic,
    Digest(Digest),
}

impl Access {
    pub(super) fn new(bearer_token_file: Option<&Path>, login: Option<Login>) -> Access {
        match (bearer_token_file, login) {
            (Some(path), _) => Access::Token(path.to_owned()),
            (None, Some(login)) => Access::Login(login, Wanted::Unknown),
            (None, None) => Access::Nobody,
        }
    }

    /// The `Authorization` header of a `GET` of `target`; none before the camera asked for one.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(super) fn header(&mut self, target: &str) -> Result<Option<Vec<u8>>, String> {
        match self {
            Access::Nobody | Access::Login(_, Wanted::Unknown) => Ok(None),
            Access::Login(login, Wanted::Basic) => {
                let pair = [&login.user[..], b":", &login.password].concat();
                Ok(Some(
                    format!("Basic {}", STANDARD.encode(pair)).into_bytes(),
                ))
            }
            Access::Login(login, Wanted::Digest(digest)) => Ok(Some(digest.answer(login, target))),
            Access::Token(path) => {
                let token = token(path).map_err(|reason| {
                    format!(
                        "cannot be asked: bearer_token_file: {}: {reason}",
                        path.display()
                    )
                })?;
                Ok(Some(format!("Bearer {token}").into_bytes()))
            }
        }
    }

    /// Learns from a refusal; whether it is worth asking again.
    pub(super) fn learn(&mut self, status: u16, challenges: &[Challenge]) -> bool {
        let Access::Login(_, wanted) = self else {
            return false;
        };
        let next = match (Digest::strongest(challenges), &*wanted) {
            // An answer to a new nonce was refused: the password is wrong.
            (Some(new), Wanted::Digest(old)) if old.answers <= 1 && !new.stale => Wanted::Unknown,
            (Some(new), _) if status == 401 => Wanted::Digest(new),
            // Some refuse without saying what they want.
            (_, Wanted::Unknown) if challenges.is_empty() || offers(challenges, "basic") => {
                Wanted::Basic
            }
            _ => Wanted::Unknown,
        };
        let worthwhile = !matches!(next, Wanted::Unknown);
        *wanted = next;
        worthwhile
    }

    /// A refusal in words.
    pub(super) fn refused(&self, status: u16, challenges: &[Challenge], trusted: bool) -> String {
        let known = challenges.is_empty()
            || offers(challenges, "basic")
            || Digest::strongest(challenges).is_some();
        match self {
            _ if !trusted => format!(
                "refuses with HTTP status {status} where it redirects to: user, password and token go to the host of `url` only"
            ),
            Access::Token(_) => {
                format!("refuses the token of bearer_token_file (HTTP status {status})")
            }
            Access::Login(..) if known => format!(
                "refuses user and password (HTTP status {status}): are they right, and may this user see pictures? characters such as \
                 @ / : # ? % are written percent-encoded (%40 for @)"
            ),
            Access::Login(..) => {
                let wanted: Vec<&str> = challenges.iter().map(|c| c.scheme.as_str()).collect();
                format!(
                    "wants authentication that is not spoken here ({}; HTTP status {status}): let it take Basic or Digest, or fetch through go2rtc",
                    wanted.join(", ")
                )
            }
            Access::Nobody => format!(
                "refuses with HTTP status {status}: give user and password in url, as USER:PASSWORD@ before the host, or bearer_token_file"
            ),
        }
    }
}

fn offers(challenges: &[Challenge], scheme: &str) -> bool {
    challenges
        .iter()
        .any(|challenge| challenge.scheme == scheme)
}

/// The token, which no error shows.
fn token(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    regular::open(path)
        .and_then(|file| file.take(MAX_TOKEN_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    let token = bytes.trim_ascii();
    let fits = !token.is_empty() && token.len() as u64 <= MAX_TOKEN_BYTES;
    match token.iter().all(u8::is_ascii_graphic) && fits {
        true => Ok(String::from_utf8_lossy(token).into_owned()),
        false => Err(format!(
            "it holds no token: one word of at most {MAX_TOKEN_BYTES} ASCII characters"
        )),
    }
}
