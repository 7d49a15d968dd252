//! The service, by systemd's own command.

use std::process::{Command, Stdio};

/// Runs `systemctl WHAT` on the service, and asks nobody for a password; whether it did what it was told.
pub(super) fn systemctl(what: &str) -> bool {
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "--quiet", what, "gemmad.service"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
