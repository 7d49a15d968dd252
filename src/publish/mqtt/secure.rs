//! Certificates and passwords.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::MqttError;
use crate::config;

/// Longest password, bytes.
const MOST_PASSWORD_BYTES: u64 = 4096;

/// How the connection is encrypted: the authorities that are trusted, and the client's own certificate.
pub(super) fn tls(config: &config::Mqtt) -> Result<Arc<ClientConfig>, MqttError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| bad("ca_file", path, error))?;
            }
        }
        None => {
            // Some of the system's certificates may be of kinds that rustls does not read.
            let found = rustls_native_certs::load_native_certs();
            let (taken, _) = roots.add_parsable_certificates(found.certs);
            if taken == 0 {
                return Err(MqttError::NoAuthorities);
            }
        }
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(MqttError::Tls)?
            .with_root_certificates(roots);
    let config = match (&config.client_certificate_file, &config.client_key_file) {
        (Some(certificate), Some(key_file)) => {
            let chain = certificates("client_certificate_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| bad("client_key_file", key_file, error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| bad("client_certificate_file", certificate, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, MqttError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(key, path, error))?;
    if found.is_empty() {
        return Err(bad(key, path, "it holds no certificate in PEM form"));
    }
    Ok(found)
}

fn bad(key: &'static str, path: &Path, reason: impl std::fmt::Display) -> MqttError {
    MqttError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// User and password, where there are any.
pub(super) fn login(config: &config::Mqtt) -> Result<Option<(String, String)>, MqttError> {
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
    std::fs::File::open(&path)
        .and_then(|file| {
            file.take(MOST_PASSWORD_BYTES + 1)
                .read_to_string(&mut password)
        })
        .map_err(|error| bad(key, &path, error))?;
    if password.len() as u64 > MOST_PASSWORD_BYTES {
        return Err(bad(
            key,
            &path,
            "it is longer than a password may be, 4096 bytes",
        ));
    }
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    Ok(Some((config.username.clone(), password)))
}
