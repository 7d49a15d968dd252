//! The service, told of another model: only a restart takes one.

use std::path::Path;

use super::super::failure::note;
use super::super::procfs;
use super::super::service::systemctl;

/// What became of the daemon that runs with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    /// None runs.
    None,
    /// The service was started again.
    Restarted,
    /// It is not the service's, or this user may not restart it.
    AsBefore,
}

/// Restarts the service where it runs with this configuration. A reload keeps the model, since nothing answers while one is loaded.
pub(super) fn restart(config: &Path) -> Daemon {
    if !procfs::runs_with(config) {
        return Daemon::None;
    }
    if !systemctl("is-active") {
        return Daemon::AsBefore;
    }
    note("gemmad is restarted, and loads the model");
    match systemctl("try-restart") {
        true => Daemon::Restarted,
        false => Daemon::AsBefore,
    }
}
