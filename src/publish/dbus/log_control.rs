//! `org.freedesktop.LogControl1`: `systemctl service-log-level` reads and sets the level while the daemon runs.

use log::LevelFilter;
use zbus::{fdo, interface};

/// The object that systemd looks for.
pub(super) struct LogControl;

#[interface(name = "org.freedesktop.LogControl1")]
impl LogControl {
    /// emerg, alert, crit, err, warning, notice, info or debug.
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> String {
        let name = match log::max_level() {
            LevelFilter::Off => "emerg",
            LevelFilter::Error => "err",
            LevelFilter::Warn => "warning",
            LevelFilter::Info => "info",
            LevelFilter::Debug | LevelFilter::Trace => "debug",
        };
        name.to_owned()
    }

    #[zbus(property)]
    fn set_log_level(&self, level: &str) -> fdo::Result<()> {
        let level = match level {
            "emerg" => LevelFilter::Off,
            "alert" | "crit" | "err" => LevelFilter::Error,
            "warning" => LevelFilter::Warn,
            "notice" | "info" => LevelFilter::Info,
            "debug" => LevelFilter::Debug,
            _ => {
                return Err(fdo::Error::InvalidArgs(
                    "LogLevel must be emerg, alert, crit, err, warning, notice, info or debug"
                        .to_owned(),
                ));
            }
        };
        log::set_max_level(level);
        Ok(())
    }

    /// journal, or console where the journal is not connected.
    #[zbus(property(emits_changed_signal = "const"))]
    fn log_target(&self) -> String {
        let journal = systemd_journal_logger::connected_to_journal();
        if journal { "journal" } else { "console" }.to_owned()
    }

    /// What the lines of the log are marked with.
    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> String {
        env!("CARGO_PKG_NAME").to_owned()
    }
}
