//! `[fleet]`: which server joins the boards, as whom, and what this board does there.

use std::path::PathBuf;

use serde::Deserialize;

use crate::guard::address::host_and_port;
use crate::guard::secret::without_secrets;
use crate::values::between;

/// What a board does in the fleet.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It sends all its work; it opens no model.
    Source,
    /// It works for others, and sends nothing.
    Worker,
    /// It works for others, and sends what waits for its own model while another board is idle.
    #[default]
    Both,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Worker => "worker",
            Role::Both => "both",
        }
    }

    /// Whether it works for others.
    pub fn works(self) -> bool {
        self != Role::Source
    }

    /// Whether it sends work.
    pub fn sends(self) -> bool {
        self != Role::Worker
    }
}

/// `[fleet]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Fleet")]
pub struct FleetOptions {
    /// Join the fleet.
    pub enabled: bool,
    /// `nats://HOST[:PORT]`, or `tls://` for TLS; several of a cluster are separated by commas.
    pub url: String,
    /// File with the credentials (`.creds`) or the NKey seed of this board.
    pub credentials_file: Option<PathBuf>,
    /// Certificates to trust, PEM: of authorities, or the server's very own; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub client_certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key_file: Option<PathBuf>,
    /// Name of the fleet, `[a-z0-9_-]`: boards of other fleets at the same server do other work.
    pub group: String,
    /// What this board does.
    pub role: Role,
    /// Jobs of this board that may be away at a time.
    pub jobs: usize,
    /// Room for the jobs of each kind at the server, MiB.
    pub store_mib: usize,
    /// Servers of a cluster that keep each job.
    pub replicas: usize,
}

impl Default for FleetOptions {
    fn default() -> FleetOptions {
        FleetOptions {
            enabled: false,
            url: "nats://localhost:4222".to_owned(),
            credentials_file: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            group: "home".to_owned(),
            role: Role::Both,
            jobs: 8,
            store_mib: 64,
            replicas: 1,
        }
    }
}

impl FleetOptions {
    /// Whether the values fit together.
    ///
    /// # Errors
    /// The first that does not, with the key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let tls = self.is_encrypted()?;
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if self.group.is_empty() || self.group.len() > 64 || !self.group.chars().all(part) {
            return Err(format!(
                "fleet.group is {:?}; it must be 1 to 64 of a-z, 0-9, _ and -",
                self.group
            ));
        }
        if self.client_certificate_file.is_some() != self.client_key_file.is_some() {
            return Err(
                "fleet.client_certificate_file and fleet.client_key_file go together: one is missing"
                    .to_owned(),
            );
        }
        if !tls && (self.ca_file.is_some() || self.client_certificate_file.is_some()) {
            return Err("fleet has certificates, but fleet.url is not tls://".to_owned());
        }
        between("fleet.jobs", self.jobs, 1, 64)?;
        between("fleet.store_mib", self.store_mib, 1, 65_536)?;
        between("fleet.replicas", self.replicas, 1, 5)
    }

    /// Whether connections are encrypted.
    ///
    /// # Errors
    /// `url` has something that is no address of a server; the message says why.
    pub fn is_encrypted(&self) -> Result<bool, String> {
        let wrong = |why: &str| {
            format!(
                "fleet.url is {:?}, {why}; it is written nats://HOST[:PORT], or tls://HOST[:PORT] for TLS, several separated by commas",
                without_secrets(&self.url)
            )
        };
        let mut schemes = Vec::new();
        for address in self.url.split(',') {
            let (scheme, rest) = address
                .trim()
                .split_once("://")
                .ok_or_else(|| wrong("without a scheme"))?;
            if !["nats", "tls"].contains(&scheme) {
                return Err(wrong("of an unknown scheme"));
            }
            if rest.contains('@') {
                return Err(
                    "fleet.url names a user: use fleet.credentials_file, with credentials or an NKey seed"
                        .to_owned(),
                );
            }
            host_and_port(rest.strip_suffix('/').unwrap_or(rest))
                .map_err(|why| wrong(&format!("which {why}")))?;
            schemes.push(scheme);
        }
        let encrypted = schemes.contains(&"tls");
        match encrypted && schemes.contains(&"nats") {
            true => Err(wrong("partly with TLS and partly without")),
            false => Ok(encrypted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encrypted(url: &str) -> Result<bool, String> {
        let url = url.to_owned();
        FleetOptions {
            url,
            ..FleetOptions::default()
        }
        .is_encrypted()
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(encrypted("nats://localhost"), Ok(false));
        assert_eq!(
            encrypted("tls://a.example:4222, tls://b.example/"),
            Ok(true)
        );
        for (url, why) in [
            ("localhost", "without a scheme"),
            ("http://x", "unknown scheme"),
            ("nats://", "bad host"),
            ("nats://h:0", "bad port"),
            ("nats://u:p@h", "credentials_file"),
            ("nats://a,tls://b", "partly"),
        ] {
            let told = encrypted(url).unwrap_err();
            assert!(told.contains(why) && !told.contains(":p@"), "{told}");
        }
    }
}
