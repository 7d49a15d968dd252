//! The state directory: there, for this user only, and for this process only.

use std::path::{Path, PathBuf};

use super::{DaemonError, state};
use crate::config::Config;
use crate::guard::lock::{self, Lock};

/// The file in the state directory that tells whose it is.
const LOCK: &str = "gemmad.lock";

/// Takes the state directory for this process, and makes it if it is missing. Where no lock can be had, nothing can be written either:
/// then the daemon runs without, as it does without the directory.
pub(super) fn take(directory: &Path, config: &Config) -> Result<Option<Lock>, DaemonError> {
    let files = [&config.mqtt.spool_file, &config.guess.earlier_answers_file];
    let files = files.map(|path| path.as_ref()?.file_name()?.to_str());
    let ours = |name: &str| {
        let is_of_file = files.iter().flatten().any(|file| name.starts_with(file));
        name == LOCK || name == "models" || name.starts_with(state::FILE) || is_of_file
    };
    let taken = lock::claim(directory, &directory.join(LOCK), ours);
    taken.map_err(|reason| DaemonError::InUse {
        directory: directory.to_owned(),
        reason,
    })
}

/// The directory of switches: the one that systemd made, else the packaged one.
pub fn default_state_directory() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY")
        .map_or_else(|| Path::new("/var/lib/gemmad").to_owned(), PathBuf::from)
}
