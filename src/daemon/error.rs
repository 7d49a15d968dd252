//! Why there is no daemon, or none any more.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::guard::lock::LockError;
use crate::pipeline::EngineError;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model.
    #[error(transparent)]
    Model(#[from] EngineError),
    /// A slice that is configured, but not served by the model.
    #[error("[matformer] {key} = {name:?}: the model has no such slice; it has {slices}")]
    Slice {
        /// `slice` or `degraded_slice`.
        key: &'static str,
        /// The value.
        name: String,
        /// What there is.
        slices: String,
    },
    /// A slice that is configured of a model that has none.
    #[error(
        "[matformer] {key} = {name:?}: the model has no MatFormer slices: leave the key out; what spares a board then is fewer threads while it is degraded ([degrade] threads), pictures of fewer soft tokens ([vision]), a pack of recipe small, or a smaller model (gemmad plan lists them)"
    )]
    NoSlices {
        /// `slice` or `degraded_slice`.
        key: &'static str,
        /// The value.
        name: String,
    },
    /// A value that can only be judged where it is used: a certificate, a password, a command.
    #[error("{0}")]
    Setting(String),
    /// Two daemons would overwrite each other's switches.
    #[error(
        "the state directory {directory}: {reason}; stop that one, or give this one a directory of its own (--state-dir)"
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Who has it.
        reason: LockError,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The inference thread is gone.
    #[error("the inference thread ended unexpectedly; its last words are in the log")]
    WorkerGone,
}
