//! Requests to the hub: redirects by hand, patience with a bad line, and what every refusal means.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{HeaderValue, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Body, Error};

use super::error::HubError;
use super::listing::{Etag, Repository};
use super::refusal::{About, By, PEER, refused, told};
use super::settings::Settings;
use super::socket::Connect;
use crate::guard::address::Address;
use crate::tls::{self, Secure};

const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_LIST_BYTES: u64 = 8 << 20;
const CONNECT: Duration = Duration::from_secs(10);
/// A line that gives nothing for so long is taken for broken. Of the whole there is no limit: a model takes hours.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Whoever is asked to wait longer is told so, and decides.
const LONGEST_WISH_S: u64 = 300;

/// Characters of a path's segment that stay (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Of a path.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// Is told what goes on while nothing comes: one line.
pub type Notice = dyn Fn(&str);

/// Asks the hub.
pub struct Client {
    agent: Agent,
    settings: Settings,
    notice: Box<Notice>,
}

/// An answer that is not a refusal.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Who gave it.
    pub(super) host: String,
    /// The commit that the hub itself, not whoever it redirects to, says that this is of.
    pub(super) commit: Option<String>,
    /// And what it calls the contents.
    pub(super) etag: Option<Etag>,
}

impl Client {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The system trusts nobody.
    pub fn new(settings: Settings, notice: Box<Notice>) -> Result<Client, HubError> {
        let trust = tls::client(PEER, None, None).map_err(|error| error.to_string());
        let http = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
            // What is packed on the way has other ranges.
            .accept_encoding("identity")
            .build();
        let connector = ConnectProxyConnector::default()
            .chain(Connect)
            .chain(Secure { trust });
        Ok(Client {
            agent: Agent::with_parts(http, connector, DefaultResolver::default()),
            settings,
            notice,
        })
    }

    /// How it asks.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the hub is.
    pub fn hub(&self) -> &str {
        &self.settings.base
    }

    /// The page of a repository, for people.
    pub fn page(&self, repository: &str) -> String {
        format!("{}/{repository}", self.settings.base)
    }

    /// Finds out which commit a revision is, and which files it has. Without the right to ask, what the cache knows.
    ///
    /// # Errors
    /// There is no such repository or revision, it may not be read, or the hub cannot be reached.
    pub fn repository(&self, id: &str, revision: &str) -> Result<Repository, HubError> {
        if self.settings.offline {
            let cache = &self.settings.cache;
            return cache
                .repository(id, revision)
                .ok_or_else(|| HubError::Offline {
                    what: format!("{id} at {revision}"),
                    cache: cache.root().to_owned(),
                });
        }
        let about = About {
            repository: id,
            revision,
            file: None,
        };
        let revision = utf8_percent_encode(revision, SEGMENT);
        let path = format!("/api/models/{id}/revision/{revision}?blobs=true");
        self.patiently(|| {
            let answer = self.ask(&path, None, about)?;
            let host = answer.host;
            let mut json = Vec::new();
            let body = answer.response.into_body().into_reader();
            body.take(MAX_LIST_BYTES + 1)
                .read_to_end(&mut json)
                .map_err(|error| told(&host, &Error::Io(error)))?;
            if json.len() as u64 > MAX_LIST_BYTES {
                return Err(HubError::TooLarge {
                    what: format!("the list of files of {id}"),
                    limit_bytes: MAX_LIST_BYTES,
                });
            }
            Repository::parse(id, &json).map_err(|reason| HubError::NotTheHub { host, reason })
        })
    }

    /// Asks for bytes of a file of a repository.
    pub(super) fn ask_file(
        &self,
        repository: &Repository,
        file: &str,
        range: &Range<u64>,
    ) -> Result<Answer, HubError> {
        if self.settings.offline {
            return Err(HubError::Offline {
                what: format!("{file} of {} at {}", repository.id, repository.commit),
                cache: self.settings.cache.root().to_owned(),
            });
        }
        let about = About {
            repository: &repository.id,
            revision: &repository.commit,
            file: Some(file),
        };
        let name = utf8_percent_encode(file, PATH);
        let path = format!("/{}/resolve/{}/{name}", repository.id, repository.commit);
        let answer = self.ask(&path, Some(range), about)?;
        if answer.commit.is_none() {
            return Err(HubError::NotTheHub {
                host: answer.host,
                reason: "it names no commit".to_owned(),
            });
        }
        Ok(answer)
    }

