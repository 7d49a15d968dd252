//! `gemmad run`: the daemon.

use std::path::PathBuf;

use super::failure::{Failure, exit};
use crate::config::Config;
use crate::daemon::{self, DaemonError, Options};

/// Listen to microphones, watch cameras, answer requests, and publish over MQTT and D-Bus
///
/// Started by systemd; SIGHUP reads the configuration again, SIGTERM ends it.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
    /// Where mutes and other switches are kept [default: $STATE_DIRECTORY, else /var/lib/gemmad]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the board's /proc and /sys are, in a container that has the host's mounted elsewhere
    #[arg(long, value_name = "DIR", default_value = "/")]
    board_root: PathBuf,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        daemon::install_log(&config.log).map_err(|error| Failure::new(exit::CONFIG, error))?;
        let options = Options {
            config_file: self.config,
            state_directory: self
                .state_dir
                .unwrap_or_else(daemon::default_state_directory),
            board_root: self.board_root,
        };
        daemon::run(config, &options).map_err(Failure::from)
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Failure {
        match error {
            DaemonError::Model(error) => Failure::from(error),
            DaemonError::Config(_)
            | DaemonError::Slice { .. }
            | DaemonError::NoSlices { .. }
            | DaemonError::Setting(_) => Failure::new(exit::CONFIG, error),
            DaemonError::InUse { .. } => Failure::new(exit::UNAVAILABLE, error),
            DaemonError::Io { .. } | DaemonError::WorkerGone => Failure::new(exit::SOFTWARE, error),
        }
    }
}
