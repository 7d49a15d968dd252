//! `[mqtt]`: the broker, what is published there, and how much is accepted.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::guard::address::host_and_port;
use crate::guard::secret::without_secrets;
use crate::values::between;

/// `[mqtt]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Mqtt")]
pub struct MqttOptions {
    /// Publish over MQTT.
    pub enabled: bool,
    /// `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
    pub url: String,
    /// Name of this board in topics, `[a-z0-9_-]`; empty: the host's name.
    pub node: String,
    /// First part of every topic.
    pub base_topic: String,
    /// User at the broker; empty for none.
    pub username: String,
    /// File with the password, its trailing newline ignored; read again before every connection.
    pub password_file: Option<PathBuf>,
    /// Name of the systemd credential with the password (`LoadCredential=`).
    pub password_credential: Option<String>,
    /// Certificates to trust, PEM: of authorities, or the broker's very own; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub client_certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key_file: Option<PathBuf>,
    /// Announce the devices to Home Assistant.
    pub discovery: bool,
    /// First part of Home Assistant's discovery topics.
    pub discovery_prefix: String,
    /// Keep the last transcript, caption and picture on the broker, where every client can read them.
    pub retain_results: bool,
    /// Largest message that is accepted or sent, bytes.
    pub max_payload_bytes: usize,
    /// Largest picture that is published, bytes.
    pub max_image_bytes: usize,
    /// Events kept while the broker is away; the oldest go first.
    pub outbox_events: usize,
    /// Where events wait on disk until the broker has them; absent: in memory only.
    pub spool_file: Option<PathBuf>,
    /// Largest spool, bytes.
    pub spool_max_bytes: u64,
    /// Seconds between two pings to the broker.
    pub keep_alive_s: u16,
    /// Seconds for which the broker may leave a message unacknowledged before the connection is given up.
    pub ack_timeout_s: u16,
}

impl Default for MqttOptions {
    fn default() -> MqttOptions {
        MqttOptions {
            enabled: false,
            url: "mqtt://localhost:1883".to_owned(),
            node: String::new(),
            base_topic: "gemmad".to_owned(),
            username: String::new(),
            password_file: None,
            password_credential: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            discovery: true,
            discovery_prefix: "homeassistant".to_owned(),
            retain_results: true,
            max_payload_bytes: 65_536,
            max_image_bytes: 262_144,
            outbox_events: 1024,
            spool_file: None,
            spool_max_bytes: 4 << 20,
            keep_alive_s: 30,
            ack_timeout_s: 60,
        }
    }
}

/// Where `mqtt.url` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address, an IPv6 address in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl Broker {
    /// Whether it is this machine, so that nobody else can listen on the way.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

/// Largest message that can be allowed, bytes.
const MAX_BYTES: usize = 16 << 20;
/// What Home Assistant's discovery and the longest event need, bytes.
const LEAST_BYTES: usize = 16 << 10;

/// The name of this machine; empty where the system does not tell.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

impl MqttOptions {
    /// The broker that `url` names.
    ///
    /// # Errors
    /// It is no `mqtt://` or `mqtts://` address; the message says why.
    pub fn broker(&self) -> Result<Broker, String> {
        let wrong = |why: &str| {
            format!(
                "mqtt.url is {:?}, {why}; it is written mqtt://HOST[:PORT], or mqtts://HOST[:PORT] for TLS",
                without_secrets(&self.url)
            )
        };
        let (tls, rest) = match self.url.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            Some(_) => return Err(wrong("of an unknown scheme")),
            None => return Err(wrong("without a scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(
                "mqtt.url names a user: use mqtt.username with mqtt.password_file or mqtt.password_credential"
                    .to_owned(),
            );
        }
        let (host, port) = host_and_port(rest).map_err(|why| wrong(&format!("which {why}")))?;
        if tls && host.starts_with('[') {
            return Err(wrong(
                "TLS to a bare IPv6 address, which certificates cannot be checked for: name the host",
            ));
        }
        let port = port.unwrap_or(if tls { 8883 } else { 1883 });
        Ok(Broker { host, port, tls })
    }

