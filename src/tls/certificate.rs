//! What stands in a certificate, as far as people have to be told of it: any peer may have sent it.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use x509_cert::Certificate as Parsed;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Most names of a certificate that are told.
const MAX_NAMES: usize = 8;
/// Longest name that is told, characters.
const LONGEST_NAME: usize = 120;

/// A certificate that could be read.
pub(super) struct Certificate(Parsed);

impl Certificate {
    /// Nothing, if it is none.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
        Parsed::from_der(der).ok().map(Certificate)
    }

    /// Versions before the third have no extensions, thus no subjectAltName.
    pub(super) fn version(&self) -> u8 {
        match self.0.tbs_certificate().version() {
            Version::V1 => 1,
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }

    /// The first and the last second in which it is valid.
    pub(super) fn validity(&self) -> (UnixTime, UnixTime) {
        let validity = self.0.tbs_certificate().validity();
        let since_1970 = |time: Duration| UnixTime::since_unix_epoch(time);
        (
            since_1970(validity.not_before.to_unix_duration()),
            since_1970(validity.not_after.to_unix_duration()),
        )
    }

    /// Signed with its own key, or says so.
    pub(super) fn names_itself_as_issuer(&self) -> bool {
        let certificate = self.0.tbs_certificate();
        certificate.issuer() == certificate.subject()
    }

    /// Who signed it, for people.
    pub(super) fn issuer(&self) -> String {
        shown(&self.0.tbs_certificate().issuer().to_string())
    }

    /// The name of those that have no subjectAltName.
    pub(super) fn common_name(&self) -> Option<String> {
        let name = self.0.tbs_certificate().subject().common_name();
        Some(name.ok()??.value().into_owned())
    }

    /// Hosts that it is for, as openssl writes them: `DNS:broker.lan`, `IP:10.0.0.2`; nothing, if there is no subjectAltName.
    pub(super) fn alternative_names(&self) -> Option<Vec<String>> {
        let (_, SubjectAltName(names)) = self.0.tbs_certificate().get_extension().ok()??;
        let hosts = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(format!("DNS:{}", shown(name.as_str()))),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|ip| format!("IP:{ip}")),
            _ => None,
        });
        Some(hosts.collect())
    }

    /// Whether the common name is that of the host: what counts where there is no subjectAltName.
    pub(super) fn is_commonly_named(&self, host: &ServerName<'_>) -> bool {
        let Some(name) = self.common_name() else {
            return false;
        };
        match host {
            ServerName::DnsName(host) => host.as_ref().eq_ignore_ascii_case(&name),
            ServerName::IpAddress(host) => name
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip == IpAddr::from(*host)),
            _ => false,
        }
    }

    /// The names, for people.
    pub(super) fn told_names(&self) -> String {
        match (self.alternative_names(), self.common_name()) {
            (Some(names), _) if !names.is_empty() => {
                let more = names.len().saturating_sub(MAX_NAMES);
                let told = names[..names.len() - more].join(", ");
                match more {
                    0 => told,
                    more => format!("{told} and {more} more"),
                }
            }
            (_, Some(name)) => format!("CN={}", shown(&name)),
            _ => "no host at all".to_owned(),
        }
    }

    pub(super) fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let key = self.0.tbs_certificate().subject_public_key_info();
        key.to_der().ok().map(SubjectPublicKeyInfoDer::from)
    }

    /// Algorithm, as DER without its outermost tag and length, and the key itself.
    pub(super) fn algorithm_and_key(&self) -> Option<(Vec<u8>, &[u8])> {
        let info = self.0.tbs_certificate().subject_public_key_info();
        let algorithm = info.algorithm.to_der().ok()?;
        let mut reader = SliceReader::new(&algorithm).ok()?;
        let header = x509_cert::der::Header::decode(&mut reader).ok()?;
        let rest = reader.read_slice(header.length()).ok()?.to_vec();
        Some((rest, info.subject_public_key.as_bytes()?))
    }

    /// Size of an RSA key, bits.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        const RSA: &str = "1.2.840.113549.1.1.1";
        let info = self.0.tbs_certificate().subject_public_key_info();
        if info.algorithm.oid.to_string() != RSA {
            return None;
        }
        let mut reader = SliceReader::new(info.subject_public_key.as_bytes()?).ok()?;
        let modulus = reader.sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            UintRef::decode(inner)?;
            Ok::<_, x509_cert::der::Error>(modulus.as_bytes().len() * 8)
        });
        modulus.ok()
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A name for a line of text, whatever stands in it.
fn shown(name: &str) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().take(LONGEST_NAME).map(harmless).collect()
}
