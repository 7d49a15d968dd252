//! Whom TLS connections trust, for brokers and cameras alike: the authorities of `ca_file` or of the system, and the very
//! certificates that stand there.
//!
//! Home-made TLS is often one self-signed certificate that the server has and the clients are given. Such a certificate may be no
//! authority, or claim to be one, or be of X.509 version 1; it is trusted where the server shows exactly that certificate, proves to
//! have its key, is within its dates, and is asked for by a name that stands in it, as mosquitto's own clients do.

mod certificate;
mod fault;
mod secure;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use fault::{Fault, fault};
pub use secure::{Encrypted, Secure};
use verifier::Verifier;

/// The other side, in the words that people are told.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// What it is, `broker`.
    pub name: &'static str,
    /// What stands before the names of the keys in gemmad.toml, `mqtt.`; may be empty.
    pub section: &'static str,
}

/// The certificate that a client shows, and its key.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Certificate and those between it and its authority, PEM.
    pub certificate: &'a Path,
    /// The key, PEM, not encrypted.
    pub key: &'a Path,
}

/// TLS cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or of a key.
    #[error("{key}: {path}: {reason}")]
    File {
        /// The key that names it, without its section.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate authority is known.
    #[error(
        "the system has no certificates of authorities: install ca-certificates, or set ca_file"
    )]
    NoAuthorities,
    /// It cannot be set up.
    #[error("TLS: {0}")]
    Setup(String),
}

/// How to connect: whom to trust, and what to show of ourselves. Without `ca_file` the system's certificates are trusted.
///
/// # Errors
/// A file cannot be read or does not hold what its key says; the system trusts nobody.
pub fn client(
    peer: Peer,
    ca_file: Option<&Path>,
    own: Option<Own<'_>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let mut roots = RootCertStore::empty();
    let known = match ca_file {
        Some(path) => {
            let known = certificates("ca_file", path)?;
            for certificate in &known {
                roots
                    .add(certificate.clone())
                    .map_err(|error| bad("ca_file", path, error))?;
            }
            known
        }
        None => {
            let known = rustls_native_certs::load_native_certs().certs;
            // Some of the system's certificates may be of kinds that rustls does not read.
            let (taken, _) = roots.add_parsable_certificates(known.iter().cloned());
            if taken == 0 {
                return Err(TlsError::NoAuthorities);
            }
            known
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(peer, ca_file.is_some(), known, roots, &provider)
        .map_err(|error| setup(&error))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own {
        Some(Own { certificate, key }) => {
            let chain = certificates("client_certificate_file", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| bad("client_key_file", key, no_key(error)))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| {
                    let reason = match error {
                        rustls::Error::InconsistentKeys(_) => {
                            format!("{} is not the key of this certificate", key.display())
                        }
                        error => error.to_string(),
                    };
                    bad("client_certificate_file", certificate, reason)
                })?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(key, path, error))?;
    if found.is_empty() {
        return Err(bad(
            key,
            path,
            "it holds no certificate in PEM form; of one in DER form it is made by: openssl x509 -inform DER -in FILE -out FILE.pem",
        ));
    }
    Ok(found)
}

fn no_key(error: rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "it holds no private key in PEM form without a password".to_owned()
        }
        error => error.to_string(),
    }
}

fn bad(key: &'static str, path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// How clients are met: with a certificate, those between it and its authority, and its key.
///
/// # Errors
/// A file cannot be read or does not hold what its key says, or the key is not the certificate's.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("tls_certificate_file", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| bad("tls_key_file", key, no_key(error)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    config
        .map(Arc::new)
        .map_err(|error| bad("tls_certificate_file", certificate, error))
}
