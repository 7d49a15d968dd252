//! A still picture that another program serves over HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Error};

use super::picture::{Picture, Pixels};
use super::source::Source;
use super::supervise::Unavailable;
use crate::config::Camera;
use crate::features::image::ImageLimits;

/// An address that answers with a picture.
pub(super) struct Still {
    agent: Agent,
    url: String,
    /// The address without its secrets.
    shown: String,
    max_bytes: usize,
}

impl Still {
    /// Nothing is asked yet.
    pub(super) fn new(config: &Camera, limits: &ImageLimits) -> Still {
        let roots: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(Duration::from_millis(u64::from(config.timeout_ms))))
            .max_redirects(3)
            .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
            .accept("image/jpeg, image/png")
            .build()
            .new_agent();
        Still {
            agent,
            url: config.url.clone().unwrap_or_default(),
            shown: config.source(),
            max_bytes: limits.max_file_bytes,
        }
    }

    fn fetch(&self) -> Result<Vec<u8>, String> {
        let mut response = self
            .agent
            .get(&self.url)
            .call()
            .map_err(|error| self.told(&error))?;
        let limit = self.max_bytes as u64;
        let read = response.body_mut().with_config().limit(limit).read_to_vec();
        let bytes = read.map_err(|error| self.told(&error))?;
        if !(bytes.starts_with(&[0xff, 0xd8]) || bytes.starts_with(b"\x89PNG")) {
            let kind = response.body().mime_type().unwrap_or("something");
            return Err(format!(
                "answers with {kind} of {} bytes, not with a JPEG or PNG: give the address of a still picture, not of a page or a stream",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    /// The library's errors, in words; none may show the address with its password.
    fn told(&self, error: &Error) -> String {
        match error {
            Error::StatusCode(status @ (401 | 403)) => {
                format!(
                    "refuses with HTTP status {status}: give user and password as http://USER:PASSWORD@HOST/…"
                )
            }
            Error::StatusCode(status) => format!("answers with HTTP status {status}"),
            Error::BadUri(_) | Error::Http(_) => "is no address that can be asked".into(),
            Error::Timeout(_) => "does not answer in time (timeout_ms)".into(),
            Error::HostNotFound => {
                "has a host that is not known: is the name right, and the network up?".into()
            }
            Error::BodyExceedsLimit(_) => format!(
                "answers with more than the {} bytes that limits.image.max_file_bytes allows",
                self.max_bytes
            ),
            Error::Io(error) => format!("cannot be reached: {error}"),
            Error::Rustls(error) => format!("cannot be trusted: {error}"),
            Error::TooManyRedirects => "redirects in a circle".into(),
            _ => "cannot be read: its answer is not HTTP that is understood".into(),
        }
    }
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
