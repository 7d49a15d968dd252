//! Passwords, and what of TLS is MQTT's.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::MqttError;
use super::options::MqttOptions;
use crate::guard::regular;
use crate::tls::{self, Own, Peer, TlsError};

/// Longest password, bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// What the other side is called, and its keys.
pub(super) const PEER: Peer = Peer {
    name: "broker",
    section: "mqtt.",
};

/// How the connection is encrypted: who is trusted, and the client's own certificate.
pub(super) fn tls(config: &MqttOptions) -> Result<Arc<ClientConfig>, MqttError> {
    let own = match (&config.client_certificate_file, &config.client_key_file) {
        (Some(certificate), Some(key)) => Some(Own { certificate, key }),
        _ => None,
    };
    tls::client(PEER, config.ca_file.as_deref(), own).map_err(|error| match error {
        TlsError::File { key, path, reason } => MqttError::File { key, path, reason },
        error => MqttError::Tls(error),
    })
}

fn bad(key: &'static str, path: &Path, reason: impl std::fmt::Display) -> MqttError {
    MqttError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// User and password, where there are any.
pub(super) fn login(config: &MqttOptions) -> Result<Option<(String, String)>, MqttError> {
    if config.username.is_empty() {
        return Ok(None);
    }
    let (key, path) = match (&config.password_file, &config.password_credential) {
        (Some(path), _) => ("password_file", path.clone()),
        (None, Some(name)) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| MqttError::NoCredentials { name: name.clone() })?;
            ("password_credential", PathBuf::from(directory).join(name))
        }
        (None, None) => return Ok(Some((config.username.clone(), String::new()))),
    };
    let mut password = String::new();
    // While it is read nothing is sent: a pipe is not waited for.
    regular::open(&path)
        .and_then(|file| {
            file.take(MAX_PASSWORD_BYTES + 1)
                .read_to_string(&mut password)
        })
        .map_err(|error| bad(key, &path, error))?;
    if password.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(bad(
            key,
            &path,
            "it is longer than a password may be, 4096 bytes",
        ));
    }
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    Ok(Some((config.username.clone(), password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "secret\n").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let with = |path: &Path| {
            login(&MqttOptions {
                username: "pi".to_owned(),
                password_file: Some(path.to_owned()),
                ..MqttOptions::default()
            })
        };
        let known = ("pi".to_owned(), "secret".to_owned());
        assert_eq!(with(&file).unwrap(), Some(known));
        let told = with(&pipe).unwrap_err().to_string();
        assert!(
            told.contains("mqtt.password_file") && told.ends_with("it is no file"),
            "{told}"
        );
    }
}
