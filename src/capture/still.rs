//! A still picture that another program, or the camera itself, serves over HTTP.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use ureq::http::{HeaderValue, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body, Error};

use super::access::Access;
use super::digest::{Challenge, challenges};
use super::picture::{Picture, Pixels};

use super::source::{Source, SourceOptions};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;
use crate::guard::address::{Address, host_and_port};
use crate::tls::{self, Peer, Secure};

/// Most redirects from one picture to where it is.
const MAX_REDIRECTS: usize = 3;

/// What the other side is called, and its keys.
const PEER: Peer = Peer {
    name: "camera",
    section: "",
};

/// `type = "http"` of `[[camera]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOptions {
    /// An address that answers with a JPEG or PNG (go2rtc, motionEye, Frigate, rpicam).
    pub url: Address,
    /// A file with a token to send as `Authorization: Bearer`, read again for every picture.
    pub bearer_token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust, or the camera's own one, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// Other hosts that may be redirected to, `HOST` or `HOST:PORT`. User, password and token do not go there.
    pub redirect_hosts: Vec<String>,
    /// Longest wait for an answer, milliseconds.
    pub timeout_ms: u32,
}

impl HttpOptions {
    /// Reads `url`.
    ///
    /// # Errors
    /// What is wrong with it. It is not shown: it may hold a password.
    pub(super) fn address(url: &str) -> Result<Address, String> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err("url must start with http:// or https://".into());
        }
        Address::parse(url).map_err(|reason| {
            format!(
                "url {reason}; it is written http://HOST[:PORT]/PATH, with USER:PASSWORD@ before the host where they are wanted, and \
                 characters such as / # ? of user and password percent-encoded (%2F %23 %3F)"
            )
        })
    }

    /// Looks whether the values fit each other.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.url.login.is_some() && self.bearer_token_file.is_some() {
            return Err("url names a user, and bearer_token_file is given: keep one".into());
        }
        if self.ca_file.is_some() && !self.url.tls {
            return Err("ca_file is given, but url does not start with https://".into());
        }
        let no_host = |host: &&String| host_and_port(host).is_err();
        match self.redirect_hosts.iter().find(no_host) {
            Some(host) => Err(format!(
                "redirect_hosts has {host:?}; it takes HOST or HOST:PORT"
            )),
            None => Ok(()),
        }
    }
}

impl SourceOptions for HttpOptions {
    fn open(&self, _: f32, limits: &ImageLimits) -> Result<Box<dyn Source>, Unavailable> {
        Ok(Box::new(Still::new(self, limits)?))
    }

    fn shown(&self) -> String {
        self.url.shown().to_owned()
    }

    fn advice(&self) -> Option<&'static str> {
        Some("the address has to show one still picture in a browser on this board")
    }
}

/// An address that answers with a picture.
struct Still {
    agent: Agent,
    address: Address,
    access: Access,
    redirect_hosts: Vec<String>,
    timeout: Duration,
    /// The address without its secrets.
    shown: String,
    max_bytes: usize,
}

impl Still {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// Whom to trust cannot be read.
    fn new(options: &HttpOptions, limits: &ImageLimits) -> Result<Still, Unavailable> {
        let shown = options.url.shown().to_owned();
        let mut address = options.url.clone();
        let trust = tls::client(PEER, options.ca_file.as_deref(), None)
            .map_err(|error| format!("cannot be asked: {error}"));
        if let (true, Err(reason)) = (address.tls, &trust) {
            return Err(Unavailable(format!("{shown} {reason}")));
        }
        let http = Agent::config_builder()
            // Where to go next, and what to tell there, is looked at here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Cameras are near by; and a password is for nobody on the way.
            .proxy(None)
            .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
            .accept("image/jpeg, image/png")
            .build();
        let connector = TcpConnector::default().chain(Secure { trust });
        let access = Access::new(options.bearer_token_file.as_deref(), address.login.take());
        Ok(Still {
            agent: Agent::with_parts(http, connector, DefaultResolver::default()),
            address,
            access,
            redirect_hosts: options.redirect_hosts.clone(),
            timeout: Duration::from_millis(u64::from(options.timeout_ms)),
            shown,
            max_bytes: limits.max_file_bytes,
        })
    }

