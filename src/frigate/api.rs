//! Frigate's HTTP API: the picture of an event, and its description.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use ureq::http::{HeaderMap, HeaderValue, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body, Error};

use super::options::FrigateOptions;
use crate::guard::address::Address;
use crate::guard::{harmless, regular};
use crate::tls::{self, Peer, Secure};

/// What the other side is called, and its keys.
const PEER: Peer = Peer {
    name: "Frigate",
    section: "frigate.",
};

/// The cookie that Frigate gives for a login: it is taken as a bearer token, too.
const COOKIE: &str = "frigate_token";
/// Longest token, bytes.
const MAX_TOKEN_BYTES: u64 = 8192;
/// As high as a picture is asked for, pixels: models look at no more.
const HEIGHT_PX: u32 = 768;
/// Of an answer that is not the one, so much is shown, bytes.
const SHOWN_BYTES: u64 = 200;

/// Why something did not work.
#[derive(Debug, PartialEq)]
pub enum Trouble {
    /// It may work a little later.
    Passing(String),
    /// What is asked about is not there: it may come in a moment, or be gone.
    Absent(String),
    /// It will not by itself.
    Lasting(String),
}

impl Trouble {
    /// What it is, without a subject.
    pub fn in_words(&self) -> &str {
        match self {
            Trouble::Passing(words) | Trouble::Absent(words) | Trouble::Lasting(words) => words,
        }
    }
}

/// A client of one Frigate. It waits, so it is asked on a thread of its own.
pub struct Api {
    agent: Agent,
    address: Address,
    bearer_token_file: Option<PathBuf>,
    /// Of the last login.
    token: Option<String>,
    max_bytes: u64,
}

impl Api {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// Whom to trust cannot be read.
    pub fn new(options: &FrigateOptions, max_bytes: usize) -> Result<Api, String> {
        let address = options.address()?;
        let trust =
            tls::client(PEER, options.ca_file.as_deref(), None).map_err(|error| error.to_string());
        if let (true, Err(reason)) = (address.tls, &trust) {
            return Err(format!("frigate.url: {reason}"));
        }
        let http = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Frigate is near by; and a password is for nobody on the way.
            .proxy(None)
            .timeout_global(Some(Duration::from_millis(u64::from(options.timeout_ms))))
            .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector = TcpConnector::default().chain(Secure { trust });
        Ok(Api {
            agent: Agent::with_parts(http, connector, DefaultResolver::default()),
            address,
            bearer_token_file: options.bearer_token_file.clone(),
            token: None,
            max_bytes: max_bytes as u64,
        })
    }

    /// The picture of an event, cut to what was tracked: a JPEG or PNG file.
    ///
    /// # Errors
    /// There is none, or not yet.
    pub fn snapshot(&mut self, id: &str) -> Result<Vec<u8>, Trouble> {
        self.picture(
            &format!("/api/events/{id}/snapshot.jpg?crop=1&h={HEIGHT_PX}&quality=90"),
            "does not have that event or its picture (HTTP status 404): are snapshots enabled for this camera?",
        )
    }

    /// The newest picture of a camera.
    ///
    /// # Errors
    /// There is none, or not yet.
    pub fn latest(&mut self, camera: &str) -> Result<Vec<u8>, Trouble> {
        self.picture(
            &format!("/api/{camera}/latest.jpg?h={HEIGHT_PX}"),
            "does not have that camera (HTTP status 404): is its name written as in Frigate's configuration?",
        )
    }

