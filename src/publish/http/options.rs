//! `[http]`: OpenAI's and Ollama's protocols, and the page.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use serde::Deserialize;

use crate::values::between;

/// `[http]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Http")]
pub struct HttpServerOptions {
    /// Listen for clients.
    pub enabled: bool,
    /// Address and port.
    pub listen: SocketAddr,
    /// File with the key that clients must send, its trailing newline ignored.
    pub api_key_file: Option<PathBuf>,
    /// Name of the systemd credential with the key (`LoadCredential=`).
    pub api_key_credential: Option<String>,
    /// Listen to other machines, and let whoever reaches the port ask.
    pub allow_without_key: bool,
    /// The server's certificate and those between it and its authority, PEM.
    pub tls_certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key_file: Option<PathBuf>,
    /// Names that clients may call this server by, besides those of a home network.
    pub hosts: Vec<String>,
    /// Web sites that may ask from a browser, as `https://NAME[:PORT]`.
    pub origins: Vec<String>,
    /// Web sites that may show the page in a frame.
    pub frame_ancestors: Vec<String>,
    /// Further names of the model.
    pub aliases: Vec<String>,
    /// Connections at a time.
    pub max_clients: usize,
    /// Largest request, bytes.
    pub max_body_bytes: usize,
    /// Largest request with a sound to write down, bytes.
    pub max_audio_bytes: usize,
    /// Memory for requests that are being read, of all clients together, MiB.
    pub max_bodies_mib: usize,
    /// Pictures and sounds of one request.
    pub max_media: usize,
    /// Longest time that a client may take to send a request, or to take a piece of an answer, seconds.
    pub patience_s: u32,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Calls name nothing that a list of what is in the house does not, where there is one.
    pub closed_names: bool,
    /// Seconds from its request after which an answer is given up.
    pub deadline_s: u32,
}

/// What the shortest header takes, and a question.
const LEAST_BODY_BYTES: usize = 4096;
/// More than any client sends.
const MOST_BODY_BYTES: usize = 1 << 30;
/// Shorter keys are guessed.
pub(super) const LEAST_KEY_BYTES: usize = 16;

impl Default for HttpServerOptions {
    fn default() -> HttpServerOptions {
        HttpServerOptions {
            enabled: false,
            listen: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 11_434),
            api_key_file: None,
            api_key_credential: None,
            allow_without_key: false,
            tls_certificate_file: None,
            tls_key_file: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            frame_ancestors: Vec::new(),
            aliases: Vec::new(),
            max_clients: 64,
            max_body_bytes: 16 << 20,
            max_audio_bytes: 25 << 20,
            max_bodies_mib: 64,
            max_media: 16,
            patience_s: 30,
            max_tokens: 2048,
            closed_names: true,
            deadline_s: 600,
        }
    }
}