    fn fetch(&mut self) -> Result<Vec<u8>, String> {
        let until = Instant::now() + self.timeout;
        let mut address = self.address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.ask(&address, until)?;
            match response.status().as_u16() {
                200..=299 => return self.picture(&mut response),
                301..=303 | 307 | 308 => address = self.redirected(&address, &response)?,
                status @ (401 | 403) => {
                    let trusted = self.address.confides_in(&address);
                    return Err(self.access.refused(status, &wanted(&response), trusted));
                }
                status => return Err(format!("answers with HTTP status {status}")),
            }
        }
        Err("redirects in a circle".into())
    }

    /// Asks for what is at `address`, as whom it wants to be asked.
    fn ask(&mut self, address: &Address, until: Instant) -> Result<Response<Body>, String> {
        let trusted = self.address.confides_in(address);
        let mut left_to_learn = 2;
        loop {
            let timeout = until.saturating_duration_since(Instant::now());
            let mut request = self.agent.get(address.asked());
            if let Some(value) = match trusted {
                true => self.access.header(&address.target)?,
                false => None,
            } {
                let mut value = HeaderValue::from_bytes(&value)
                    .map_err(|_| "cannot be asked: user or password hold control characters")?;
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
            let request = request.config().timeout_global(Some(timeout)).build();
            let response = request.call().map_err(|error| self.told(&error))?;
            let status = response.status().as_u16();
            let learned = matches!(status, 401 | 403)
                && trusted
                && self.access.learn(status, &wanted(&response));
            if !learned || left_to_learn == 0 {
                return Ok(response);
            }
            left_to_learn -= 1;
        }
    }

    /// Where a redirect leads, if that may be asked.
    fn redirected(&self, from: &Address, response: &Response<Body>) -> Result<Address, String> {
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let to = location.ok_or("redirects without saying where to")?;
        let to = from
            .redirected(to)
            .map_err(|reason| format!("redirects to an address that {reason}"))?;
        if from.tls && !to.tls {
            return Err(format!(
                "redirects from https:// to {to:?}, which is not encrypted: it is not followed"
            ));
        }
        let allowed = |host: &String| to.is_meant_by(host);
        if !self.address.same_host(&to) && !self.redirect_hosts.iter().any(allowed) {
            return Err(format!(
                "redirects to {to:?}, on another host: give that address, or name the host in redirect_hosts"
            ));
        }
        Ok(to)
    }

    /// Reads the picture that was answered.
    fn picture(&self, response: &mut Response<Body>) -> Result<Vec<u8>, String> {
        let body = response.body_mut();
        let kind = body.mime_type().unwrap_or("something").to_owned();
        let streams = ["multipart/", "video/", "application/vnd.apple.mpegurl"];
        if streams.iter().any(|stream| kind.starts_with(stream)) {
            return Err(format!(
                "answers with {kind}: give the address of a still picture, not of a stream"
            ));
        }
        let promised = body.content_length();
        let mut bytes = Vec::new();
        let limited = body.with_config().limit(self.max_bytes as u64).reader();
        let read = { limited }.read_to_end(&mut bytes).map_err(Error::from);
        match read {
            Err(error @ Error::BodyExceedsLimit(_)) => return Err(self.told(&error)),
            // Some cameras promise more than they have.
            Err(_) if is_ended(&bytes) => {}
            Err(error) if bytes.is_empty() => return Err(self.told(&error)),
            Err(error) => {
                let of = promised.map_or_else(String::new, |promised| format!(" of {promised}"));
                let came = format!("{}{of} bytes of {kind} came", bytes.len());
                return Err(match error {
                    Error::Timeout(_) => format!(
                        "does not end in time (timeout_ms): {came}; if it is a stream, give the address of a still picture"
                    ),
                    error => format!("ends early: {came}, then it {}", self.told(&error)),
                });
            }
            Ok(_) => {}
        }
        if !(bytes.starts_with(JPEG) || bytes.starts_with(PNG)) {
            return Err(format!(
                "answers with {kind} of {} bytes, not with a JPEG or PNG: give the address of a still picture, not of a page or a stream",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    /// The library's errors, in words; none may show the address with its password.
    fn told(&self, error: &Error) -> String {
        let fault = match error {
            Error::Io(error) => tls::fault(PEER, error),
            Error::Rustls(error) => tls::fault(PEER, error),
            Error::Other(error) => tls::fault(PEER, &**error),
            _ => None,
        };
        if let Some(fault) = fault {
            return format!("cannot be trusted: {fault}; {}", fault.advice);
        }
        match error {
            Error::BadUri(_) | Error::Http(_) => "is no address that can be asked".into(),
            Error::Timeout(_) => "does not answer in time (timeout_ms)".into(),
            Error::HostNotFound => {
                "has a host that is not known: is the name right, and the network up?".into()
            }
            Error::BodyExceedsLimit(_) => format!(
                "answers with more than the {} bytes that limits.image.max_file_bytes allows",
                self.max_bytes
            ),
            Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                "closes the connection".into()
            }
            Error::Io(error) => format!("cannot be reached: {error}"),
            Error::Other(error) => error.to_string(),
            _ => "cannot be read: its answer is not HTTP that is understood".into(),
        }
    }
}

const JPEG: &[u8] = &[0xff, 0xd8];
const PNG: &[u8] = b"\x89PNG";

/// Whether a picture's last bytes are there.
fn is_ended(bytes: &[u8]) -> bool {
    let is_png =
        bytes.starts_with(PNG) && bytes[..bytes.len().saturating_sub(4)].ends_with(b"IEND");
    is_png || (bytes.starts_with(JPEG) && bytes.ends_with(&[0xff, 0xd9]))
}

/// How the server wants to be asked.
fn wanted(response: &Response<Body>) -> Vec<Challenge> {
    let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
    let texts = headers
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    texts.flat_map(|text| challenges(&text)).collect()
}

impl Source for Still {
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable> {
        if !wanted {
            std::thread::sleep(wait);
            return Ok(None);
        }
        let bytes = self
            .fetch()
            .map_err(|reason| Unavailable(format!("{} {reason}", self.shown)))?;
        Ok(Some(Picture {
            pixels: Pixels::File(bytes),
            taken_at: SystemTime::now(),
        }))
    }
}