    fn picture(&mut self, path: &str, absent: &str) -> Result<Vec<u8>, Trouble> {
        let mut response = self.ask(path, None, absent)?;
        let body = response.body_mut();
        let kind = body.mime_type().unwrap_or("something").to_owned();
        let mut bytes = Vec::new();
        let limited = body.with_config().limit(self.max_bytes).reader();
        match { limited }.read_to_end(&mut bytes).map_err(Error::from) {
            Ok(_) => {}
            Err(Error::BodyExceedsLimit(_)) => {
                return Err(Trouble::Lasting(format!(
                    "answers with more than the {} bytes that limits.image.max_file_bytes allows",
                    self.max_bytes
                )));
            }
            Err(error) => return Err(self.told(&error)),
        }
        if !(bytes.starts_with(&[0xff, 0xd8]) || bytes.starts_with(b"\x89PNG")) {
            return Err(Trouble::Lasting(format!(
                "answers with {kind} of {} bytes, not with a picture: is frigate.url the address of Frigate's API?",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Writes what an event shows. Writing the same again changes nothing.
    ///
    /// # Errors
    /// It is refused, or Frigate is away.
    pub fn describe(&mut self, id: &str, description: &str) -> Result<(), Trouble> {
        let path = format!("/api/events/{id}/description");
        let body = json!({ "description": description }).to_string();
        let absent =
            "does not have that event any more (HTTP status 404): was it deleted, or too short?";
        self.ask(&path, Some(&body), absent).map(drop)
    }

    /// A `GET`, or a `POST` of JSON, as whoever is configured; logs in where that is wanted. `absent`: what a 404 means.
    fn ask(
        &mut self,
        path: &str,
        body: Option<&str>,
        absent: &str,
    ) -> Result<Response<Body>, Trouble> {
        let mut response = self.send(path, body)?;
        if response.status().as_u16() == 401 && self.address.login.is_some() {
            self.login()?;
            response = self.send(path, body)?;
        }
        match response.status().as_u16() {
            200..=299 => Ok(response),
            401 => Err(Trouble::Lasting(
                "wants a login (HTTP status 401): give USER:PASSWORD@ before the host of frigate.url, a bearer_token_file, or the port that \
                 asks for none (5000)"
                    .to_owned(),
            )),
            403 => Err(Trouble::Lasting(match body {
                None => "refuses the picture (HTTP status 403): may this user's role in Frigate see that camera?".to_owned(),
                Some(_) => "refuses with HTTP status 403: descriptions may be written by users whose role in Frigate is admin; choose \
                     such a user, or set frigate.write_back = false"
                    .to_owned(),
            })),
            404 => Err(Trouble::Absent(absent.to_owned())),
            status @ 300..=399 => Err(Trouble::Lasting(format!(
                "redirects (HTTP status {status}): give the address itself as frigate.url"
            ))),
            status => {
                let mut shown = Vec::new();
                let mut reader = response.body_mut().as_reader().take(SHOWN_BYTES);
                reader.read_to_end(&mut shown).ok();
                let shown = String::from_utf8_lossy(&shown);
                let words = format!("answers with HTTP status {status}: {}", harmless::line(shown.trim()));
                match status {
                    429 | 500..=599 => Err(Trouble::Passing(words)),
                    _ => Err(Trouble::Lasting(words)),
                }
            }
        }
    }

    fn send(&self, path: &str, body: Option<&str>) -> Result<Response<Body>, Trouble> {
        let url = format!("{}{path}", self.address.asked());
        let mut headers = HeaderMap::new();
        if let Some(token) = self.token()? {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Trouble::Lasting("cannot be asked: its token is none".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let sent = match body {
            None => {
                let mut request = self.agent.get(url);
                if let Some(into) = request.headers_mut() {
                    *into = headers;
                }
                request.call()
            }
            Some(body) => {
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                );
                let mut request = self.agent.post(url);
                if let Some(into) = request.headers_mut() {
                    *into = headers;
                }
                request.send(body)
            }
        };
        sent.map_err(|error| self.told(&error))
    }

    fn token(&self) -> Result<Option<String>, Trouble> {
        let Some(path) = &self.bearer_token_file else {
            return Ok(self.token.clone());
        };
        let in_words = |reason: String| {
            Trouble::Lasting(format!(
                "cannot be asked: frigate.bearer_token_file: {}: {reason}",
                path.display()
            ))
        };
        let mut text = String::new();
        regular::open(path)
            .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
            .map_err(|error| in_words(error.to_string()))?;
        match text.trim() {
            "" => Err(in_words("it is empty".to_owned())),
            token => Ok(Some(token.to_owned())),
        }
    }

    /// Asks for a token with user and password.
    fn login(&mut self) -> Result<(), Trouble> {
        self.token = None;
        let Some(login) = &self.address.login else {
            return Ok(());
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let body = json!({ "user": text(&login.user), "password": text(&login.password) });
        let response = self.send("/api/login", Some(&body.to_string()))?;
        let status = response.status().as_u16();
        let cookies = response.headers().get_all(header::SET_COOKIE).iter();
        let token = cookies
            .filter_map(|cookie| cookie.to_str().ok()?.split(';').next()?.split_once('='))
            .find_map(|(name, value)| (name.trim() == COOKIE).then(|| value.trim().to_owned()));
        match (status, token) {
            (200..=299, Some(token)) => {
                self.token = Some(token);
                Ok(())
            }
            (429 | 500..=599, _) => Err(Trouble::Passing(format!(
                "answers to the login with HTTP status {status}"
            ))),
            _ => Err(Trouble::Lasting(format!(
                "refuses user and password of frigate.url (HTTP status {status})"
            ))),
        }
    }

    /// The library's errors, in words; none may show the address with its password.
    fn told(&self, error: &Error) -> Trouble {
        let fault = match error {
            Error::Io(error) => tls::fault(PEER, error),
            Error::Rustls(error) => tls::fault(PEER, error),
            Error::Other(error) => tls::fault(PEER, &**error),
            _ => None,
        };
        if let Some(fault) = fault {
            return Trouble::Lasting(format!("cannot be trusted: {fault}; {}", fault.advice));
        }
        Trouble::Passing(match error {
            Error::Timeout(_) => "does not answer in time (frigate.timeout_ms)".to_owned(),
            Error::HostNotFound => {
                "has a host that is not known: is the name right, and the network up?".to_owned()
            }
            Error::Io(error) => format!("cannot be reached: {error}"),
            error => format!("gives an answer that is not understood: {error}"),
        })
    }
}
