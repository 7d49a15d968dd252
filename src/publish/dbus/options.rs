//! `[dbus]`: which bus, and how much is accepted there.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::values::between;

/// `[dbus]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Dbus")]
pub struct DbusOptions {
    /// Own `org.gemmad1` on a bus.
    pub enabled: bool,
    /// `system`, `session`, or a bus address such as `unix:path=/run/…`.
    pub bus: String,
    /// Jobs that one user may have at a time.
    pub jobs_per_user: usize,
    /// Seconds for which a finished job can be asked for its result.
    pub keep_finished_s: u32,
    /// Longest prompt, schema or other text of a call, bytes.
    pub max_text_bytes: usize,
    /// Largest picture or audio file that is read from a file descriptor, bytes.
    pub max_attachment_bytes: usize,
    /// Longest wait for the bytes of a file descriptor, milliseconds.
    pub attachment_timeout_ms: u32,
}

impl Default for DbusOptions {
    fn default() -> DbusOptions {
        DbusOptions {
            enabled: true,
            bus: "system".to_owned(),
            jobs_per_user: 4,
            keep_finished_s: 60,
            max_text_bytes: 65_536,
            max_attachment_bytes: 16 << 20,
            attachment_timeout_ms: 5_000,
        }
    }
}

impl DbusOptions {
    /// Looks whether the values fit their keys, and whether the ids of microphones and of cameras, as `(section, ids)`, can be told apart
    /// on the bus.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self, ids: [(&str, Vec<&str>); 2]) -> Result<(), String> {
        let bus = self.bus.as_str();
        if !matches!(bus, "system" | "session") && !bus.contains(':') {
            return Err(format!(
                "dbus.bus is \"{bus}\"; it must be \"system\", \"session\" or a bus address such as \"unix:path=/run/dbus/system_bus_socket\""
            ));
        }
        if self.jobs_per_user == 0 {
            return Err(
                "dbus.jobs_per_user is 0; to serve nobody on the bus, set dbus.enabled = false"
                    .to_owned(),
            );
        }
        between(
            "dbus.attachment_timeout_ms",
            self.attachment_timeout_ms,
            1,
            20_000,
        )
        .map_err(|told| format!("{told}, because clients wait 25 s for a reply"))?;
        for (section, ids) in ids {
            let mut seen = BTreeMap::new();
            for id in ids {
                // Paths on the bus have no `-`.
                if let Some(other) = seen.insert(id.replace('-', "_"), id) {
                    return Err(format!(
                        "the {section} ids \"{other}\" and \"{id}\" are one on the bus, where - becomes _; rename one of them"
                    ));
                }
            }
        }
        Ok(())
    }
}