    /// Name of this board in topics: `node`, or else the first label of the host's name.
    pub fn node_name(&self) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        slug(&host_name())
    }

    /// Whether the values fit together.
    ///
    /// # Errors
    /// The first that does not, with the key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let broker = self.broker()?;
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if self.node.len() > 64 || !self.node.chars().all(part) {
            return Err(format!(
                "mqtt.node is {:?}; it may have up to 64 of a-z, 0-9, _ and -",
                self.node
            ));
        }
        for (key, topic) in [
            ("base_topic", &self.base_topic),
            ("discovery_prefix", &self.discovery_prefix),
        ] {
            let bad = |c: char| matches!(c, '+' | '#') || c.is_control();
            if topic.is_empty()
                || topic.len() > 128
                || topic.starts_with('$')
                || topic.contains(bad)
                || topic.split('/').any(str::is_empty)
            {
                return Err(format!(
                    "mqtt.{key} is {topic:?}; it must be a topic of up to 128 bytes without +, #, a leading $ and empty levels"
                ));
            }
        }
        if self.password_file.is_some() && self.password_credential.is_some() {
            return Err(
                "mqtt.password_file and mqtt.password_credential are both given: keep one"
                    .to_owned(),
            );
        }
        if self.username.is_empty()
            && (self.password_file.is_some() || self.password_credential.is_some())
        {
            return Err("mqtt has a password but no mqtt.username".to_owned());
        }
        if let Some(name) = &self.password_credential
            && (name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            return Err(format!(
                "mqtt.password_credential is {name:?}; it is the name that LoadCredential= gives, not a path"
            ));
        }
        if self.client_certificate_file.is_some() != self.client_key_file.is_some() {
            return Err(
                "mqtt.client_certificate_file and mqtt.client_key_file go together: one is missing"
                    .to_owned(),
            );
        }
        if !broker.tls && (self.ca_file.is_some() || self.client_certificate_file.is_some()) {
            return Err("mqtt has certificates, but mqtt.url is not mqtts://".to_owned());
        }
        let (least, most) = (LEAST_BYTES, MAX_BYTES);
        between(
            "mqtt.max_payload_bytes",
            self.max_payload_bytes,
            least,
            most,
        )?;
        between("mqtt.max_image_bytes", self.max_image_bytes, 0, most)?;
        between("mqtt.outbox_events", self.outbox_events, 1, 1_000_000)?;
        let least_spool = 2 * self.max_payload_bytes as u64;
        between(
            "mqtt.spool_max_bytes",
            self.spool_max_bytes,
            least_spool,
            1 << 32,
        )?;
        between("mqtt.keep_alive_s", self.keep_alive_s, 5, 3600)?;
        between("mqtt.ack_timeout_s", self.ack_timeout_s, 1, 3600)
    }
}

/// A host's name as a part of a topic.
pub(in crate::publish) fn slug(host: &str) -> String {
    let label = host.trim().split('.').next().unwrap_or_default();
    let allowed = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '_' => c,
        _ => '-',
    };
    let slug: String = label.chars().map(allowed).take(64).collect();
    match slug.trim_matches('-') {
        "" => "gemmad".to_owned(),
        slug => slug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(url: &str) -> Result<Broker, String> {
        let url = url.to_owned();
        MqttOptions {
            url,
            ..MqttOptions::default()
        }
        .broker()
    }

    #[test]
    fn addresses_are_read() {
        for (url, host, port, tls, loopback) in [
            ("mqtt://localhost", "localhost", 1883, false, true),
            (
                "mqtts://broker.example",
                "broker.example",
                8883,
                true,
                false,
            ),
            ("mqtt://127.0.0.1:1884/", "127.0.0.1", 1884, false, true),
            ("mqtt://[::1]:1885", "[::1]", 1885, false, true),
            ("mqtt://[fd00::2]", "[fd00::2]", 1883, false, false),
        ] {
            let found = broker(url).unwrap();
            assert_eq!(
                (found.host.as_str(), found.port, found.tls),
                (host, port, tls)
            );
            assert_eq!(found.is_loopback(), loopback, "{url}");
        }
        for url in [
            "localhost",
            "http://x",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://a b",
            "mqtt://h:0",
            "mqtt://h:99999",
            "mqtt://h:x",
            "mqtt://u:p@h",
            "mqtt://[::1",
            "mqtt://h/path",
            "mqtts://[::1]",
        ] {
            assert!(broker(url).is_err(), "{url}");
        }
    }

    #[test]
    fn host_names_become_parts_of_topics() {
        assert_eq!(slug("Kitchen-Pi.local\n"), "kitchen-pi");
        assert_eq!(slug("pi#1+x"), "pi-1-x");
        assert_eq!(slug("\n"), "gemmad");
        assert_eq!(slug("küche"), "k-che");
    }
}
