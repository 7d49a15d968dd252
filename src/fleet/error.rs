//! Why a board is not in the fleet.

use std::path::PathBuf;

use crate::tls::TlsError;

/// What keeps a board out of the fleet, in one line.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file that is configured.
    #[error("fleet.{key}: {path}: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be used as it is configured.
    #[error("fleet: {0}")]
    Tls(TlsError),
    /// There is no connection.
    #[error("the NATS server at {url} {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// The server keeps nothing.
    #[error(
        "the NATS server at {url} has no JetStream for this account: start it with -js, or write `jetstream {{}}` into its configuration"
    )]
    NoJetStream {
        /// The server.
        url: String,
    },
    /// The server does not do what is needed.
    #[error("the NATS server at {url}: cannot {action}: {reason}")]
    Refused {
        /// The server.
        url: String,
        /// What was to be done.
        action: &'static str,
        /// Its answer.
        reason: String,
    },
}
