//! Verifies the certificate that a server shows: as usual, or as the very certificate that was given.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::Peer;
use super::certificate::Certificate;
use super::fault::{Distrusted, distrust};

/// Trusts authorities, and the certificates themselves.
#[derive(Debug)]
pub(super) struct Verifier {
    peer: Peer,
    /// They are those of `ca_file`, not the system's.
    given: bool,
    known: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        peer: Peer,
        given: bool,
        known: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, rustls::client::VerifierBuilderError> {
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()?;
        Ok(Verifier {
            peer,
            given,
            known,
            authorities,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// The certificate is one of those that were given: no one has to vouch for it. Its dates and its names count all the same; those
    /// without a subjectAltName have their common name.
    fn very_certificate(
        &self,
        shown: &CertificateDer<'_>,
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(certificate) = Certificate::read(shown) else {
            return Err(CertificateError::BadEncoding.into());
        };
        let (not_before, not_after) = certificate.validity();
        if now < not_before {
            return Err(CertificateError::NotValidYetContext {
                time: now,
                not_before,
            }
            .into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext {
                time: now,
                not_after,
            }
            .into());
        }
        if certificate.alternative_names().is_none() && certificate.is_commonly_named(host) {
            return Ok(());
        }
        if certificate.version() < 3 {
            return Err(CertificateError::NotValidForName.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, host)
    }

    /// Certificates of the first versions are read by [`Certificate`] only. They come here only as those that were given.
    fn before_version_3(certificate: &CertificateDer<'_>) -> Option<Certificate> {
        Certificate::read(certificate).filter(|found| found.version() < 3)
    }

    fn tls12_signature(
        &self,
        message: &[u8],
        certificate: &Certificate,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (algorithm, key) = certificate
            .algorithm_and_key()
            .ok_or(CertificateError::BadEncoding)?;
        let schemes = self.algorithms.mapping;
        let (_, candidates) = schemes
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let fitting = |candidate: &&&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            candidate.public_key_alg_id().as_ref() == algorithm.as_slice()
        };
        let valid = candidates.iter().filter(fitting).any(|candidate| {
            candidate
                .verify_signature(key, message, signed.signature())
                .is_ok()
        });
        if valid {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }

    /// The library's error as one that says what to do.
    fn told(
        &self,
        error: Error,
        shown: &CertificateDer<'_>,
        host: Option<&ServerName<'_>>,
    ) -> Error {
        let Error::InvalidCertificate(error) = error else {
            return error;
        };
        let distrusted = Distrusted {
            error: &error,
            certificate: Certificate::read(shown),
            host,
            given: self.given,
        };
        let fault = distrust(self.peer, &distrusted);
        CertificateError::Other(rustls::OtherError(Arc::new(fault))).into()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = if self.known.iter().any(|known| known == end_entity) {
            self.very_certificate(end_entity, server_name, now)
                .map(|()| ServerCertVerified::assertion())
        } else {
            self.authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )
        };
        verified.map_err(|error| self.told(error, end_entity, Some(server_name)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match Self::before_version_3(cert) {
            Some(old) => self.tls12_signature(message, &old, dss),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
        .map_err(|error| self.told(error, cert, None))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match Self::before_version_3(cert) {
            Some(old) => old
                .public_key()
                .ok_or_else(|| CertificateError::BadEncoding.into())
                .and_then(|key| {
                    verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
                }),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
        .map_err(|error| self.told(error, cert, None))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
