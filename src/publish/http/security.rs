//! Who may ask. Each request is looked at before anything of it is used: the name that the server is called by, the web site that a
//! browser asks for, and the key.
//!
//! A name of the internet that leads to this machine (DNS rebinding) would make every web page a client; so only names of a home network,
//! addresses, and what `http.hosts` lists are answered to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, ORIGIN,
    TRANSFER_ENCODING, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::fault::Fault;
use super::key::COOKIE_NAME;
use super::page;
use crate::guard::harmless::short;

/// Endings of names that lead nowhere but into a home network.
const HOME: [&str; 6] = [
    ".localhost",
    ".local",
    ".internal",
    ".home.arpa",
    ".lan",
    ".home",
];

/// Lets through who may ask.
pub(super) async fn admitted(
    State(shared): State<Arc<Shared>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let origin = match examine(&shared, &request) {
        Ok(origin) => origin,
        Err(fault) => return fault.into_response(),
    };
    let mut response = if origin.is_some() && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("origin"));
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, HEAD"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type"),
        );
    }
    response
}

/// Looks at a request; the origin of a web site that is listed.
fn examine(shared: &Shared, request: &Request<Body>) -> Result<Option<HeaderValue>, Fault> {
    let headers = request.headers();
    // Two lengths are read differently by different programs in a row: what is behind the first is not another's request.
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(Fault::invalid(
            "",
            "the request has two lengths: Content-Length and Transfer-Encoding",
        ));
    }
    let host = host(request)?;
    if !is_ours(&host, &shared.options.hosts) {
        let message = format!(
            "this server is not called {:?}: list the name in http.hosts of gemmad.toml",
            short(&host)
        );
        return Err(Fault::new(StatusCode::FORBIDDEN, "unknown_host", message));
    }
    let origin = foreign_origin(headers, &host, &shared.options.origins)?;
    let preflight = origin.is_some() && request.method() == Method::OPTIONS;
    let Some(key) = &shared.key else {
        return Ok(origin);
    };
    if preflight || page::is_open(request.method(), request.uri().path()) {
        return Ok(origin);
    }
    let bearer = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|sent| sent.split_first_chunk::<7>());
    let by_key = bearer.is_some_and(|(scheme, sent)| {
        scheme.eq_ignore_ascii_case(b"Bearer ") && key.is(sent.trim_ascii())
    });
    // A cookie is a browser's, and comes with every request to this server; that it is ours, Origin and SameSite say.
    if by_key || cookie(headers).is_some_and(|shown| key.is_session(shown)) {
        return Ok(origin);
    }
    let message = match bearer {
        Some(_) => {
            "the key is wrong: send the one of http.api_key_file as \"Authorization: Bearer KEY\""
        }
        None => {
            "a key is needed: send the one of http.api_key_file as \"Authorization: Bearer KEY\""
        }
    };
    Err(Fault::new(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        message,
    ))
}

/// The name that the server is called by, with its port.
fn host(request: &Request<Body>) -> Result<String, Fault> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next(), request.uri().authority()) {
        (_, _, Some(authority)) => Some(authority.as_str()),
        (Some(host), None, None) => host.to_str().ok(),
        _ => None,
    };
    host.map(str::to_ascii_lowercase)
        .ok_or_else(|| Fault::invalid("", "the request has no Host header, or more than one"))
}

/// What stands before the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Whether a name is one that the server answers to.
fn is_ours(host: &str, more: &[String]) -> bool {
    let name = name_of(host).trim_end_matches('.');
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.') && !name.contains(':'))
        || HOME.iter().any(|end| name.ends_with(end))
        || more.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The origin of another web site, where it is one that is listed; an error where it is not.
fn foreign_origin(
    headers: &HeaderMap,
    host: &str,
    listed: &[String],
) -> Result<Option<HeaderValue>, Fault> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let authority = text.split_once("://").map(|(_, authority)| authority);
    if authority == Some(host) {
        return Ok(None);
    }
    if listed
        .iter()
        .any(|listed| listed.trim_end_matches('/').eq_ignore_ascii_case(&text))
    {
        return Ok(Some(origin.clone()));
    }
    let message = format!(
        "the web site {:?} may not ask: list it in http.origins of gemmad.toml",
        short(&text)
    );
    Err(Fault::new(StatusCode::FORBIDDEN, "foreign_origin", message))
}

/// What a browser shows in the place of the key.
fn cookie(headers: &HeaderMap) -> Option<&[u8]> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies.flat_map(|header| header.as_bytes().split(|&b| b == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii().strip_prefix(COOKIE_NAME.as_bytes())?;
        pair.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_home_are_ours_and_those_of_the_internet_are_not() {
        for host in [
            "localhost",
            "localhost:11434",
            "127.0.0.1:11434",
            "192.168.1.5",
            "[::1]:11434",
            "[fd00::2]",
            "pi",
            "pi:80",
            "pi.local",
            "pi.lan:1",
            "homeassistant.local.",
            "a.home.arpa",
            "x.localhost",
        ] {
            assert!(is_ours(host, &[]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:11434",
            "127.0.0.1.evil.example",
            "local.evil.example",
            "",
            ":80",
            "localhost.evil.com",
        ] {
            assert!(!is_ours(host, &[]), "{host}");
        }
        assert!(is_ours(
            "pi.example.org:443",
            &["pi.example.org".to_owned()]
        ));
    }

    #[test]
    fn web_sites_ask_only_where_they_are_listed() {
        let asked = |origin: &'static str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            let listed = ["https://ha.example.org".to_owned()];
            foreign_origin(&headers, "pi.local:11434", &listed).map(|origin| origin.is_some())
        };
        assert_eq!(asked("http://pi.local:11434"), Ok(false));
        assert_eq!(asked("https://ha.example.org"), Ok(true));
        for origin in [
            "https://evil.example",
            "null",
            "http://pi.local",
            "http://pi.local:11434.evil.example",
            "",
        ] {
            assert!(asked(origin).is_err(), "{origin}");
        }
        assert_eq!(foreign_origin(&HeaderMap::new(), "pi", &[]), Ok(None));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(text))]);
            cookie(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of("a=1; gemmad=xyz; b=2"), Some(b"xyz".to_vec()));
        assert_eq!(of("gemmadx=1; xgemmad=2"), None);
    }
}
