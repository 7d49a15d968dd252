//! What went wrong with a request, in words: a status and the hub's own code, or no answer at all.

use ureq::http::Response;
use ureq::{Body, Error};

use super::error::HubError;
use super::settings::Settings;
use crate::guard::harmless;
use crate::tls::{self, Peer};

/// What the other side is called, and its keys.
pub(super) const PEER: Peer = Peer {
    name: "hub",
    section: "",
};

/// What a request is about, for the words of a refusal.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) repository: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: Option<&'a str>,
}

/// Who refuses.
pub(super) struct By {
    pub(super) host: String,
    /// The hub itself, and not whoever it redirected to.
    pub(super) is_hub: bool,
}

/// The library's errors, in words; none may show where a redirect led.
pub(super) fn told(host: &str, error: &Error) -> HubError {
    let fault = match error {
        Error::Io(error) => tls::fault(PEER, error),
        Error::Rustls(error) => tls::fault(PEER, error),
        Error::Other(error) => tls::fault(PEER, &**error),
        _ => None,
    };
    let host = host.to_owned();
    if let Some(fault) = fault {
        return HubError::Untrusted {
            host,
            reason: fault.to_string(),
        };
    }
    let reason = match error {
        Error::BadUri(_) | Error::Http(_) => "is no address that can be asked".to_owned(),
        Error::Timeout(_) => "does not answer in time".to_owned(),
        Error::HostNotFound => {
            "is not known: is the network up, and does it resolve names?".to_owned()
        }
        Error::ConnectProxyFailed(_) | Error::InvalidProxyUrl => {
            "cannot be reached through the proxy: look at https_proxy".to_owned()
        }
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "closes the connection".to_owned()
        }
        Error::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::Timeout(_)) => "does not go on in time".to_owned(),
            _ => format!("cannot be reached ({error})"),
        },
        Error::Other(error) => format!("cannot be asked ({error})"),
        _ => "gives an answer that is not HTTP that is understood".to_owned(),
    };
    HubError::Unreachable { host, reason }
}

/// What a status means; the hub's own code decides where there is one.
pub(super) fn refused(
    settings: &Settings,
    status: u16,
    By { host, is_hub }: By,
    response: &Response<Body>,
    about: About<'_>,
) -> HubError {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let code = header("x-error-code").unwrap_or_default();
    let message = header("x-error-message").unwrap_or_default();
    let said = match message.is_empty() {
        true => String::new(),
        false => format!(" ({})", harmless::short(&message)),
    };
    let repository = about.repository.to_owned();
    let page = format!("{}/{repository}", settings.base);
    let with_token = settings.token.is_some();
    match (status, code.as_str()) {
        (_, "GatedRepo") if status == 403 || with_token => {
            HubError::NotAccepted { repository, page }
        }
        (_, "GatedRepo") => HubError::Gated { repository, page },
        (_, "RevisionNotFound") => HubError::NoRevision {
            page: format!("{page}/tree/main"),
            repository,
            revision: about.revision.to_owned(),
        },
        (_, "EntryNotFound") => HubError::NoFile {
            repository,
            revision: about.revision.to_owned(),
            file: about.file.unwrap_or_default().to_owned(),
            others: "others".to_owned(),
        },
        (_, "RepoNotFound") => HubError::NoRepository {
            repository,
            with_token,
        },
        (401, _) if message.contains("Invalid credentials") => HubError::BadToken {
            origin: settings
                .token
                .as_ref()
                .map_or_else(|| "nobody".to_owned(), |token| token.origin.clone()),
        },
        (403, _) if message.contains("Access to this resource is disabled") => {
            HubError::Disabled { repository }
        }
        (429, _) => HubError::TooMany {
            wait_s: wish(header("retry-after"), header("ratelimit")),
        },
        (408 | 500..=599, _) => HubError::Server { host, status },
        (401, _) if is_hub => HubError::NoRepository {
            repository,
            with_token,
        },
        (403, _) if is_hub && with_token => HubError::Forbidden { repository, said },
        (401 | 403, _) if !is_hub => HubError::Unreachable {
            host,
            reason: format!("refuses the address that the hub gave (status {status})"),
        },
        _ if is_hub && header("x-request-id").is_none() && code.is_empty() => HubError::NotTheHub {
            host,
            reason: format!("status {status} without a word of the hub's"),
        },
        _ => HubError::Status { host, status, said },
    }
}

/// Seconds to wait: as `Retry-After` says, or `RateLimit: "api";r=0;t=55`.
fn wish(retry_after: Option<String>, rate_limit: Option<String>) -> u64 {
    let limited = rate_limit.and_then(|text| {
        let mut parts = text.split(';').map(str::trim);
        parts.find_map(|part| part.strip_prefix("t=")?.parse().ok())
    });
    let asked = retry_after.and_then(|text| text.trim().parse().ok());
    asked.or(limited).unwrap_or(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_wait_is_understood() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(wish(text("7"), text("\"api\";r=0;t=55")), 7);
        assert_eq!(wish(None, text("\"api\";r=0;t=55")), 55);
        assert_eq!(wish(text("Wed, 21 Oct"), None), 5);
    }
}
