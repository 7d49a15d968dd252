//! Why the hub did not give what was asked: one line each, with what to do.

use std::path::PathBuf;

/// A request to the hub, or what came of it. No message holds a token, nor the signed part of an address.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// HF_HUB_OFFLINE is set.
    #[error(
        "{what} is not in the cache ({cache}), and HF_HUB_OFFLINE forbids to ask the hub: unset it, or download on another machine"
    )]
    Offline {
        /// What was wanted.
        what: String,
        /// The directory of the cache.
        cache: PathBuf,
    },
    /// An environment variable or a file of settings.
    #[error("{name} {reason}")]
    Setting {
        /// The variable or the file.
        name: String,
        /// What is wrong with it and what to do; never its contents.
        reason: String,
    },
    /// Whoever answers is not the hub.
    #[error(
        "{host} does not answer as the model hub ({reason}): is there a page that asks to log in to this network, or a proxy in between? Open it in a browser, or set HF_ENDPOINT"
    )]
    NotTheHub {
        /// Who answered.
        host: String,
        /// What shows it.
        reason: String,
    },
    /// A repository has no such revision.
    #[error("{repository} has no revision {revision:?}: look at {page} for its branches and tags")]
    NoRevision {
        /// The repository.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// Its page.
        page: String,
    },
    /// A repository has no such file.
    #[error("{repository} has no file {file:?} at {revision}: it has {others}")]
    NoFile {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// What it has instead, shortened.
        others: String,
    },
    /// No repository of that name, or a private one.
    #[error("{repository} is not on the hub, or is private: check the name{}", if *with_token { "; the token that was sent may not read it" } else { "; if it is private, set HF_TOKEN to a token that may read it" })]
    NoRepository {
        /// The repository.
        repository: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// Its terms are to be accepted first, and nobody is logged in.
    #[error(
        "{repository} is given to those who accepted its terms: log in at {page} and accept them there; make a token with the right to read public gated repositories, and give it as HF_TOKEN or by `hf auth login`"
    )]
    Gated {
        /// The repository.
        repository: String,
        /// Where to accept.
        page: String,
    },
    /// Logged in, and the terms are not accepted.
    #[error(
        "the account of this token has not accepted the terms of {repository}, or waits for approval: open {page} and accept them"
    )]
    NotAccepted {
        /// The repository.
        repository: String,
        /// Where to accept.
        page: String,
    },
    /// The token may not do this.
    #[error(
        "the token may not read {repository}: a fine-grained token needs the right \"read access to contents of all public gated repos you can access\"; give it that right or make another{said}"
    )]
    Forbidden {
        /// The repository.
        repository: String,
        /// The hub's own words, in brackets.
        said: String,
    },
    /// The hub does not know the token.
    #[error(
        "the hub does not know the token of {origin}: it was revoked, or is not copied whole; make a new one"
    )]
    BadToken {
        /// Where the token comes from.
        origin: String,
    },
    /// The repository was taken down.
    #[error("{repository} was taken down by the hub: its files cannot be had any more")]
    Disabled {
        /// The repository.
        repository: String,
    },
    /// Too many requests.
    #[error(
        "the hub wants fewer requests from this address (status 429): try again in {wait_s} s; with a token (HF_TOKEN) it allows more"
    )]
    TooMany {
        /// Seconds to wait, as it says.
        wait_s: u64,
    },
    /// The server has a fault.
    #[error("{host} has a fault (status {status}): try again later; what is downloaded stays")]
    Server {
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// A status that nothing else explains.
    #[error("{host} answers with HTTP status {status}{said}")]
    Status {
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its own words, in brackets.
        said: String,
    },
    /// No connection, or it broke.
    #[error("{host} {reason}; run the same command again, and it goes on where it was")]
    Unreachable {
        /// Whom the connection is to.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// TLS says that it is not who it should be.
    #[error("{host} cannot be trusted: {reason}; is the clock of this board right (timedatectl)?")]
    Untrusted {
        /// Whom the connection is to.
        host: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {reason}: it is not followed")]
    Redirect {
        /// Who redirects.
        host: String,
        /// Where to.
        reason: String,
    },
    /// Another file than the one that was begun with.
    #[error(
        "{file} changed on the hub meanwhile ({reason}): run the same command again, and it begins with the new one"
    )]
    Changed {
        /// The file.
        file: String,
        /// What is different.
        reason: String,
    },
    /// The server gives whole files only.
    #[error(
        "{host} gives {file} only as a whole (status {status} where a part was asked for): a proxy or mirror in between takes ranges away; set HF_ENDPOINT to one that gives them"
    )]
    NoRanges {
        /// Who answered.
        host: String,
        /// The file.
        file: String,
        /// The HTTP status.
        status: u16,
    },
    /// What came is not what the hub said it would be.
    #[error(
        "{file} came with the hash {found}, and the hub names {expected}: something in between changed it; run the same command again"
    )]
    Hash {
        /// The file.
        file: String,
        /// What the hub says.
        expected: String,
        /// What came.
        found: String,
    },
    /// A list or a file that is too large to be what it should be.
    #[error("{what} has more than {limit_bytes} bytes: that is no model that this program reads")]
    TooLarge {
        /// The file, or the list of files.
        what: String,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// A file here that could not be read or written.
    #[error("cannot {action} {path}: {source}; free some space there, or give another --to")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the same request may work in a while.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            HubError::TooMany { .. } | HubError::Server { .. } | HubError::Unreachable { .. }
        )
    }

    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> HubError {
        move |source| HubError::Io {
            action,
            path: path.into(),
            source,
        }
    }
}
