//! What went wrong with TLS, and what to do about it.

use std::error::Error as StdError;

use jiff::Timestamp;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error};

use super::Peer;
use super::certificate::Certificate;

/// Fewer bits of an RSA key are not taken.
const LEAST_RSA_BITS: usize = 2048;

/// Why there is no connection, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// A sentence.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// Finds out of a client's error whether it was TLS that failed, and why. Nothing, if it was something else, or if the other side
/// does not speak TLS at all.
pub fn fault(peer: Peer, error: &(dyn StdError + 'static)) -> Option<Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return of_tls(peer, error);
        }
        // What an error of the operating system's kind was made from is not its source.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref());
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn of_tls(peer: Peer, error: &Error) -> Option<Fault> {
    let Peer { name, section } = peer;
    let fault = |what: String, advice: String| Some(Fault { what, advice });
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            let told = other.0.downcast_ref::<Fault>();
            Some(told.cloned().unwrap_or_else(|| Fault {
                what: format!("the {name}'s certificate cannot be used: {error}"),
                advice: "make another one".to_owned(),
            }))
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => fault(
            format!("the {name} wants a certificate of its clients"),
            format!("set {section}client_certificate_file and {section}client_key_file"),
        ),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => fault(
            format!("the {name} does not take this client's certificate ({error})"),
            format!(
                "has {section}client_certificate_file expired? the {name} has to know the authority that signed it"
            ),
        ),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => fault(
            format!("the {name} ends the handshake"),
            format!(
                "if it wants a certificate of its clients, set {section}client_certificate_file and {section}client_key_file; else let it \
                 offer usual ciphers and a certificate of an RSA or P-256 key"
            ),
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            fault(
                format!("the {name} speaks no TLS that is safe today ({error})"),
                format!("let the {name} speak TLS 1.2 or 1.3"),
            )
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => fault(
            format!("the {name} is not known by this name"),
            format!(
                "write its address as its certificate has it, or make the {name} know the name"
            ),
        ),
        Error::NoCertificatesPresented => fault(
            format!("the {name} shows no certificate"),
            format!("give the {name} a certificate"),
        ),
        _ => None,
    }
}

/// A certificate that is not taken.
pub(super) struct Distrusted<'a> {
    pub(super) error: &'a CertificateError,
    /// As far as it can be read.
    pub(super) certificate: Option<Certificate>,
    /// Nothing, once the certificate is taken: then it is the key that is wrong.
    pub(super) host: Option<&'a ServerName<'a>>,
    /// There is a `ca_file`.
    pub(super) given: bool,
}

pub(super) fn distrust(peer: Peer, distrusted: &Distrusted<'_>) -> Fault {
    let Distrusted { error, host, .. } = distrusted;
    let its = format!("the {}'s certificate", peer.name);
    let ca_file = format!("{}ca_file", peer.section);
    let Some(certificate) = &distrusted.certificate else {
        return Fault {
            what: format!("{its} cannot be read: {error}"),
            advice: "make another one".to_owned(),
        };
    };
    let wanted = host.map_or_else(|| "IP:... or DNS:...".to_owned(), alternative_name);
    let make_one = format!("make one with subjectAltName ({wanted})");
    let itself = format!("or give this very certificate as {ca_file}");
    let (what, advice) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!(
                "expired on {}, and here it is {}",
                date(certificate.validity().1),
                now(error)
            ),
            "make a new one, unless the clock of this board is wrong".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!(
                "is valid from {} on, and here it is {}",
                date(certificate.validity().0),
                now(error)
            ),
            "is the clock of this board right (timedatectl)? if it is, make a new certificate"
                .to_owned(),
        ),
        CertificateError::BadSignature if host.is_none() => match certificate.rsa_bits() {
            Some(bits) if bits < LEAST_RSA_BITS => (
                format!("has an RSA key of {bits} bits, which is not safe"),
                format!("make one of at least {LEAST_RSA_BITS} bits"),
            ),
            _ => (
                format!("belongs to a key that the {} has not", peer.name),
                format!(
                    "give the {} the key that belongs to its certificate",
                    peer.name
                ),
            ),
        },
        _ if certificate.version() < 3 && !is_about_names(error) => {
            let named = host.is_some_and(|host| certificate.is_commonly_named(host));
            let advice = if named {
                format!("{make_one}, {itself}")
            } else {
                make_one
            };
            (
                format!("is of X.509 version {}", certificate.version()),
                advice,
            )
        }
        error if is_about_names(error) => {
            let host = host.map_or_else(String::new, |host| host.to_str().into_owned());
            let names = certificate.told_names();
            match certificate.alternative_names() {
                Some(hosts) if !hosts.is_empty() => (
                    format!("is for {names}, not for {host}"),
                    format!("write the address with a name of the certificate, or {make_one}"),
                ),
                _ => (
                    format!("is for {names}, without a subjectAltName, not for {host}"),
                    make_one,
                ),
            }
        }
        CertificateError::BadSignature => (
            format!(
                "names {} as its authority, but another of that name signed it",
                certificate.issuer()
            ),
            format!(
                "was the authority made anew? {ca_file} has to hold the one that signed, {itself}"
            ),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "is not made for servers".to_owned(),
            format!("make one with extendedKeyUsage=serverAuth, {itself}"),
        ),
        #[allow(deprecated, reason = "one of the names of the same thing")]
        CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            format!("is signed in a way that is not safe, or has an unusual key: {error}"),
            "make one with an RSA or P-256 key, signed with SHA-256".to_owned(),
        ),
        _ if certificate.names_itself_as_issuer() => (
            format!(
                "is signed by itself and is none of those that are trusted: it is {}",
                certificate.issuer()
            ),
            if distrusted.given {
                format!("{ca_file} has to hold this very certificate: was it made anew?")
            } else {
                format!("copy it to this board, and give it as {ca_file}")
            },
        ),
        CertificateError::UnknownIssuer => (
            format!("is signed by {}, who is not trusted", certificate.issuer()),
            format!(
                "{ca_file} has to hold the certificate of that authority, or the {}'s own",
                peer.name
            ),
        ),
        CertificateError::Other(other) if other.0.to_string().contains("CaUsedAsEndEntity") => (
            "is that of an authority, not of a server".to_owned(),
            format!("make one for the {}, {itself}", peer.name),
        ),
        error => (
            format!("cannot be used: {error}"),
            format!("make another one, {itself}"),
        ),
    };
    Fault {
        what: format!("{its} {what}"),
        advice,
    }
}

fn is_about_names(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    )
}

/// The name of a host as openssl wants it.
fn alternative_name(host: &ServerName<'_>) -> String {
    match host {
        ServerName::IpAddress(_) => format!("IP:{}", host.to_str()),
        _ => format!("DNS:{}", host.to_str()),
    }
}

fn now(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, .. }
        | CertificateError::NotValidYetContext { time, .. } => date(*time),
        _ => "later".to_owned(),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let stamp = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    stamp.map_or_else(
        || "a time out of mind".to_owned(),
        |stamp| stamp.to_string(),
    )
}
