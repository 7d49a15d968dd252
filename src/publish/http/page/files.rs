//! The page itself: HTML, a script and a style sheet, with nothing from elsewhere.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::publish::http::Shared;

const INDEX: &[u8] = include_bytes!("index.html");
const SCRIPT: &[u8] = include_bytes!("page.js");
const STYLE: &[u8] = include_bytes!("page.css");

fn file(shared: &Shared, kind: &'static str, bytes: &'static [u8]) -> Response {
    let frames = match shared.options.frame_ancestors.as_slice() {
        [] => "'none'".to_owned(),
        listed => listed.join(" "),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors {frames}"
    );
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("permissions-policy"),
            "microphone=(self), camera=(), geolocation=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Origins are checked when the configuration is read.
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The page, for a browser; for others the word that Ollama's clients look for.
pub(super) async fn index(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|kinds| kinds.contains("text/html")) {
        return file(&shared, "text/html; charset=utf-8", INDEX);
    }
    (
        [(CONTENT_TYPE, "text/plain; charset=utf-8")],
        "Ollama is running",
    )
        .into_response()
}

pub(super) async fn script(State(shared): State<Arc<Shared>>) -> Response {
    file(&shared, "text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn style(State(shared): State<Arc<Shared>>) -> Response {
    file(&shared, "text/css; charset=utf-8", STYLE)
}