    /// Repeats a request while it fails for a reason that may pass.
    pub(super) fn patiently<T>(
        &self,
        mut request: impl FnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            match request() {
                Ok(found) => return Ok(found),
                Err(error) => self.pause(error, &mut failures)?,
            }
        }
    }

    /// Waits before another attempt; gives the error back where there is to be none.
    pub(super) fn pause(&self, error: HubError, failures: &mut u32) -> Result<(), HubError> {
        if !error.is_passing() || *failures >= self.settings.retries {
            return Err(error);
        }
        let pause = match error {
            HubError::TooMany { wait_s } if wait_s > LONGEST_WISH_S => return Err(error),
            HubError::TooMany { wait_s } => Duration::from_secs(wait_s),
            _ => LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(*failures)),
        };
        *failures += 1;
        let told = error.to_string();
        let what = told
            .split(['(', ';', ':'])
            .next()
            .unwrap_or_default()
            .trim();
        (self.notice)(&format!(
            "{what}: asking again in {} s ({failures} of {})",
            pause.as_secs_f32(),
            self.settings.retries
        ));
        std::thread::sleep(pause);
        Ok(())
    }

    /// Asks for what is at a path of the hub, and follows where it leads.
    fn ask(
        &self,
        path: &str,
        range: Option<&Range<u64>>,
        about: About<'_>,
    ) -> Result<Answer, HubError> {
        let settings = &self.settings;
        let bad_address = |reason: &str| HubError::Setting {
            name: "HF_ENDPOINT".to_owned(),
            reason: reason.to_owned(),
        };
        let mut address =
            Address::parse(&format!("{}{path}", settings.base)).map_err(bad_address)?;
        let (mut commit, mut etag) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let is_hub = settings.endpoint.confides_in(&address);
            let host = host_of(&address);
            let response = self.ask_once(&address, is_hub, range)?;
            let header = |name: &str| response.headers().get(name)?.to_str().ok();
            if is_hub {
                let named = header("x-linked-etag").or_else(|| header("etag"));
                commit = commit.or_else(|| header("x-repo-commit").map(str::to_owned));
                etag = etag.or_else(|| named.and_then(Etag::parse));
            }
            match response.status().as_u16() {
                200..=299 | 416 => {
                    return Ok(Answer {
                        response,
                        host,
                        commit,
                        etag,
                    });
                }
                301..=303 | 307 | 308 => address = redirected(&address, &host, &response)?,
                status => {
                    let by = By { host, is_hub };
                    return Err(refused(settings, status, by, &response, about));
                }
            }
        }
        Err(HubError::Redirect {
            host: host_of(&address),
            reason: "in a circle".to_owned(),
        })
    }

    fn ask_once(
        &self,
        address: &Address,
        is_hub: bool,
        range: Option<&Range<u64>>,
    ) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(address.asked());
        if let (Some(token), true) = (&self.settings.token, is_hub) {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.secret));
            let mut value = value.map_err(|_| HubError::BadToken {
                origin: token.origin.clone(),
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(range) = range {
            let last = range.end.saturating_sub(1);
            request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
        }
        let host = host_of(address);
        request.call().map_err(|error| told(&host, &error))
    }
}

/// For people: the name of the machine, and its port.
fn host_of(address: &Address) -> String {
    let asked = address.asked();
    let host = asked.split("://").nth(1).unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    let usual = if address.tls { ":443" } else { ":80" };
    host.strip_suffix(usual).unwrap_or(host).to_owned()
}

/// Where a redirect leads, if that may be asked. The address may be signed: it is not shown.
fn redirected(from: &Address, host: &str, response: &Response<Body>) -> Result<Address, HubError> {
    let refuse = |reason: &str| HubError::Redirect {
        host: host.to_owned(),
        reason: reason.to_owned(),
    };
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let to = location.ok_or_else(|| refuse("without saying where to"))?;
    let to = from
        .redirected(to)
        .map_err(|reason| refuse(&format!("to an address that {reason}")))?;
    match from.tls && !to.tls {
        true => Err(refuse("from https:// to http://, which is not encrypted")),
        false => Ok(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encryption is not given up on the way; what is not encrypted from the start may stay so.
    #[test]
    fn a_redirect_is_followed_as_far_as_it_is_safe() {
        for (from, to, told) in [
            ("https://a/b", "https://c/d", None),
            ("https://a/b", "/d", None),
            ("http://a/b", "http://c/d", None),
            ("http://a/b", "https://c/d", None),
            ("https://a/b", "http://a/d", Some("not encrypted")),
            ("https://a/b", "file:///etc/passwd", Some("scheme")),
        ] {
            let response = Response::builder()
                .header(header::LOCATION, to)
                .body(Body::builder().data(""))
                .unwrap();
            let followed = redirected(&Address::parse(from).unwrap(), "a", &response);
            match (followed, told) {
                (Ok(_), None) => {}
                (Err(error), Some(told)) => assert!(error.to_string().contains(told), "{error}"),
                (followed, _) => panic!("{from} to {to}: {}", followed.is_ok()),
            }
        }
    }
}
