//! Where log lines go: to the journal with their fields when it listens, else to standard error for people.

use std::str::FromStr;

use log::LevelFilter;
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::config::Log;

/// Installs the logger of this process.
///
/// # Errors
/// An unknown level, or a logger that is installed already.
pub fn install(config: &Log) -> Result<(), String> {
    let level = level(config)?;
    if connected_to_journal() {
        let journal =
            JournalLog::new().map_err(|error| format!("cannot reach the journal: {error}"))?;
        journal
            .with_syslog_identifier("gemmad".to_owned())
            .with_extra_fields([("VERSION", env!("CARGO_PKG_VERSION"))])
            .install()
            .map_err(|error| error.to_string())?;
    } else {
        env_logger::Builder::new()
            .filter_level(LevelFilter::Trace) // the level below decides
            .try_init()
            .map_err(|error| error.to_string())?;
    }
    log::set_max_level(level);
    Ok(())
}

/// The level that a configuration asks for.
pub(super) fn level(config: &Log) -> Result<LevelFilter, String> {
    LevelFilter::from_str(&config.level).map_err(|_| {
        format!(
            "[log] level = {:?}: it must be one of off, error, warn, info, debug, trace",
            config.level
        )
    })
}