impl HttpServerOptions {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        if self.api_key_file.is_some() && self.api_key_credential.is_some() {
            return Err(
                "http.api_key_file and http.api_key_credential are both given: keep one".to_owned(),
            );
        }
        if let Some(name) = &self.api_key_credential
            && (name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            return Err(format!(
                "http.api_key_credential is {name:?}; it is the name that LoadCredential= gives, not a path"
            ));
        }
        if self.enabled
            && !self.listen.ip().is_loopback()
            && !self.has_key()
            && !self.allow_without_key
        {
            return Err(format!(
                "http.listen is {}, which other machines reach: give http.api_key_file, or say http.allow_without_key = true",
                self.listen
            ));
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return Err(
                "http.tls_certificate_file and http.tls_key_file go together: one is missing"
                    .to_owned(),
            );
        }
        for origin in self.origins.iter().chain(&self.frame_ancestors) {
            let host = origin.split_once("://").map(|(_, host)| host);
            let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ';' | ',');
            if host.is_none_or(|host| host.is_empty() || host.contains(odd)) {
                return Err(format!(
                    "http.origins and http.frame_ancestors have {origin:?}; an origin is written https://NAME[:PORT]"
                ));
            }
        }
        if let Some(name) = self.aliases.iter().find(|name| name.is_empty()) {
            return Err(format!("http.aliases has {name:?}, which is no name"));
        }
        let bodies = [
            ("http.max_body_bytes", self.max_body_bytes),
            ("http.max_audio_bytes", self.max_audio_bytes),
        ];
        for (key, bytes) in bodies {
            between(key, bytes, LEAST_BODY_BYTES, MOST_BODY_BYTES)?;
            if bytes.div_ceil(1 << 20) > self.max_bodies_mib {
                return Err(format!(
                    "http.max_bodies_mib is {}, less than {key} needs",
                    self.max_bodies_mib
                ));
            }
        }
        between("http.max_clients", self.max_clients, 1, 4096)?;
        between("http.max_bodies_mib", self.max_bodies_mib, 1, 4096)?;
        between("http.max_media", self.max_media, 0, 1024)?;
        between("http.patience_s", self.patience_s, 1, 3600)?;
        between("http.max_tokens", self.max_tokens, 1, 1 << 20)?;
        between("http.deadline_s", self.deadline_s, 1, 86_400)
    }

    /// Whether clients need a key.
    pub fn has_key(&self) -> bool {
        self.api_key_file.is_some() || self.api_key_credential.is_some()
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        self.tls_certificate_file.is_some()
    }

    /// Where it is reached from this machine.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls() { "https" } else { "http" };
        let ip = self.listen.ip();
        let host = match ip {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        format!("{scheme}://{host}:{}", self.listen.port())
    }

    /// Where other machines reach it, if it is to be reached by them: where it listens on every address, the one that they see.
    pub fn url_for_others(&self) -> String {
        let listen = match own_address() {
            Some(ip) if self.listen.ip().is_unspecified() => {
                SocketAddr::new(ip, self.listen.port())
            }
            _ => self.listen,
        };
        let seen = HttpServerOptions {
            listen,
            ..self.clone()
        };
        seen.url()
    }
}

/// The address that this machine has towards others, if it has any. Nothing is sent: the system only looks up the way.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation, which is nobody's (RFC 5737).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_key_or_a_word() {
        let open = HttpServerOptions {
            enabled: true,
            listen: SocketAddr::from(([0, 0, 0, 0], 11_434)),
            ..HttpServerOptions::default()
        };
        assert!(open.check().unwrap_err().contains("api_key_file"));
        let with = |change: fn(&mut HttpServerOptions)| {
            let mut options = open.clone();
            change(&mut options);
            options.check()
        };
        assert_eq!(with(|o| o.allow_without_key = true), Ok(()));
        assert_eq!(with(|o| o.api_key_file = Some("/etc/key".into())), Ok(()));
        assert_eq!(with(|o| o.enabled = false), Ok(()));
        assert_eq!(
            with(|o| o.listen = SocketAddr::from(([127, 0, 0, 1], 1))),
            Ok(())
        );
        assert_eq!(HttpServerOptions::default().check(), Ok(()));
        assert_eq!(open.url(), "http://127.0.0.1:11434");
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let wrong = |change: fn(&mut HttpServerOptions)| {
            let mut options = HttpServerOptions::default();
            change(&mut options);
            options.check().unwrap_err()
        };
        assert!(wrong(|o| o.tls_key_file = Some("k".into())).contains("tls_certificate_file"));
        assert!(wrong(|o| o.origins = vec!["ha.local".to_owned()]).contains("https://NAME"));
        assert!(wrong(|o| o.frame_ancestors = vec!["https://a; b".to_owned()]).contains("origin"));
        assert!(wrong(|o| o.max_body_bytes = 1).contains("http.max_body_bytes is 1"));
        assert!(wrong(|o| o.max_bodies_mib = 16).contains("max_audio_bytes"));
        assert!(wrong(|o| o.max_clients = 0).contains("http.max_clients is 0"));
        assert!(wrong(|o| o.api_key_credential = Some("/a".to_owned())).contains("LoadCredential"));
    }
}
